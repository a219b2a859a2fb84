"""What each verb of ``msgm.api.verbs`` does for the generators, classifiers, recommenders and attributes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from msgm.api.experiments import Named
from msgm.config import load_config
from msgm.errors import UserError
from msgm.runs import Run

Folder = Path | str


def _train_generator(named: Named, out: Folder | None, resume: bool, device: str, **_: Any) -> Run:
    from msgm.training import train as train_run

    return train_run(load_config(named.tree), out, resume, device)


def _train_classifier(named: Named, out: Folder | None, device: str, **_: Any) -> Run:
    from msgm.classifier.config import load_config as load
    from msgm.classifier.single import train as train_run

    return train_run(load(named.tree), out, device)


def _fit_recommender(named: Named, out: Folder | None, model: str | None, **_: Any) -> Run:
    from msgm.folders import place
    from msgm.recommender.config import load_config as load
    from msgm.recommender.service import fit

    config = load(named.tree)
    return Run(fit(config, model, Path(out or place(Path("runs"), config.name, model or "model", key="model"))))


def _refuse_training(named: Named, out: Folder | None, **_: Any) -> Run:
    raise UserError("train: a config of users' attributes is for compare; give a recommender's.")


def _unlearn_generator(
    named: Named,
    source: Folder,
    out: Folder | None,
    resume: bool,
    device: str,
    fresh_chain: bool,
    seed: int | None,
    **_: Any,
) -> Run:
    from msgm.training import unlearn as unlearn_run

    seeded = named if seed is None else named.having("seed", seed)
    return unlearn_run(load_config(seeded.tree), source, out, resume, device, fresh_chain)


def _unlearn_classifier(
    named: Named,
    source: Folder,
    out: Folder | None,
    device: str,
    fresh_chain: bool,
    seed: int | None,
    method: str | None,
    request: str | None,
    trained_on: Folder | None,
    **_: Any,
) -> Run:
    from msgm.classifier.config import load_config as load
    from msgm.classifier.single import unlearn as unlearn_run

    config = load(named.tree)
    if method is None:
        raise UserError(f"unlearn: method: say which; the config has {', '.join(config.rows())}.")
    return unlearn_run(config, source, method, request, seed, out, device, fresh_chain, trained_on)


def _compare_generators(
    named: Named,
    out: Folder | None,
    only: Sequence[str] | None,
    source: Folder | None,
    device: str,
    fresh_chain: bool,
    start: Literal["scratch", "finetune"] | None,
    sweep: Sequence[str],
    cache: bool,
    jobs: int | None,
    cluster: str | None,
    **_: Any,
) -> Run:
    from msgm.generator.compare import compare as compare_rows
    from msgm.sweep import with_start, with_sweeps

    config, rows = load_config(named.tree), None if only is None else list(only)
    config = with_start(config, start) if start else config
    if sweep:
        config, rows = with_sweeps(config, list(sweep), rows)
    return compare_rows(config, out, rows, source, device, fresh_chain, cache, jobs or 1, cluster)


def _compare_classifiers(
    named: Named,
    out: Folder | None,
    only: Sequence[str] | None,
    source: Folder | None,
    device: str,
    requests: Sequence[str] | None,
    trained_on: Folder | None,
    **_: Any,
) -> Run:
    from msgm.classifier.compare import compare as compare_rows
    from msgm.classifier.config import load_config as load

    return compare_rows(load(named.tree), out, only, requests, device, source, trained_on)


def _compare_recommenders(
    named: Named,
    out: Folder | None,
    only: Sequence[str] | None,
    models: Sequence[str] | None,
    requests: Sequence[str] | None,
    **_: Any,
) -> Run:
    from msgm.recommender.compare import compare as compare_rows
    from msgm.recommender.config import load_config as load

    return compare_rows(load(named.tree), out, only, models, requests)


def _compare_attributes(
    named: Named, out: Folder | None, only: Sequence[str] | None, models: Sequence[str] | None, **_: Any
) -> Run:
    from msgm.recommender.attribute_compare import compare_erasures
    from msgm.recommender.attribute_config import AttributeConfig
    from msgm.recommender.config import load_experiment

    return compare_erasures(load_experiment(AttributeConfig, named.tree), out, only, models)


TRAIN: dict[str, Callable[..., Run]] = {
    "generator": _train_generator,
    "classifier": _train_classifier,
    "recommender": _fit_recommender,
    "attributes": _refuse_training,
}
UNLEARN: dict[str, Callable[..., Run]] = {"generator": _unlearn_generator, "classifier": _unlearn_classifier}
COMPARE: dict[str, Callable[..., Run]] = {
    "generator": _compare_generators,
    "classifier": _compare_classifiers,
    "recommender": _compare_recommenders,
    "attributes": _compare_attributes,
}
