"""Metrics that need the models: what they find, and that they leave the models as they were."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from msgm.classifier.measuring import logits_of, outputs_of
from msgm.classifier.methods import METHODS
from msgm.classifier.metrics import METRICS
from msgm.classifier.metrics.probe import probe_auc
from msgm.classifier.metrics.weights import weight_distance
from msgm.classifier.metrics.zrf import ZRF
from msgm.classifier.training import fit_inputs
from msgm.errors import RunError
from msgm.seeding import derive_seed
from msgm.study.measuring import measure
from tests.classifier.metrics.worlds import digits_world, noise_world


@pytest.fixture(scope="module")
def noise():
    return noise_world(retrains=3)


@pytest.fixture(scope="module")
def class_world():
    return digits_world(retrains=1, label=3)


def state(model):
    flags = [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]
    return [value.clone() for value in model.state_dict().values()], flags


def same(left, right):
    equal = all(torch.equal(a, b) for a, b in zip(left[0], right[0], strict=True))
    return equal and left[1:] == right[1:]


@pytest.mark.parametrize("training", [False, True])
def test_metrics_leave_models_modes_and_random_numbers_as_they_were(noise, training):
    model, original = copy.deepcopy(noise.retrains[0]), noise.original
    model.train(training)
    model[-1].train(not training)
    case = noise.case(model, [noise.outputs(one) for one in noise.retrains[1:]])
    names = [name for name, entry in METRICS.entries.items() if not (entry.costly and entry.live)]
    cheap = [METRICS.build({"name": name}) for name in names]
    before, other = state(model), state(original)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    values = measure(case, cheap)
    assert same(state(model), before)
    assert same(state(original), other)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert all(value is None or np.isfinite(value) for value in values.values())
    assert values == measure(case, cheap)


def test_measuring_reads_every_part_and_refuses_what_is_not_finite(noise):
    found = outputs_of(noise.original, noise.split)
    for name, part in noise.split.parts().items():
        np.testing.assert_array_equal(found.stratum(name), part.labels.numpy())
        with torch.no_grad():
            wanted = noise.original(part.inputs(torch.arange(len(part))))
        np.testing.assert_array_equal(found.logits[name], wanted.double().numpy())
        np.testing.assert_array_equal(found.labels[name], part.labels.numpy())
    mixed = copy.deepcopy(noise.original).train()
    mixed[-1].eval()
    before = state(mixed)
    np.testing.assert_array_equal(logits_of(mixed, noise.split.test), found.logits["test"])
    outputs_of(mixed, noise.split)
    assert same(state(mixed), before)
    broken = copy.deepcopy(noise.original)
    with torch.no_grad():
        broken[-1].bias[0] = torch.inf
    with pytest.raises(RunError, match="logits on retain items are not all finite"):
        outputs_of(broken, noise.split)


def test_relearning_is_quick_where_nothing_was_forgotten(noise):
    relearning = METRICS.build({"name": "relearning", "cap": 60})
    original, retrained = (relearning.measure(noise.case(model, [])) for model in (noise.original, noise.retrains[0]))
    assert original["relearn_steps"] == 0
    assert 0 < retrained["relearn_steps"] <= 60
    assert original["relearn_steps_random"] == retrained["relearn_steps_random"] > 0


def test_a_hidden_class_comes_back_in_fewer_steps_than_one_that_was_never_learned(class_world):
    hidden = copy.deepcopy(class_world.original)
    with torch.no_grad():
        hidden[-1].weight[3] = 0
        hidden[-1].bias[3] = -5
    relearning = METRICS.build({"name": "relearning", "lr_share": 0.1})
    cases = [class_world.case(model, []) for model in (hidden, class_world.retrains[0])]
    assert not any(case.target.right("forget").any() for case in cases)
    found = [relearning.measure(case)["relearn_steps"] for case in cases]
    assert 0 < 1.5 * found[0] < found[1] < relearning.measure(cases[0])["relearn_steps_random"]


def test_the_probe_reads_what_is_there_and_nothing_else(noise, class_world):
    rng = np.random.default_rng(0)
    labels, weights = np.repeat([True, False], 60), np.ones(120)
    x = rng.normal(size=(120, 5))
    assert probe_auc(x + 3 * labels[:, None], labels, weights, 5, 0) > 0.99
    assert abs(probe_auc(x, labels, weights, 5, 0) - 0.5) < 0.2
    assert METRICS.build({"name": "probe"}).measure(noise.case(noise.original, []))["probe_class_auc"] is None
    found = METRICS.build({"name": "probe"}).measure(class_world.case(class_world.original, []))
    assert found["probe_class_auc"] > 0.97


def test_a_model_without_a_linear_head_has_no_probe(noise):
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x @ self.weight

    case = noise.case(noise.original, [])
    bare = replace(case, live=replace(case.live, model=Bare()))
    assert METRICS.build({"name": "probe"}).measure(bare)["probe_membership_auc"] is None


def test_weight_distance_is_relative_and_needs_equal_shapes(noise):
    model = copy.deepcopy(noise.original)
    assert weight_distance(model, noise.original) == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert weight_distance(model, noise.original) == pytest.approx(0.5)
    assert weight_distance(torch.nn.Linear(2, 2), noise.original) is None


def test_zrf_is_one_minus_the_true_divergence_from_untrained_networks(noise):
    case = noise.case(noise.original, [])
    found = ZRF(networks=1).measure(case)["zrf"]
    network = noise.settings.build(derive_seed(0, "zrf", 0))
    fit_inputs(network, noise.split.retain)
    untrained = outputs_of(network, noise.split)
    p, q = (np.exp(one.log_probabilities("forget")) for one in (case.target, untrained))
    assert found == pytest.approx(1 - np.mean(jensenshannon(p, q, axis=1) ** 2), rel=1e-6)
    assert ZRF().measure(noise.case(noise.untrained, []))["zrf"] > found


def test_u_lira_finds_members_of_a_model_that_forgot_nothing(tmp_path):
    world = noise_world(retrains=1, size=160)
    lira = METRICS.build({"name": "u-lira", "pairs": 3, "folder": str(tmp_path)})
    nothing = METHODS.build({"name": "do-nothing"})
    auc = lira.measure(world.case(world.original, [], nothing))["u_lira_auc"]
    assert auc > 0.85
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    files[0].unlink()
    stamps = [file.stat().st_mtime_ns for file in files[1:]]
    assert lira.measure(world.case(world.original, [], nothing))["u_lira_auc"] == pytest.approx(auc)
    assert sorted(tmp_path.iterdir()) == files
    assert [file.stat().st_mtime_ns for file in files[1:]] == stamps
    retrained = lira.measure(world.case(world.retrains[0], [], nothing))["u_lira_auc"]
    assert abs(retrained - 0.5) < 0.2
    assert set(lira.measure(world.case(world.original, [])).values()) == {None}


def test_every_probe_of_u_lira_is_in_and_out_of_as_many_shadows(noise):
    from msgm.classifier.metrics.u_lira import Probes

    case = noise.case(noise.original, [])
    probes = Probes.of(case, case.live)
    own, others = noise.split.forget.labels.numpy(), noise.split.nonmembers.labels.numpy()
    drawn = np.bincount(others[probes.held_out])
    assert drawn.tolist() == np.minimum(np.bincount(own), np.bincount(others)).tolist()
    np.testing.assert_allclose(probes.found.weights, (np.bincount(own) / drawn)[others[probes.held_out]])
    half = probes.half(0, 1)
    assert abs(half.sum() - (~half).sum()) <= 2
    assert not np.array_equal(half, probes.half(0, 2))
    split = probes.shadow_split(noise.split, half)
    own = set(split.forget.indices)
    assert not own & set(split.nonmembers.indices)
    taken = set(noise.split.forget.indices[probes.forget[half[: len(probes.forget)]]])
    assert taken <= own
    assert len(own) == half.sum()
    assert own <= set(noise.split.forget.indices) | set(noise.split.nonmembers.indices)
    assert np.array_equal(np.sort(np.concatenate([split.retain.indices, split.forget.indices])), split.train.indices)


def test_shadows_of_other_probes_are_other_models(noise, tmp_path):
    from msgm.classifier.metrics.u_lira import Probes

    lira = METRICS.build({"name": "u-lira", "pairs": 2, "folder": str(tmp_path)})
    case = noise.case(noise.original, [])
    probes, nothing = Probes.of(case, case.live), METHODS.build({"name": "do-nothing"})
    lira.shadows(case.live, nothing, probes)
    left = np.setdiff1d(np.arange(len(noise.split.nonmembers)), probes.held_out)
    others = replace(probes, held_out=np.sort(np.concatenate([probes.held_out[1:], left[:1]])))
    lira.shadows(case.live, nothing, others)
    assert len(list(tmp_path.iterdir())) == 8


def test_the_membership_probe_compares_within_strata():
    """Forget items of another class than most non-members: their class is no sign of membership."""
    world = digits_world(retrains=1)
    labels = world.split.forget.labels.numpy()
    split = replace(world.split, forget=world.split.forget.where(np.isin(labels, [3, 8])))
    case = replace(world, split=split).case(world.retrains[0], [])
    assert abs(METRICS.build({"name": "probe"}).measure(case)["probe_membership_auc"] - 0.5) < 0.25
    few = replace(split, nonmembers=split.nonmembers.where(split.nonmembers.labels.numpy() < 3))
    case = replace(world, split=few).case(world.retrains[0], [])
    assert METRICS.build({"name": "probe"}).measure(case)["probe_membership_auc"] is None


def test_forgetting_quality_of_a_method_needs_its_models(noise):
    quality = METRICS.build({"name": "forgetting-quality"})
    assert set(quality.measure(noise.case(noise.original, [])).values()) == {None}


def test_forgetting_quality_trains_unlearns_and_keeps_its_models(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("msgm.classifier.metrics.quality.LEAST_MODELS", 3)
    quality = METRICS.entries["forgetting-quality"](models=3, folder=str(tmp_path))
    found = quality.measure(noise.case(noise.original, [], METHODS.build({"name": "do-nothing"})))
    assert found["forgetting_quality_models"] == 3
    assert 0 <= found["forgetting_quality"] <= found["forgetting_quality_upper"] <= 1
    assert len(list(tmp_path.iterdir())) == 6
    unlearned, fresh = quality.clouds(noise.case(noise.original, [], METHODS.build({"name": "do-nothing"})))
    assert min(one.right("forget").mean() for one in unlearned) > max(one.right("forget").mean() for one in fresh)


def test_live_metrics_have_no_value_where_only_logits_are(noise):
    case = replace(noise.case(noise.original, []), live=None)
    values = measure(case, [METRICS.build({"name": name}) for name in METRICS.entries])
    assert values["zrf"] is None
    assert "forget_accuracy" in values
