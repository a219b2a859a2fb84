"""Guided recall, noise search and latent inversion, of models that hold the forget set and of such as do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.diffusion import PROCESSES, Condition, SamplingSettings, Sharded
from msgm.diffusion.samplers import Noise, solve
from msgm.errors import UserError
from msgm.evaluation.attacks import posterior
from msgm.evaluation.attacks.guided_recall import GuidedRecall, Recall
from msgm.evaluation.attacks.latent_inversion import LatentInversion, encoded, encoding_density
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.noise_search import NoiseSearch, _turned, walked
from msgm.evaluation.metrics import METRICS
from msgm.objectives.kernel import KernelDensity
from tests.diffusion.test_guidance import mixture, points
from tests.evaluation.attacks import Empirical, bench_of, fresh, same, subject_of, tensors
from tests.objectives.test_targets import exact_logit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench():
    return bench_of("sampling.steps=12", "sampling.sampler=dpm++2m-sde")


def holding(bench, forget, retain=80, width=0.25):
    """The exact model of so many training items of each part."""
    train = bench.split.train
    indices = np.concatenate([train.forget[:forget], train.retain[:retain]])
    return Empirical(PROCESSES.build({"name": "vp"}), clean_items(bench.dataset, indices, CPU), width)


def values(found, what="unlearning_ratio"):
    return [point[what]["value"] for point in found["curve"]]


def test_recall_by_1_of_an_exact_model_is_the_score_of_the_forget_set():
    exact = mixture()
    x, t = points(exact.process)
    recalled = Recall(1.0, posterior.Posterior(exact_logit(exact))).wrap(exact).eps(x, t)
    torch.testing.assert_close(recalled, exact.eps(x, t, Condition(torch.full((9,), 2))), rtol=1e-6, atol=1e-6)


def test_recall_finds_what_the_model_holds_and_never_what_it_does_not(bench):
    metric = GuidedRecall(scales=[4], samples=30, steps=300)
    base = metric.measure(subject_of(bench, holding(bench, 40)))["guided_recall"]
    assert [point["scale"] for point in base["curve"]] == [0, 4]
    assert 0.1 < values(base)[0] < 0.6
    assert values(base)[1] > 0.8
    gone = metric.measure(subject_of(bench, holding(bench, 0)))["guided_recall"]
    assert max(values(gone)) <= 0.1
    rows = [{"name": name, "guided_recall": found} for name, found in (("do-nothing", base), ("a", gone), ("b", base))]
    column = GuidedRecall.columns[0]
    assert [column.cell(row, {"rows": rows}) for row in rows] == ["0", "> 4", "0"]
    assert column.cell(rows[1], {"rows": rows[1:]}) == "no base row"
    assert GuidedRecall.followed(base) == {"UR % by guided recall": 100 * values(base)[1]}


def test_the_classifier_of_real_items_is_trained_once_and_kept(bench, tmp_path, monkeypatch):
    kept = replace(bench, folder=tmp_path, memory={})
    first = posterior.real_posterior(kept, 60, CPU)
    assert 0 < first.loss < 1
    monkeypatch.setattr(posterior, "trained_posterior", None)
    for again in (kept.at(3), replace(bench, folder=tmp_path, memory={})):
        found = posterior.real_posterior(again, 60, CPU)
        assert same(found.state(), first.state())
        assert found.loss == first.loss
    share = len(bench.split.train.forget) / len(bench.split.train.all)
    assert float(first.logit.shift.sigmoid()) == pytest.approx(share)


def test_a_search_finds_noise_for_what_the_model_holds_and_never_for_what_it_does_not(bench):
    # In 64 dimensions a wide kernel alone has room for a turn that changes what an item shows.
    metric = NoiseSearch(items=20, ascents=8, turn=0.2, steps=8, training=300)
    base = metric.measure(subject_of(bench, holding(bench, 20, width=0.08)))["noise_search"]
    before, after = (base[when]["unlearning_ratio"]["value"] for when in ("before", "after"))
    assert before < 0.5
    assert after >= before + 0.3
    gone = metric.measure(subject_of(bench, holding(bench, 0, width=0.08)))["noise_search"]
    assert gone["after"]["unlearning_ratio"]["value"] <= 0.1


def test_a_turn_keeps_the_length_of_the_noise_and_goes_uphill():
    z, slope = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    length = z.flatten(1).norm(dim=1)
    turned = _turned(z, slope, length, 0.3)
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), length)
    cosine = (turned * z).flatten(1).sum(1) / length**2
    torch.testing.assert_close(cosine, torch.full((5,), math.cos(0.3)))
    assert ((turned - z) * slope).flatten(1).sum(1).min() > 0
    torch.testing.assert_close(_turned(z, torch.zeros_like(z), length, 0.3), z)


def test_the_network_stays_as_it_was(bench):
    model = fresh(bench)
    model.network.train()
    before = tensors(model)
    NoiseSearch(items=2, ascents=1, steps=2, training=2).measure(subject_of(bench, model))
    assert same(tensors(model), before)
    assert model.network.training
    assert all(p.grad is None for p in model.network.parameters())


def test_latents_of_one_gaussian_are_the_item_widened():
    density = KernelDensity(torch.zeros(1, 2, dtype=torch.float64), 0.5)
    item = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    expected = item * math.sqrt((0.25 + 9) / (0.25 + 0.02**2))
    torch.testing.assert_close(encoded(density, item, 3.0), expected, rtol=2e-3, atol=1e-4)


def test_latents_are_decoded_by_a_model_that_holds_the_items_alone(bench):
    width = encoding_density(bench).bandwidth
    metric = LatentInversion(levels=[1.0, 5.0], items=10)
    everything = holding(bench, None, 300, width)
    found = metric.measure(subject_of(bench, everything))["latent_inversion"]["levels"]
    without = holding(bench, 0, 300, width)
    gone = metric.measure(subject_of(bench, without))["latent_inversion"]["levels"]
    for held, lost in zip(found, gone, strict=True):
        assert held["forget"]["distance"] < 0.15 < 0.25 < lost["forget"]["distance"]
        assert held["forget"]["forgotten"]["value"] >= 0.8
        assert lost["forget"]["forgotten"]["value"] <= 0.2
    assert gone[0]["retain"]["distance"] < 0.15


def test_latents_are_decoded_by_the_mean_of_the_models_of_shards(bench):
    """DDIM does not tell which of them is responsible; of equal ones the mean is the model itself."""
    metric, one = LatentInversion(levels=[1.0], items=3), fresh(bench)
    found = [metric.measure(subject_of(bench, model)) for model in (one, Sharded.of([one, one], [1, 2], "posterior"))]
    distances = [tree["latent_inversion"]["levels"][0]["forget"]["distance"] for tree in found]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_a_walk_is_the_library_s_ddim(bench):
    model = fresh(bench)
    z = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    model.network.eval()
    settings, noise = SamplingSettings("ddim", 5), Noise(0, range(2), model.shape, model.device)
    top = model.process.top
    scale = model.process.noise(torch.tensor([top]))
    expected = solve(model, scale * z, top, settings, noise)
    torch.testing.assert_close(walked(model, z, 5, None), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "guided-recall", "scales": []},
        {"name": "guided-recall", "scales": [0]},
        {"name": "guided-recall", "scales": [-1, 2]},
        {"name": "noise-search", "turn": 0.0},
        {"name": "latent-inversion", "items": 0},
    ],
)
def test_options_out_of_range_are_refused(options):
    name, option = options["name"], next(key for key in options if key != "name")
    with pytest.raises(UserError, match=rf"^evaluation.options.{name}.{option}"):
        METRICS.build(options)
