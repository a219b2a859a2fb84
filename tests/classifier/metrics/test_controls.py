"""Controls on digits: the original is flagged as not forgotten, and a retrained model beyond the band's is not."""

from dataclasses import replace

import pytest

from msgm.classifier.metrics import METRICS, Case
from msgm.study.band import band_of
from msgm.study.measuring import measure, measure_retrains
from tests.classifier.metrics.worlds import digits_world

NAMES = ["accuracy", "forgetting-rate", "membership", "rmia", "distances", "tug-of-war"]


def placed(label):
    """Bands of six retrained models, and the numbers of the original, of a seventh and of random weights."""
    world = digits_world(retrains=7, label=label)
    *references, held_out = [world.outputs(model) for model in world.retrains]
    original, metrics = world.outputs(world.original), [METRICS.build({"name": name}) for name in NAMES]
    case = Case(original, original, references, world.split.scope)
    band = measure_retrains(case, metrics)
    subjects = {"original": original, "held out": held_out, "untrained": world.outputs(world.untrained)}
    values = {key: measure(replace(case, target=one), metrics) for key, one in subjects.items()}
    return {name: band_of([tree[name] for tree in band]) for name in band[0]}, values


@pytest.fixture(scope="module")
def instances():
    return placed(None)


def test_the_original_lies_outside_the_band_and_a_retrained_model_inside(instances):
    bands, values = instances
    for name in ("js_forget", "kl_forget", "activation_distance", "rmia_worse_share"):
        assert not bands[name].holds([values["original"][name]]), name
        assert bands[name].holds([values["held out"][name]]), name
    assert values["original"]["rmia_auc"] > bands["rmia_auc"].mean + bands["rmia_auc"].sd


def test_most_numbers_of_a_held_out_retrained_model_lie_in_the_band(instances):
    bands, values = instances
    known = [name for name, value in values["held out"].items() if value is not None and bands[name] is not None]
    inside = [bands[name].holds([values["held out"][name]]) for name in known]
    assert sum(inside) / len(inside) > 0.85


def test_an_untrained_network_forgets_everything_and_is_found_out_by_utility(instances):
    bands, values = instances
    assert values["untrained"]["fr_fixed"] > bands["fr_fixed"].limits()[1]
    assert values["untrained"]["tow"] < 0.2
    assert values["untrained"]["test_accuracy"] < bands["test_accuracy"].limits()[0]


def test_a_forgotten_class_is_plain():
    bands, values = placed(3)
    for name in ("forget_accuracy", "test_accuracy_forgotten", "fr_fixed", "js_forget", "tow", "mia_loss_efficacy"):
        assert not bands[name].holds([values["original"][name]]), name
    assert bands["forget_accuracy"].holds([values["held out"]["forget_accuracy"]])
    assert bands["js_forget"].holds([values["held out"]["js_forget"]])
