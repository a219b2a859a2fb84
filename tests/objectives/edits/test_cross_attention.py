"""The ridge regression of closed forms: its optimum, what it leaves alone, and in which order prompts come."""

import copy

import pytest
import torch
from torch import nn

from msgm.errors import RunError
from msgm.objectives.edits.cross_attention import Ridge, drifts, gram_of, residuals, solved, width_of, write

WIDTH, LAM = 24, 0.5


def layers(dtype=torch.float64, bias=False):
    draws = torch.Generator().manual_seed(0)
    made = {f"{block}.attn2.to_{kind}": nn.Linear(WIDTH, 8 * block, bias=bias) for block in (1, 2) for kind in "kv"}
    for layer in made.values():
        layer.weight.data = torch.randn(layer.weight.shape, generator=draws, dtype=torch.float64).to(dtype)
    return made


def embeddings(count, seed):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ERASE, GUIDE, KEEP = embeddings(3, 1), embeddings(3, 2), embeddings(4, 3)


def edit(found, *added, lam=LAM, start=None):
    """Make an edit of (texts, targets, scale)."""
    ridge = Ridge(WIDTH, start)
    for part in added:
        ridge.add(*part)
    change = ridge.solution(lam)
    write(found, change)
    return change


def objective(weight, before, added, lam=LAM):
    total = lam * (weight - before).square().sum()
    for texts, targets, scale in added:
        total = total + scale * (texts @ weight.T - targets @ before.T).square().sum()
    return total


ADDED = ((ERASE, GUIDE, 1.3), (KEEP, KEEP, 0.7))


def test_the_gradient_of_the_ridge_objective_is_zero_at_the_solution():
    found = layers()
    before = copy.deepcopy(found)
    edit(found, *ADDED)
    for name, layer in found.items():
        weight, old = layer.weight.detach().requires_grad_(True), before[name].weight.detach()
        assert not torch.allclose(weight, old)
        (at_optimum,) = torch.autograd.grad(objective(weight, old, ADDED), weight)
        start = old.clone().requires_grad_(True)
        (at_start,) = torch.autograd.grad(objective(start, old, ADDED), start)
        assert at_optimum.norm() < 1e-10 * at_start.norm()


def test_the_solution_is_the_formula_of_the_source():
    found = layers()
    before = copy.deepcopy(found)
    edit(found, *ADDED)
    for name, layer in found.items():
        old = before[name].weight
        left, right = LAM * old, LAM * torch.eye(WIDTH, dtype=torch.float64)
        for texts, targets, scale in ADDED:
            left = left + scale * old @ targets.T @ texts
            right = right + scale * texts.T @ texts
        torch.testing.assert_close(layer.weight, left @ torch.linalg.inv(right), rtol=1e-11, atol=1e-11)


def test_of_a_single_prompt_the_share_that_lambda_says_is_left():
    found = layers()
    before = {name: layer.weight.detach().clone() for name, layer in found.items()}
    text, guide = ERASE[:1], GUIDE[:1]
    edit(found, (text, guide, 2.0))
    left = LAM / (LAM + 2.0 * text.square().sum().item())
    for share in residuals(before, found, [(text, guide)]).values():
        assert share == pytest.approx(left, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_keeping_alone_and_a_prompt_mapped_to_itself_change_no_bit(dtype):
    found = layers(dtype)
    found["1.attn2.to_k"].weight.data[0, 0] = -0.0
    before = {name: layer.weight.detach().numpy().tobytes() for name, layer in found.items()}
    edit(found)
    edit(found, (KEEP, KEEP, 1.0))
    edit(found, (ERASE, ERASE, 1.0), (KEEP, KEEP, 0.1))
    assert {name: layer.weight.detach().numpy().tobytes() for name, layer in found.items()} == before


def test_the_order_of_prompts_and_the_chunks_they_come_in_do_not_matter():
    found, other = layers(), layers()
    edit(found, (ERASE, GUIDE, 1.0), (KEEP, KEEP, 1.0))
    turned = [(ERASE[i : i + 1], GUIDE[i : i + 1], 1.0) for i in (2, 0, 1)]
    edit(other, (KEEP.flip(0), KEEP.flip(0), 1.0), *turned)
    for name in found:
        torch.testing.assert_close(found[name].weight, other[name].weight, rtol=1e-11, atol=1e-11)


def test_two_edits_in_turn_are_not_both_at_once_but_what_the_formula_says():
    at_once, in_turn = layers(), layers()
    before = layers()
    first, second = (ERASE[:1], GUIDE[:1], 1.0), (ERASE[1:2], GUIDE[1:2], 1.0)
    edit(at_once, first, second)
    edit(in_turn, first)
    edit(in_turn, second)
    shared = LAM * torch.eye(WIDTH, dtype=torch.float64)
    for name, layer in in_turn.items():
        weight = before[name].weight
        for texts, targets, _ in (first, second):
            weight = (LAM * weight + weight @ targets.T @ texts) @ torch.linalg.inv(shared + texts.T @ texts)
        torch.testing.assert_close(layer.weight, weight, rtol=1e-11, atol=1e-11)
        assert not torch.allclose(layer.weight, at_once[name].weight, rtol=1e-3)


def test_an_edit_that_starts_from_edited_weights_stays_near_those():
    """min lam |W - W_1|^2 + |W c - W_0 g|^2, with W_1 = W_0 (I + X)."""
    found, before = layers(), layers()
    start = edit(found, (ERASE[:1], GUIDE[:1], 1.0))
    once = copy.deepcopy(found)
    change = edit(copy.deepcopy(before), (ERASE[1:], GUIDE[1:], 1.0), (KEEP, KEEP, 0.3), start=start)
    found = layers()
    write(found, change)
    for name, layer in found.items():
        old, near = before[name].weight.detach(), once[name].weight.detach()
        left, right = LAM * near, LAM * torch.eye(WIDTH, dtype=torch.float64)
        for texts, targets, scale in ((ERASE[1:], GUIDE[1:], 1.0), (KEEP, KEEP, 0.3)):
            left, right = left + scale * old @ targets.T @ texts, right + scale * texts.T @ texts
        torch.testing.assert_close(layer.weight, left @ torch.linalg.inv(right), rtol=1e-10, atol=1e-10)


def test_keys_and_values_of_all_layers_change_and_biases_do_not():
    found = layers(bias=True)
    before = copy.deepcopy(found)
    edit(found, *ADDED)
    for name, layer in found.items():
        assert not torch.equal(layer.weight, before[name].weight)
        assert torch.equal(layer.bias, before[name].bias)


def test_weights_of_half_precision_are_solved_in_double_and_rounded_once():
    half = layers(torch.float16)
    exact = {name: layer.weight.double() for name, layer in half.items()}
    change = edit(half, *ADDED)
    assert change.dtype == torch.float64
    for name, layer in half.items():
        assert layer.weight.dtype == torch.float16
        assert torch.equal(layer.weight, (exact[name] + exact[name] @ change).half())


def test_the_residual_is_that_of_the_rounded_weights():
    half = layers(torch.float16)
    before = {name: layer.weight.detach().clone() for name, layer in half.items()}
    edit(half, (ERASE[:1], GUIDE[:1], 1.0), lam=1e-9)
    left = residuals(before, half, [(ERASE[:1], GUIDE[:1])])
    assert all(1e-5 < share < 1e-2 for share in left.values())  # rounding's, where the solution's is 1e-10
    assert all(0 < share < 1 for share in drifts(before, half, [(KEEP, KEEP)]).values())


def test_targets_that_do_not_stand_one_beside_each_embedding_are_refused():
    with pytest.raises(ValueError, match="a target for each"):
        Ridge(WIDTH).add(ERASE, GUIDE[:1], 1.0)


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(RunError, match="cannot be solved"):
        edit(layers(), (ERASE * torch.nan, GUIDE, 1.0))


def test_a_right_hand_solve_is_the_product_with_the_inverse():
    moved, gram = embeddings(WIDTH, 4), KEEP.T @ KEEP
    inverse = torch.linalg.inv(gram + LAM * torch.eye(WIDTH, dtype=torch.float64))
    torch.testing.assert_close(solved(moved, gram, LAM), moved @ inverse, rtol=1e-11, atol=1e-11)


def test_lengths_of_all_outputs_together_come_from_one_matrix():
    found = layers()
    assert width_of(found) == WIDTH
    outputs = torch.cat([layer(KEEP) for layer in found.values()], 1)
    torch.testing.assert_close(((KEEP @ gram_of(found)) * KEEP).sum(1), outputs.square().sum(1))
