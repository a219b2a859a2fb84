import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from msgm.diffusion.adaptive import ERROR, NODES, PASS, STAGES, dormand_prince
from msgm.errors import RunError


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def oscillator(frequencies):
    """A pendulum of small swing an item, each with its own frequency: y'' = -w^2 y."""

    def derivative(state, times, items):
        place, speed = state[0].unbind(1)
        return (torch.stack([speed, -(frequencies[items] ** 2) * place], 1),)

    return derivative


def test_the_tableau_is_consistent():
    for node, weights in zip(NODES, STAGES, strict=True):
        assert sum(weights) == pytest.approx(node, abs=1e-15)
    assert sum(ERROR) == pytest.approx(0, abs=1e-15)
    nodes = (0, *NODES[:-1])
    for power in range(5):
        moment = sum(w * c**power for w, c in zip(STAGES[-1], nodes, strict=True))
        assert moment == pytest.approx(1 / (power + 1), abs=1e-14)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-9])
def test_closed_forms_are_met_to_the_tolerance(tolerance):
    w = double(0.5, 1, 3, 10)
    (end,), _ = dormand_prince(
        oscillator(w), (torch.stack([torch.ones(4), torch.zeros(4)], 1).double(),), 0, 5, tolerance, tolerance
    )
    exact = torch.stack([torch.cos(5 * w), -w * torch.sin(5 * w)], 1)
    assert (end - exact).abs().max() < 300 * tolerance


def test_a_single_item_takes_scipys_steps():
    def lorenz(t, y):
        return [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]

    def derivative(state, times, items):
        return (torch.stack([torch.as_tensor(rate) for rate in lorenz(None, state[0].T)], 1),)

    theirs = solve_ivp(lorenz, (0, 1), [1.0, 2.0, 3.0], rtol=1e-6, atol=1e-8)
    (ours,), evaluations = dormand_prince(derivative, (double([1, 2, 3]),), 0, 1, 1e-6, 1e-8)
    assert evaluations.item() == theirs.nfev
    np.testing.assert_allclose(ours[0], theirs.y[:, -1], rtol=1e-12)


def test_it_runs_backwards_to_where_it_began():
    start = (torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),)
    derivative = oscillator(double(1, 2, 5))
    there, _ = dormand_prince(derivative, start, 0, 2, 1e-9, 1e-9)
    back, _ = dormand_prince(derivative, there, 2, 0, 1e-9, 1e-9)
    torch.testing.assert_close(back[0], start[0], rtol=0, atol=1e-6)


def test_items_do_not_influence_one_another():
    w = double(0.3, 40, 2, 7)
    start = torch.stack([torch.ones(4), torch.zeros(4)], 1).double()
    (together,), counts = dormand_prince(oscillator(w), (start,), 0, 3)
    for n in range(4):
        (alone,), count = dormand_prince(oscillator(w[n : n + 1]), (start[n : n + 1],), 0, 3)
        torch.testing.assert_close(alone[0], together[n], rtol=1e-12, atol=1e-12)
        assert count.item() == counts[n]


def test_items_are_the_same_to_the_bit_in_every_batch():
    """By a network of float32 and at loose tolerances, where one tipped acceptance would show."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.SiLU(), torch.nn.Linear(64, 6)).requires_grad_(False)
    bend = torch.linspace(0.5, 30, 70, dtype=torch.float64)

    def solve(chosen):
        def derivative(state, times, items):
            inner = network((state[0] * torch.cos(bend[chosen][items] * times)[:, None]).float())
            return (bend[chosen][items][:, None] * inner.double(),)

        return dormand_prince(derivative, (start[chosen],), 0, 1, 1e-3, 1e-3)

    start = torch.randn(70, 6, dtype=torch.float64)
    (whole,), counts = solve(torch.arange(70))
    assert len(counts.unique()) > 10
    for chosen in ([0], [69], [3, 4], list(range(20, 52)), list(range(20, 53)), list(range(69, -1, -1)), [5, 60, 61]):
        (part,), count = solve(torch.tensor(chosen))
        assert torch.equal(part, whole[chosen])
        assert torch.equal(count, counts[chosen])


def test_every_pass_has_one_size_and_finished_items_leave():
    w, rows = double(0.3, 40), []

    def derivative(state, times, items):
        assert len(state[0]) == len(times) == len(items) == PASS
        rows.append(sorted(set(items.tolist())))
        return oscillator(w)(state, times, items)

    _, counts = dormand_prince(derivative, (double([1, 0], [1, 0]),), 0, 3)
    assert [sum(n in row for row in rows) for n in range(2)] == counts.tolist()
    assert counts[0] < counts[1] / 5
    assert rows[0] == [0, 1]
    assert rows[-1] == [1]


def test_times_are_each_items_own():
    rate = double(1, 20)

    def derivative(state, times, items):
        return (torch.cos(rate[items] * times),)

    (end,), _ = dormand_prince(derivative, (torch.zeros(2, dtype=torch.float64),), 0.5, 2, 1e-9, 1e-9)
    torch.testing.assert_close(end, (torch.sin(2 * rate) - torch.sin(0.5 * rate)) / rate, rtol=0, atol=1e-7)


def test_a_state_of_several_tensors_keeps_shapes_and_types():
    def derivative(state, times, items):
        images = state[0]
        return -images, images.flatten(1).sum(1)

    start = (torch.ones(3, 1, 2, 2), torch.zeros(3, dtype=torch.float64))
    (images, totals), _ = dormand_prince(derivative, start, 0, 1, 1e-6, 1e-6)
    assert (images.shape, images.dtype, totals.dtype) == ((3, 1, 2, 2), torch.float32, torch.float64)
    torch.testing.assert_close(images, torch.full((3, 1, 2, 2), math.exp(-1)), rtol=0, atol=1e-5)
    torch.testing.assert_close(totals, torch.full((3,), 4 * (1 - math.exp(-1))).double(), rtol=0, atol=1e-5)


def test_each_tensor_has_its_own_error_control():
    """A thousand lazy numbers do not hide the error of the one beside them."""

    def derivative(state, times, items):
        return torch.zeros_like(state[0]), torch.cos(30 * times)

    start = (torch.ones(1, 1000, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    (_, end), _ = dormand_prince(derivative, start, 0, 1, 1e-6, 1e-6)
    assert abs(end.item() - math.sin(30) / 30) < 1e-5


def test_a_resting_state_and_an_empty_interval_come_back():
    start = (double([0, 0], [3, 4]),)
    rest, _ = dormand_prince(lambda state, *_: (torch.zeros_like(state[0]),), start, 0, 1)
    stay, counts = dormand_prince(lambda state, *_: state, start, 1, 1)
    assert torch.equal(rest[0], start[0])
    assert torch.equal(stay[0], start[0])
    assert counts.tolist() == [2, 2]


def test_the_cap_on_evaluations_is_one_sentence():
    with pytest.raises(RunError, match=r"^adaptive solver: item 1 took more than 50 evaluations at [^.]*\.[^.]*\.$"):
        dormand_prince(oscillator(double(0.1, 100)), (double([1, 0], [1, 0]),), 0, 10, limit=50)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_derivative_that_is_not_finite_stops_soon(value):
    calls = []

    def derivative(state, times, items):
        calls.append(1)
        rate = torch.where((times > 0.5)[:, None], value, 1.0)
        return (rate.expand_as(state[0]),)

    with pytest.raises(RunError, match="spacing of floats at 0.5"):
        dormand_prince(derivative, (double([1, 2]),), 0, 1)
    assert len(calls) < 1000


def test_a_derivative_that_is_never_finite_is_refused():
    with pytest.raises(RunError, match="not finite"):
        dormand_prince(lambda state, *_: (state[0] * math.nan,), (double([1, 2]),), 0, 1)
