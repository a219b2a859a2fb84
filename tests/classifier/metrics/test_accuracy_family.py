"""Accuracies, tug-of-war, forgetting rate, calibration: against loops and known values."""

from dataclasses import replace

import numpy as np
import pytest

from msgm.classifier.metrics import METRICS, Case
from msgm.classifier.metrics.accuracy import per_class
from msgm.classifier.metrics.calibration import calibration_error
from msgm.classifier.metrics.forgetting_rate import forgetting_rate, oracles_of
from msgm.classifier.metrics.scores import losses
from msgm.classifier.outputs import Outputs, credit
from msgm.errors import UserError
from tests.classifier.metrics.worlds import SIZES, certain, posteriors


def measure(name, case):
    found = METRICS.build({"name": name}).measure(case)
    assert set(found) == set(METRICS.entries[name].numbers)
    return found


def counted(outputs, part, keep=lambda y: True):
    pairs = [(z.argmax() == y) for z, y in zip(outputs.logits[part], outputs.labels[part], strict=True) if keep(y)]
    return sum(pairs) / len(pairs)


def test_accuracies_are_counts():
    target = posteriors()
    found = measure("accuracy", Case(target, target))
    for part in ("retain", "forget", "test"):
        assert found[f"{part}_accuracy"] == pytest.approx(counted(target, part))
    assert per_class(target) == pytest.approx([counted(target, "test", lambda y, k=k: y == k) for k in range(5)])
    assert found["worst_class_accuracy"] == min(per_class(target))
    assert found["test_accuracy_forgotten"] is None


def test_utility_for_the_forgotten_kind_is_read_on_test_items_of_its_strata():
    made = certain(5.0)
    labels = dict(made.labels) | {"forget": np.array([1, 1, 1, 2])}
    logits = dict(made.logits) | {"test": made.logits["test"].copy(), "forget": made.logits["forget"][:4]}
    logits["test"][labels["test"] == 1] = [9.0, 0, 0, 0]
    outputs = Outputs(logits, labels)
    assert measure("accuracy", Case(outputs, made))["test_accuracy_of_kind"] == pytest.approx(1 / 4)
    assert measure("accuracy", Case(outputs, made, scope="class"))["test_accuracy_of_kind"] is None
    elsewhere = {part: y + 4 * (part == "test") for part, y in labels.items()}
    assert measure("accuracy", Case(replace(outputs, strata=elsewhere), made))["test_accuracy_of_kind"] is None


def test_a_class_request_has_the_test_items_of_the_forgotten_class_apart():
    made = certain(5.0, wrong=())
    labels = dict(made.labels) | {"retain": np.arange(60) % 3, "forget": np.full(20, 3)}
    logits = dict(made.logits)
    logits["test"] = logits["test"].copy()
    logits["test"][labels["test"] == 3] = [9.0, 0, 0, 0]
    found = measure("accuracy", Case(Outputs(logits, labels), made, scope="class"))
    assert found["test_accuracy_forgotten"] == 0
    assert found["test_accuracy_retained"] == 1
    assert found["worst_class_accuracy"] == 1
    assert found["test_accuracy"] == pytest.approx((labels["test"] != 3).mean())


def test_a_class_without_test_items_has_no_accuracy():
    made = certain(5.0)
    assert per_class(Outputs(made.logits, dict(made.labels) | {"test": np.zeros(50, dtype=np.int64)}))[1:] == [None] * 3


def test_tug_of_war_of_a_retrained_model_with_itself_is_one():
    target = posteriors()
    assert measure("tug-of-war", Case(target, target, [target]))["tow"] == 1
    assert measure("tug-of-war", Case(target, target))["tow"] is None


def test_tug_of_war_is_the_product_against_the_mean():
    target, others = posteriors(0), [posteriors(1), posteriors(2)]
    product = 1.0
    for part in ("forget", "retain", "test"):
        product *= 1 - abs(counted(target, part) - np.mean([counted(one, part) for one in others]))
    assert measure("tug-of-war", Case(target, target, others))["tow"] == pytest.approx(product)


def test_the_forgetting_rate_counts_items_that_turn_from_members_to_non_members():
    original, target = posteriors(0), posteriors(3)
    found = measure("forgetting-rate", Case(target, original))
    (threshold,), (own,) = oracles_of(original), oracles_of(target)
    before, after = (losses(one, "forget") <= threshold for one in (original, target))
    bt, bf, at, af = before.sum(), (~before).sum(), after.sum(), (~after).sum()
    assert bt + bf == at + af
    assert found["fr_fixed"] == pytest.approx((af - bf) / bt)
    assert found["fr_fixed"] == pytest.approx(1 - at / bt)
    assert found["oracle_tpr"] == pytest.approx(bt / len(before))
    assert found["fr_adaptive"] == pytest.approx(1 - (losses(target, "forget") <= own).sum() / bt)
    utility = np.prod([counted(target, part) / counted(original, part) for part in ("retain", "test")])
    assert found["fup"] == pytest.approx(found["fr_fixed"] * utility)


def test_non_members_of_a_forgotten_class_do_not_set_the_oracle():
    outputs = posteriors(3)
    labels = {part: np.minimum(y, 3) for part, y in outputs.labels.items()} | {"forget": np.full(20, 4)}
    seen = np.arange(40) >= 15
    mixed = dict(outputs.logits) | {
        "nonmembers": np.where(seen[:, None], outputs.logits["nonmembers"], [0, 0, 0, 0, 50])
    }
    alone = dict(outputs.logits) | {"nonmembers": outputs.logits["nonmembers"][seen]}
    kinds = labels | {"nonmembers": np.where(seen, labels["nonmembers"], 4)}
    rest = labels | {"nonmembers": labels["nonmembers"][seen]}
    assert oracles_of(Outputs(mixed, kinds)) == oracles_of(Outputs(alone, rest))
    assert oracles_of(Outputs(mixed, labels)) != oracles_of(Outputs(alone, rest))


def test_nothing_done_has_forgotten_nothing():
    original = posteriors(0)
    assert measure("forgetting-rate", Case(original, original))["fr_fixed"] == 0


def test_the_forgetting_rate_does_not_exist_where_no_item_was_a_member():
    assert forgetting_rate(0, 5) is None
    lost = certain(5.0, wrong=("forget", "nonmembers"))
    found = measure("forgetting-rate", Case(lost, lost))
    assert found["fr_fixed"] is None
    assert found["fup"] is None
    assert found["oracle_tpr"] == 0


def test_the_calibration_error_is_the_binned_one():
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.2, 1, 200), rng.uniform(size=200) < 0.6
    total = 0.0
    for k in range(10):
        inside = (confidence >= k / 10) & (confidence < (k + 1) / 10)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(confidence, right, 10) == pytest.approx(total)
    assert calibration_error(np.ones(4), np.array([True, True, False, False]), 10) == pytest.approx(0.5)
    assert calibration_error(np.zeros(0), np.zeros(0, dtype=bool), 10) is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "calibration", "bins": 0}, "options.calibration.bins must be at least 1, got 0."),
        ({"name": "rmia", "a": 1.5}, "options.rmia.a must lie in [0, 1], got 1.5."),
        ({"name": "rmia", "gamma": 0.5}, "options.rmia.gamma must be at least 1, got 0.5."),
        ({"name": "forgetting-quality", "models": 8}, "options.forgetting-quality.models must be at least 64, got 8."),
        ({"name": "relearning", "factor": 0}, "options.relearning.factor must be a positive number, got 0.0."),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(UserError) as caught:
        METRICS.build(settings)
    assert str(caught.value) == text


def test_every_number_has_one_metric_and_a_description():
    names = [name for metric in METRICS.entries.values() for name in metric.numbers]
    assert len(names) == len(set(names))
    assert all(number.text for metric in METRICS.entries.values() for number in metric.numbers.values())


@pytest.mark.parametrize("retrains", [[], [certain(30.0)] * 2])
@pytest.mark.parametrize("scope", ["instances", "class"])
def test_logits_of_one_class_and_of_empty_parts_give_no_nan(scope, retrains):
    made = certain(800.0)
    one_class = Outputs(made.logits, {part: np.zeros_like(y) for part, y in made.labels.items()})
    empty = certain(3.0, sizes=SIZES | {"forget": 0, "nonmembers": 0})
    for target, others in ((made, retrains), (one_class, retrains), (empty, [empty] * len(retrains))):
        for name, entry in METRICS.entries.items():
            if not entry.live:
                values = measure(name, Case(target, target, others, scope)).values()
                assert all(value is None or np.isfinite(value) for value in values), name


def undecided(classes=5, sizes=None):
    """Outputs of the same logit for every class."""
    sizes = {"retain": 60, "forget": 20, "nonmembers": 40, "test": 50} if sizes is None else sizes
    labels = {part: np.arange(n) % classes for part, n in sizes.items()}
    return Outputs({part: np.zeros((n, classes)) for part, n in sizes.items()}, labels)


def test_constant_logits_are_right_by_chance_in_every_class():
    outputs = undecided()
    assert measure("accuracy", Case(outputs, outputs))["test_accuracy"] == pytest.approx(1 / 5)
    assert per_class(outputs) == pytest.approx([1 / 5] * 5)
    assert measure("calibration", Case(outputs, outputs))["ece_test"] == pytest.approx(0)
    assert measure("tug-of-war", Case(outputs, outputs, [outputs]))["tow"] == 1


def test_classes_that_share_the_largest_logit_share_the_credit():
    logits = np.array([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [0.0, 1.0, 3.0]])
    assert credit(logits, np.array([1, 2, 2])).tolist() == [0.5, 0.0, 1.0]


def test_losses_that_are_all_alike_make_an_oracle_of_chance():
    outputs = undecided()
    found = measure("forgetting-rate", Case(outputs, outputs))
    assert (found["oracle_tpr"], found["oracle_fpr"]) == (0.5, 0.5)
    assert found["fr_fixed"] == 0
