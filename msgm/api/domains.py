"""What ``msgm.train`` and ``msgm.unlearn`` do for generators, classifiers and recommenders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def refuse_training(named: Named, out: Folder | None, **_: Any) -> Run:
    """Refuse to train a model of a domain that only compares: users' attributes, or a plugin's."""
    if named.domain == "attributes":
        raise UserError("train: a config of users' attributes is for compare; give a recommender's.")
    raise UserError(f"train: a config of the domain {named.domain} is for compare.")


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


TRAIN: dict[str, Callable[..., Run]] = {
    "generator": _train_generator,
    "classifier": _train_classifier,
    "recommender": _fit_recommender,
}
UNLEARN: dict[str, Callable[..., Run]] = {"generator": _unlearn_generator, "classifier": _unlearn_classifier}
