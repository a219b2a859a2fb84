"""The rates as torchmetrics: closed forms, msgm's evaluators, and two processes."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torchmetrics import MetricCollection

import msgm
from msgm.classifier.metrics import Case
from msgm.classifier.metrics.forgetting_rate import ForgettingRate as Evaluator
from msgm.classifier.metrics.forgetting_rate import oracles_of
from msgm.classifier.metrics.scores import losses
from msgm.errors import UserError
from msgm.evaluation.attacks.separation import auc
from msgm.evaluation.metrics.unlearning_ratio import sample_numbers
from msgm.evaluation.rates import wilson
from msgm.evaluation.reality import to_items
from tests.classifier.metrics.worlds import posteriors
from tests.evaluation.benches import digits_bench
from tests.forks import launched

REAL = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
TRAINING, HELD_OUT = REAL[:300], REAL[300:]


@pytest.fixture(scope="module")
def bench():
    return digits_bench()


@pytest.fixture(scope="module")
def samples(bench):
    """Real digits, copies of training items, noise, and one that is not finite; in [-1, 1] as a model draws them."""
    raw = torch.cat([bench.dataset.take(bench.split.test.whole)[:60], bench.dataset.take(bench.split.train.whole)[:20]])
    drawn = raw.float() / (bench.dataset.levels - 1) * 2 - 1
    noise = 2 * torch.rand(30, *drawn.shape[1:], generator=torch.Generator().manual_seed(1)) - 1
    noise[0, 0, 0, 0] = math.nan
    return torch.cat([drawn, noise])


def test_rates_are_those_of_an_evaluation(bench, samples):
    levels = bench.dataset.levels
    items, finite = to_items(samples, levels), samples.isfinite().flatten(1).all(1)
    expected = sample_numbers(items, finite, bench)
    training, held_out = (bench.dataset.take(p.whole) for p in (bench.split.train, bench.split.validation))
    junk, copies = (made(training, held_out, levels) for made in (msgm.JunkRate, msgm.CopyRate))
    ratio = msgm.UnlearningRatio(bench.judge.forgotten)
    for part in samples.split(37):
        junk.update(part)
        copies.update(part)
        raw = to_items(part, levels)
        is_junk = junk.reality.junk(junk.reality.distances(raw), part.isfinite().flatten(1).all(1))
        ratio.update(bench.judge.outputs(raw)[1], is_junk)
    assert 0 < expected["junk_rate"] < 1
    assert 0 < expected["copy_rate"] < 1
    assert 0 < expected["unlearning_ratio"]["value"] < 1
    assert float(junk.compute()) == expected["junk_rate"]
    assert float(copies.compute()) == expected["copy_rate"]
    assert float(ratio.compute()) == expected["unlearning_ratio"]["value"]
    assert ratio.interval() == (expected["unlearning_ratio"]["low"], expected["unlearning_ratio"]["high"])
    assert list(junk.interval()) == expected["intervals"]["junk_rate"]


def test_tied_classes_share_a_sample_and_junk_names_none():
    ratio = msgm.UnlearningRatio(forget=[1, 2])
    ratio.update(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert float(ratio.compute()) == (0.5 + 1 + 1) / 4
    ratio.update(torch.tensor([[0.0, 1.0, 0.0]]), junk=torch.tensor([True]))
    assert float(ratio.compute()) == 2.5 / 5
    assert ratio.interval() == wilson(2.5, 5)


def test_held_out_items_are_junk_and_copies_one_time_in_a_hundred():
    for made in (msgm.JunkRate, msgm.CopyRate):
        metric = made(TRAINING, HELD_OUT)
        metric.update(HELD_OUT)
        assert float(metric.compute()) == 2 / 200
        metric.reset()
        metric.update(torch.cat([TRAINING[:5], TRAINING[:15] + 100]))
        assert float(metric.compute()) == (0.75 if made is msgm.JunkRate else 0.25)


def test_the_forgetting_rate_is_that_of_an_evaluation():
    given = Case(posteriors(1), posteriors(0), [], "instances")
    before, after = (torch.from_numpy(losses(o, "forget")) for o in (given.original, given.target))
    rate = msgm.ForgettingRate(oracles_of(given.original))
    for one, two in zip(before.split(7), after.split(7), strict=True):
        rate.update(one, two)
    assert float(rate.compute()) == Evaluator().measure(given)["fr_fixed"]


def test_the_forgetting_rate_by_hand():
    rate = msgm.ForgettingRate([0.5])
    rate.update(torch.tensor([0.1, 0.2, 0.3, 0.5, 0.9]), torch.tensor([0.1, 0.6, 0.7, 0.8, 0.1]))
    assert float(rate.compute()) == 1 - 2 / 4
    rate.reset()
    rate.update(torch.tensor([0.9]), torch.tensor([0.1]))
    assert math.isnan(rate.compute())


def test_a_calibrated_threshold_tells_members_from_others():
    rate = msgm.ForgettingRate.calibrated(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.8]))
    assert rate.thresholds.tolist() == pytest.approx([0.3])
    both = msgm.ForgettingRate.calibrated(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 4.0]))
    both.update(torch.tensor([0.5, 2.5]), torch.tensor([0.5, 9.0]))
    assert both.thresholds.tolist() == [3.0, 1.0]
    assert float(both.compute()) == (0.5 + 0) / 2


def test_the_area_is_the_share_of_pairs_ties_counting_half():
    draws = np.random.default_rng(0)
    members, others = draws.integers(0, 9, 40) / 9 + 0.1, draws.integers(0, 9, 60) / 9
    pairs = (members[:, None] > others).mean() + 0.5 * (members[:, None] == others).mean()
    area = msgm.MembershipAUC()
    scores = torch.from_numpy(np.concatenate([members, others]))
    flags = torch.arange(100) < 40
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for part in order.split(13):
        area.update(scores[part], flags[part])
    assert float(area.compute()) == pytest.approx(pairs, abs=1e-12)
    expected = auc(members, others)
    assert area.interval() == pytest.approx((expected["low"], expected["high"]))


def test_metrics_of_other_settings_are_not_taken_for_one_in_a_collection():
    both = MetricCollection({"3": msgm.UnlearningRatio([3]), "7": msgm.UnlearningRatio([7])})
    for outputs in (torch.eye(10)[[1, 1]], torch.eye(10)[[3, 1]]):
        both.update(outputs)
    assert {name: float(value) for name, value in both.compute().items()} == {"3": 0.25, "7": 0.0}
    junk = MetricCollection([msgm.JunkRate(TRAINING, HELD_OUT), msgm.CopyRate(TRAINING, HELD_OUT)])
    for part in (HELD_OUT[:1] * 0 + 0.4, TRAINING[:1]):
        junk.update(part)
    assert float(junk.compute()["CopyRate"]) > 0 == float(junk.compute()["JunkRate"])


@pytest.mark.parametrize(
    ("do", "sentence"),
    [
        (lambda: msgm.UnlearningRatio([]), "forget names no class"),
        (lambda: msgm.UnlearningRatio([3]).update(torch.zeros(2, 3)), r"shape \(B, C\), C above 3; got \(2, 3\)"),
        (lambda: msgm.UnlearningRatio([3]).update(torch.zeros(9)), r"got \(9,\)"),
        (lambda: msgm.UnlearningRatio([3]).interval(), "no interval before any sample"),
        (lambda: msgm.JunkRate(TRAINING, HELD_OUT[:0]), "JunkRate: expected training and held-out items, got none"),
        (lambda: msgm.CopyRate(TRAINING[:0], HELD_OUT), "CopyRate: expected training and held-out items, got none"),
        (lambda: msgm.ForgettingRate([]), "expected one or more losses, got none"),
        (lambda: msgm.ForgettingRate.calibrated(TRAINING[:0, 0], HELD_OUT[:, 0]), "losses of members and of others"),
        (lambda: msgm.ForgettingRate([1]).update(torch.zeros(2), torch.zeros(3)), r"got \(2,\) and \(3,\)"),
        (lambda: msgm.MembershipAUC().update(torch.zeros(2), torch.zeros(3)), r"got \(2,\) and \(3,\)"),
        (lambda: msgm.MembershipAUC().update(torch.tensor([math.nan]), torch.ones(1)), "a score is not finite"),
        (lambda: msgm.MembershipAUC().interval(), "no interval without members and others"),
    ],
)
def test_what_cannot_be_measured_is_refused(do, sentence):
    with pytest.raises(UserError, match=sentence):
        do()


def compare_with_one(rank: int, first: int) -> None:
    """Compare what two processes find, the first of which sees the ``first`` samples of 50, with what one finds."""
    dist.init_process_group("gloo", rank=rank, world_size=2)
    draws = torch.Generator().manual_seed(0)
    real, outputs = torch.randn(150, 2, generator=draws), torch.randn(50, 4, generator=draws)
    samples, scores = 3 * torch.randn(50, 2, generator=draws), torch.randn(50, generator=draws)
    before, member = torch.rand(50, generator=draws), torch.arange(50) < 20
    cases = [
        (msgm.UnlearningRatio, ([1],), (outputs,)),
        (msgm.JunkRate, (real[:100], real[100:]), (samples,)),
        (msgm.CopyRate, (real[:100], real[100:]), (samples,)),
        (msgm.ForgettingRate, ([0.3, 0.7],), (before, before + 0.2)),
        (msgm.MembershipAUC, (), (scores, member)),
    ]
    own = slice(0, first) if rank == 0 else slice(first, 50)
    for made, settings, given in cases:
        shared, alone = made(*settings), made(*settings, distributed_available_fn=lambda: False)
        if len(range(50)[own]):
            shared.update(*(one[own] for one in given))
        alone.update(*given)
        found = [(float(one.compute()), getattr(one, "interval", tuple)()) for one in (shared, alone)]
        assert found[0] == found[1], (made, found)
        assert abs(found[0][0]) > 0, made
    dist.destroy_process_group()


@pytest.mark.parametrize("first", [30, 50])
def test_two_processes_find_what_one_finds(first):
    """The second sees fewer samples, and no member; or nothing at all."""
    launched(lambda rank: compare_with_one(rank, first))
