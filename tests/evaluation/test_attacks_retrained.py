"""Comparisons with retrained models: which ones, and tests of two samples with known answers."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from msgm.errors import UserError
from msgm.evaluation.attacks.c2st import C2ST, accuracy
from msgm.evaluation.attacks.retrained import others_of, summary
from msgm.evaluation.attacks.sample_distance import SampleDistance
from msgm.evaluation.bench import Retrained, Subject
from msgm.runs import Run
from tests.evaluation.attacks import bench_of, fresh, subject_of

SAMPLES = {C2ST: "C2ST %", SampleDistance: "KID to retrained"}


@cache
def drawn(n, shift=0.0, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor([shift, 0.0, 0.0])


@pytest.fixture
def bench(tmp_path):
    """A bench with three retrained models, which are networks with random weights."""
    bare = bench_of("retrains=3", "evaluation.samples=12", "sampling.steps=2")
    found = []
    for number in (1, 2, 3):
        at = bare.at(number)
        run = Run(tmp_path / f"retrained-{number}")
        fresh(at).save(run.model)
        found.append(Retrained(f"retrained-{number}", run.model, number))
    return replace(bare, retrained=tuple(found), memory={})


def told(x, y, folds=5):
    return accuracy(x, y, folds, torch.Generator().manual_seed(0))


def test_one_distribution_is_told_from_itself_by_chance():
    found = told(drawn(400), drawn(400, seed=1))
    assert found["low"] < 0.5 < found["high"]
    assert found["n"] == 800


def test_a_set_is_told_from_itself_in_exactly_half_of_all_cases():
    assert told(drawn(60), drawn(60))["value"] == 0.5


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_gaussians_are_told_apart_as_often_as_their_distance_allows(shift):
    found, best = told(drawn(2000), drawn(2000, shift, seed=1)), (1 + math.erf(shift / 2 / math.sqrt(2))) / 2
    assert found["value"] == pytest.approx(best, abs=0.02)


def test_no_sample_is_asked_about_that_was_learnt():
    """More features than samples: what was learnt would be known by heart."""
    x, y = (torch.randn(40, 200, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert 0.3 < told(x, y)["value"] < 0.7


@pytest.mark.parametrize(("metric", "heading"), SAMPLES.items())
def test_a_model_is_compared_with_each_retrained_model_but_itself(bench, metric, heading):
    own = subject_of(bench, run=Run(bench.retrained[1].model.parent))
    for subject, names in ((subject_of(bench), [1, 2, 3]), (own, [1, 3])):
        found = metric().measure(subject)[metric.key]
        assert list(found["compared"][heading]["by_model"]) == [f"retrained-{number}" for number in names]
        assert list(metric.followed(found)) == [heading]


def test_equal_samples_are_not_told_apart(bench):
    subject = subject_of(bench)
    for other in others_of(subject):
        other.__dict__["samples"] = subject.samples
    assert C2ST.followed(C2ST(folds=3).measure(subject)["c2st"]) == {"C2ST %": 50}
    # Unbiased, the distance of a set and itself is below 0, by the items that the kernel pairs with themselves.
    assert SampleDistance().measure(subject)["sample_distance"]["compared"]["KID to retrained"]["greatest"] < 0


def test_samples_of_one_distribution_have_distance_zero_and_shifted_ones_do_not(bench):
    subject, (other, *_) = subject_of(bench), others_of(subject_of(bench))
    pixels = SampleDistance(extractor={"name": "pixels"})
    noise = torch.randn(120, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4
    for shift, lowest, highest in ((0.0, -0.01, 0.01), (0.5, 0.2, 2.0)):
        plain, moved = (Subject("one", model, bench) for model in (subject.model, other.model))
        plain.__dict__["samples"], moved.__dict__["samples"] = noise[:60], noise[60:] + shift
        found = pixels.compared(plain, moved)
        assert lowest < found["KID to retrained"]["value"] < highest
        assert -0.01 < found["KID within one retrained model"]["value"] < 0.01


def test_samples_of_a_retrained_model_are_those_of_its_own_seed(bench):
    subject = subject_of(bench)
    first, second, _ = others_of(subject)
    assert [other.bench.config.seed for other in (first, second)] == [1, 2]
    assert others_of(subject_of(bench.at(5)))[0] is first
    assert not torch.equal(first.samples, second.samples)


def test_samples_that_diverged_do_not_count_and_too_few_give_no_value(bench):
    subject = subject_of(bench)
    subject.samples[:6] = torch.nan
    found = C2ST(folds=3).measure(subject)["c2st"]["compared"]["C2ST %"]
    assert {pair["n"] for pair in found["by_model"].values()} == {12}
    subject = subject_of(bench)
    subject.samples[:8] = torch.nan
    row = C2ST(folds=3).measure(subject)
    assert C2ST.followed(row["c2st"]) == {"C2ST %": None}
    assert C2ST.columns[0].cell(row, {}) == "no value"


def test_a_mean_over_models_needs_all_of_them():
    values = [{"value": 1.0}, {"value": 3.0}]
    assert summary(dict(enumerate(values))) | {"by_model": 0} == {"value": 2, "least": 1, "greatest": 3, "by_model": 0}
    assert summary(dict(enumerate([*values, {"value": None}])))["value"] is None


@pytest.mark.parametrize("metric", SAMPLES)
def test_without_retrained_models_it_is_not_tested(bench, metric, capsys):
    found = metric().measure(subject_of(replace(bench, retrained=())))[metric.key]
    assert found["not_tested"].startswith("0 other retrained models stand beside it")
    assert metric.columns[0].cell({metric.key: found}, {}) == "not tested"
    with pytest.raises(UserError, match=f"retrains must be at least 2 for the metric {metric.name}.*got 1"):
        metric().check(bench_of().config, bench.dataset, bench.split)
    metric().check(bench.config, bench.dataset, bench.split)


@pytest.mark.parametrize("metric", SAMPLES)
def test_an_unknown_extractor_is_refused(bench, metric):
    with pytest.raises(UserError, match=f"evaluation.options.{metric.name}.extractor.*'juge'.*judge"):
        metric(extractor={"name": "juge"}).check(bench.config, bench.dataset, bench.split)


def test_columns_show_mean_and_range(bench):
    row = {"c2st": {"compared": {"C2ST %": {"value": 52.0, "least": 50.04, "greatest": 54.06}}}}
    assert C2ST.columns[0].cell(row, {}) == "52.0 (50.0 to 54.1)"
