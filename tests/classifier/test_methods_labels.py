"""Ascent, random labels, SalUn's mask and the sparsity penalty, against what their formulas say."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from msgm.classifier.methods import METHODS
from msgm.classifier.methods.l1_sparse import l1_norm
from msgm.classifier.methods.salun import salient
from msgm.classifier.training import TrainingSettings, logits
from tests.classifier.gradient_world import run, same, settings_of, split_of, state, world

PLAIN = TrainingSettings(lr=0.05, momentum=0, weight_decay=0, batch_size=1000)


@pytest.fixture(scope="module")
def small():
    return world()


def forget_loss(model, split):
    return float(F.cross_entropy(logits(model, split.forget), split.forget.labels))


# ---- ascent --------------------------------------------------------------------------------------------------------


def evaluated(model):
    """A copy whose dropout is off even in training."""
    found = copy.deepcopy(model)
    for module in found.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return found


def test_one_step_of_neggrad_is_a_step_up_the_forget_items_loss(small):
    model, split = evaluated(small[0]), small[1]
    expected = copy.deepcopy(model).eval()
    x, y = next(split.forget.batches(1000))
    F.cross_entropy(expected(x), y).backward()
    with torch.no_grad():
        for p in expected.parameters():
            p += 0.05 * p.grad
    found = run("neggrad", model, split, settings_of(PLAIN), epochs=1, lr=0.05).model
    for p, q in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_one_step_of_neggrad_plus_weighs_both_losses(small):
    model, split = evaluated(small[0]), small[1]
    expected = copy.deepcopy(model).eval()
    (x, y), (u, v) = next(split.retain.batches(1000)), next(split.forget.batches(1000))
    (0.7 * F.cross_entropy(expected(x), y) - 0.3 * F.cross_entropy(expected(u), v)).backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= 0.05 * p.grad
    found = run("neggrad-plus", model, split, settings_of(PLAIN), epochs=1, lr=0.05, alpha=0.7).model
    for p, q in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_neggrad_is_bounded(small):
    model, split = small
    free = run("neggrad", model, split, epochs=40, lr=0.1, ceiling=1e9)
    held = run("neggrad", model, split, epochs=40, lr=0.1)
    longer = run("neggrad", model, split, epochs=80, lr=0.1)
    assert forget_loss(free.model, split) > 100
    assert math.log(4) / 2 < forget_loss(held.model, split) < 20
    assert forget_loss(longer.model, split) < 20


def test_neggrad_takes_no_step_from_the_ceiling_on(small):
    model, split = small
    found = run("neggrad", model, split, ceiling=1e-9)
    assert same(state(model), state(found.model))


def test_neggrad_plus_does_not_push_forget_items_beyond_the_ceiling(small):
    model, split = small
    free = run("neggrad-plus", model, split, alpha=0.5, lr=0.01, ceiling=1e9)
    held = run("neggrad-plus", model, split, alpha=0.5, lr=0.01)
    assert forget_loss(free.model, split) > 3 * forget_loss(held.model, split)


# ---- random labels -------------------------------------------------------------------------------------------------


def random_label(**values):
    return METHODS.build({"name": "random-label", **values})


def test_the_true_label_and_forgotten_classes_are_excluded(small):
    _, split = small
    wide = split_of(split.retain.dataset, split.retain.dataset.labels >= 2)
    labels = torch.cat([random_label().relabelled(wide, 1, draw).labels for draw in range(20)])
    assert set(labels.tolist()) == {0, 1}
    by_item = split_of(split.retain.dataset, torch.arange(160).numpy() % 2 == 0)
    for draw in range(20):
        labels = random_label().relabelled(by_item, 1, draw).labels
        assert (labels != by_item.forget.labels).all()
    assert set(labels.tolist()) == {0, 1, 2, 3}


def test_the_true_label_may_be_drawn_when_asked(small):
    _, split = small
    labels = torch.cat([random_label(exclude_true=False).relabelled(split, 1, draw).labels for draw in range(40)])
    shares = labels.bincount(minlength=4) / len(labels)
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.06, rtol=0)


def by_item(batches, split):
    """Return the label of every forget item in the order of its visits, one list an item."""
    keys = {tuple(x.tolist()): n for n, x in enumerate(split.forget.inputs(torch.arange(len(split.forget))))}
    found = [[] for _ in keys]
    for x, y in batches:
        for item, label in zip(x, y, strict=True):
            if tuple(item.tolist()) in keys:
                found[keys[tuple(item.tolist())]].append(int(label))
    return found


@pytest.mark.parametrize("order", ["sequential", "mixed"])
def test_fixed_labels_stay_and_fresh_ones_change(small, order):
    _, split = small
    fixed = by_item(random_label(label_policy="fixed", order=order, epochs=6).batches(split, settings_of()), split)
    fresh = by_item(random_label(label_policy="fresh", order=order, epochs=6).batches(split, settings_of()), split)
    assert all(len(labels) == 6 and len(set(labels)) == 1 for labels in fixed)
    assert all(len(labels) == 6 for labels in fresh)
    assert sum(len(set(labels)) > 1 for labels in fresh) > len(fresh) / 2


def test_the_order_is_forget_then_retain_or_mixed(small):
    _, split = small
    forget = {tuple(x.tolist()) for x in split.forget.inputs(torch.arange(len(split.forget)))}

    def kinds(order):
        batches = random_label(order=order, epochs=1).batches(split, settings_of())
        return [tuple(item.tolist()) in forget for x, _ in batches for item in x]

    apart = [True] * len(split.forget) + [False] * len(split.retain)
    assert kinds("sequential") == apart
    assert sorted(kinds("mixed")) == sorted(apart)
    assert kinds("mixed") != apart


# ---- SalUn ---------------------------------------------------------------------------------------------------------


def test_the_mask_takes_the_largest_gradients_of_all_layers_together(small):
    model, split = copy.deepcopy(small[0]), small[1]
    mask = salient(model, split.forget, 0.3, settings_of())
    x, y = next(split.forget.batches(1000))
    gradients = torch.autograd.grad(F.cross_entropy(model.eval()(x), y, reduction="sum"), list(model.parameters()))
    inside = torch.cat([g.abs()[m] for g, m in zip(gradients, mask, strict=True)])
    outside = torch.cat([g.abs()[~m] for g, m in zip(gradients, mask, strict=True)])
    assert len(inside) == round(0.3 * (len(inside) + len(outside)))
    assert inside.min() >= outside.max() - 1e-5 * inside.max()
    shares = [float(m.float().mean()) for m in mask]
    assert max(shares) - min(shares) > 0.2


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("order", ["sequential", "mixed"])
def test_masked_weights_and_buffers_are_bit_identical(small, optimiser, order):
    model, split = small
    training = TrainingSettings(optimiser=optimiser, lr=0.05, momentum=0.9, weight_decay=0.1, batch_size=16)
    found = run("salun", model, split, settings_of(training), density=0.4, order=order)
    before, after = state(model), state(found.model)
    mask = found.artefacts["_mask"]
    assert found.artefacts["masked_share"] == pytest.approx(0.6, abs=0.01)
    assert mask.keys() == {name for name, _ in model.named_parameters()}
    for name, m in mask.items():
        assert torch.equal(before[name][~m], after[name][~m])
    moved = torch.cat([(before[name] != after[name])[m] for name, m in mask.items()])
    assert moved.float().mean() > 0.95
    for name, _ in model.named_buffers():
        assert torch.equal(before[name], after[name]), name


def test_masking_gradients_alone_lets_weight_decay_and_buffers_through(small):
    model, split = small
    found = run("salun", model, split, mask_mode="legacy_grad", density=0.4)
    before, after = state(model), state(found.model)
    mask = found.artefacts["_mask"]
    assert any(not torch.equal(before[name][~m], after[name][~m]) for name, m in mask.items())
    assert not torch.equal(before["2.running_mean"], after["2.running_mean"])


def test_a_mask_of_everything_is_random_labels(small):
    model, split = small
    found = run("salun", model, split, density=1.0)
    assert found.artefacts["masked_share"] == 0
    assert same(state(found.model), state(run("random-label", model, split).model))


# ---- batch normalisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neggrad", "neggrad-plus", "random-label", "boundary-shrink", "boundary-expand"])
def test_forget_items_leave_no_trace_in_running_statistics(small, name):
    model, split = small
    after = state(run(name, model, split).model)
    assert all(torch.equal(value, after[key]) for key, value in model.named_buffers())


# ---- L1 ------------------------------------------------------------------------------------------------------------


def test_the_penalty_falls_to_zero_over_the_epochs():
    method = METHODS.build({"name": "l1-sparse", "epochs": 6, "alpha": 0.4, "free_epochs": 2})
    assert [method.penalty_at(t) for t in range(6)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0, 0])


def test_a_stronger_penalty_leaves_a_smaller_norm(small):
    model, split = small
    settings = settings_of(TrainingSettings(lr=0.05, weight_decay=0, batch_size=16))
    found = [run("l1-sparse", model, split, settings, alpha=alpha) for alpha in (0.0, 1e-3, 1e-2)]
    ratios = [f.artefacts["l1_norm_ratio"] for f in found]
    assert ratios[0] > ratios[1] > ratios[2]
    assert ratios[2] == pytest.approx(float((l1_norm(found[2].model) / l1_norm(model)).detach()), rel=1e-5)
