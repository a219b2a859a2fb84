"""Errors on settings name the place where they stand in the config, whatever part they are of."""

from importlib import import_module
from pkgutil import walk_packages

import pytest

import msgm
from msgm.classifier.config import load_config as classifier_config
from msgm.config import load_config
from msgm.errors import UserError, placed
from msgm.evaluation.extractors import check_extractor
from msgm.evaluation.measuring import metrics_of
from msgm.recommender.config import load_config as recommender_config
from msgm.registry import Registry
from tests.evaluation.benches import digits

WRONG = (-1, -1.5, float("inf"), "no such choice", [-1], [])
"""Values that a setting may refuse; those that it takes tell nothing."""


def registries():
    names = [found.name for found in walk_packages(msgm.__path__, "msgm.") if found.name != "msgm.__main__"]
    values = [value for name in names for value in vars(import_module(name)).values()]
    return {id(value): value for value in values if isinstance(value, Registry)}.values()


def parts():
    """Return every registered part of msgm that has defaults, with the place of its settings."""
    for registry in registries():
        by_metric = registry.section in ("metrics", "evaluation.options")
        place = registry.section.replace("metrics", "options")
        for name, cls in registry.entries.items():
            if cls.__module__.startswith("msgm."):
                yield pytest.param(registry, name, f"{place}.{name}" if by_metric else place, id=f"{place}-{name}")


@pytest.mark.parametrize(("registry", "name", "place"), list(parts()))
def test_a_part_says_where_its_settings_stand(registry, name, place):
    refusals = []
    for setting in getattr(registry.entries[name], "__dataclass_fields__", {}):
        for wrong in WRONG:
            try:
                registry.make(name, {setting: wrong}, place)
            except UserError as error:
                refusals.append(str(error))
    assert all(text.startswith((f"{place}.", f"{place}:")) for text in refusals), refusals


@pytest.mark.parametrize(
    ("load", "override", "place"),
    [
        (load_config, "evaluation.options.c2st.fold=3", "evaluation.options.c2st.fold: unknown.*Did you mean 'folds'"),
        (load_config, "evaluation.options.c2st.name=fid", "evaluation.options.c2st.name: unknown setting"),
        (load_config, "evaluation.options.c2st.folds=many", "evaluation.options.c2st.folds: expected a whole number"),
        (load_config, "objective={name: obtuse, mask: {kep: 0.5}}", "objective.mask.kep: .*Did you mean 'keep'"),
        (load_config, "objective={name: obtuse, anchor: {wight: 1}}", "objective.anchor.wight: .*'weight'"),
        (
            load_config,
            "objective={name: obtuse, combine: {name: cap, rati: 1}}",
            "objective.combine.rati: .*Did you mean 'ratio'",
        ),
        (
            load_config,
            "objective={name: obtuse, matching: {name: finite-difference, stp: 1}}",
            "objective.matching.stp: .*Did you mean 'step'",
        ),
        (load_config, "objective={name: obtuse, matching: slicd}", "objective.matching.name: unknown matching 'slicd'"),
        (load_config, "objective={name: obtuse, combine: pcgrd}", "objective.combine.name: unknown combine 'pcgrd'"),
        (load_config, "rows.redirect.objective.mask={kep: 1}", "rows.redirect: objective.mask.kep"),
        (load_config, "rows.mine={start: edit, edit: {name: prune, keep: 1}}", "rows.mine: edit.keep"),
        (load_config, "rows.mine={start: guide, guidance: {name: spell, radus: 1}}", "rows.mine: guidance.radus"),
        (load_config, "finetune.lr=0", "finetune.lr must be a positive number"),
        (load_config, "finetune.adapter={rank: 0}", "finetune.adapter.rank must be at least 1"),
        (load_config, "training.adapter={rang: 1}", "training.adapter.rang: .*Did you mean 'rank'"),
        (load_config, "evaluation.likelihood.step=3", "evaluation.likelihood.step: .*Did you mean 'steps'"),
        (load_config, "sampling.options={snrr: 1}", "sampling.options.snrr"),
        (
            classifier_config,
            "options.probe.fold=3",
            "options.probe.fold: unknown setting; known: .*Did you mean 'folds'",
        ),
        (classifier_config, "options.probe.folds=1", "options.probe.folds must be at least 2"),
        (classifier_config, "methods.scrub.alfa=1", "methods.scrub.alfa: unknown setting"),
        (recommender_config, "options.ranking.kk=3", "options.ranking.kk: unknown setting; known: k"),
        (recommender_config, "options.ranking.k=0", "options.ranking.k must be at least 1"),
        (recommender_config, "models.sharded.base={name: eas}", "models.sharded.base.name: .*Did you mean 'ease'"),
        (
            recommender_config,
            "models.sharded.base={name: ease, regularisaton: 1}",
            "models.sharded.base.regularisaton: .*Did you mean 'regularisation'",
        ),
        (recommender_config, "models.sequential.base={name: als, factor: 1}", "models.sequential.base.factor"),
        (recommender_config, "models.sharded.combiner=men", "models.sharded.combiner: .*Did you mean 'mean'"),
    ],
)
def test_a_misspelt_setting_is_named_with_its_whole_place_and_the_nearest_one(load, override, place):
    with pytest.raises(UserError, match=rf"^{place}"):
        config = load(None, [override])
        metrics_of(config)  # options of a metric are read when it is built


def test_settings_of_a_feature_extractor_are_those_of_the_metric_that_has_it():
    dataset, _ = digits()
    for place in ("evaluation.options.fid.extractor", "evaluation.options.inpainting.clip"):
        with pytest.raises(UserError, match=rf"^{place}\.modl: unknown setting; known: .*Did you mean 'model'"):
            check_extractor({"name": "clip", "modl": "ViT-B/32"}, place, dataset)
        with pytest.raises(UserError, match=rf"^{place}\.weights: there is no file nowhere"):
            check_extractor({"name": "clip", "weights": "nowhere.pt"}, place, dataset)


def test_an_error_of_another_section_stays_as_it_is():
    with pytest.raises(UserError, match=r"^training: x") as kept, placed("train", "finetune"):
        raise UserError("training: x")
    assert kept.value.__cause__ is None
    with pytest.raises(UserError, match=r"^finetune: x"), placed("training", "finetune"):
        raise UserError("training: x")
