"""What solvers reached: true residuals of systems that are hard, the worst of several, and what rows and cards say."""

import math

import numpy as np
import pytest
import torch

from msgm import curvature
from msgm.cards.solves import NOT_CONVERGED, converged, solver_lines, solver_notes, solver_text
from msgm.errors import RunError
from msgm.recommender.gradients import solvers
from msgm.solves import Solve, fitted, of_runs, worst


def system(dtype, size=200):
    """A matrix of condition 1e5 and the right side that has the same share of every direction."""
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    matrix = basis @ torch.diag(torch.logspace(0, -5, size, dtype=torch.float64)) @ basis.T
    return matrix.to(dtype), (basis @ torch.ones(size, dtype=torch.float64)).to(dtype)


def of_classifiers(matrix, right, steps, tolerance):
    found, used, residual = curvature.conjugate_gradients(lambda v: matrix @ v, right, steps, tolerance)
    return found, Solve(residual, tolerance, used)


def of_recommenders(matrix, right, steps, tolerance):
    found = solvers.conjugate_gradients(lambda v: matrix @ v, right, 0.0, tolerance, steps)
    return found.x, found.solve


@pytest.mark.parametrize("solver", [of_classifiers, of_recommenders])
def test_twenty_steps_at_condition_1e5_have_not_converged(solver):
    matrix, right = system(torch.float64)
    found, solve = solver(matrix, right, 20, 1e-3)
    assert solve.residual == pytest.approx(float((right - matrix @ found).norm() / right.norm()))
    assert solve.residual > 1  # Worse than no step at all.
    assert (solve.steps, solve.converged) == (20, False)


@pytest.mark.parametrize("solver", [of_classifiers, of_recommenders])
def test_in_single_precision_the_true_residual_is_told_not_the_recurrence(solver):
    matrix, right = system(torch.float32)
    found, solve = solver(matrix, right, 4000, 1e-6)
    assert solve.steps < 4000  # By the recurrence it was done.
    exact = float((right.double() - matrix.double() @ found.double()).norm() / right.double().norm())
    assert solve.residual == pytest.approx(exact, rel=0.05)
    assert solve.residual > 1e-3
    assert not solve.converged


def test_a_direction_without_curvature_ends_the_solver_of_classifiers():
    found, used, residual = curvature.conjugate_gradients(lambda v: 0 * v, torch.ones(3), 9, 1e-3)
    assert (found.tolist(), used, residual) == ([0.0] * 3, 1, 1.0)


def test_a_newton_step_that_is_not_taken_is_told():
    def rough(x):
        """Falls only far closer to 0 than half a step twelve times over."""
        return (x**2).sum() - 1e-9 * x.sum() + 1e3 * (x.detach().abs() > 1e-15).sum()

    at = torch.zeros(2, dtype=torch.float64)
    point, found = solvers.newton_step(rough, at, 0.0, 1e-6, 10)
    assert torch.equal(point, at)
    assert found.residual == 1
    assert not found.solve.converged


def test_blocks_tell_their_worst_residual():
    blocks = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, 1e-3]))]).double()
    right = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = solvers.solve_blocks(blocks, right, 0.0)
    assert solvers.blocks_solve(blocks, right, 0.0, found).converged
    off = found + torch.tensor([0, 0, 0.5, 0], dtype=torch.float64)
    assert solvers.blocks_solve(blocks, right, 0.0, off).residual == pytest.approx(0.5 / 5)


def test_the_worst_is_farthest_behind_its_own_tolerance():
    found = worst([Solve(1e-3, 1e-2, 4), Solve(1e-4, 1e-6, 5)])
    assert found == Solve(1e-4, 1e-6, 9)
    assert math.isnan(worst([Solve(0.5, 1.0, 1), Solve(math.nan, 1.0, 1)]).residual)
    assert not Solve(math.nan, 1.0, 1).converged


def test_a_row_has_the_worst_of_its_runs():
    runs = [{"solve": Solve(1e-5, 1e-3, 7).facts()}, {"solve": Solve(math.nan, 1e-3, 7).facts()}, {}]
    assert of_runs(runs[:1]) == {"solve": runs[0]["solve"], "converged": True}
    found = of_runs(runs)
    assert (found["converged"], found["solve"]["residual"], found["solve"]["steps"]) == (False, None, 14)
    assert of_runs([{}]) == {"solve": None, "converged": None}


def test_rows_and_cards_say_how_far_a_solver_came():
    bad = {"method": "influence", "model": "als", "solve": Solve(2.7, 1e-3, 20).facts()}
    good, none = {"method": "m", "solve": Solve(1e-4, 1e-3, 20).facts()}, {"method": "n", "solve": None}
    assert [converged(row) for row in (bad, good, none, {})] == [False, True, True, True]
    assert solver_text(bad) == "not converged: relative residual 2.7e+00 after 20 steps, where 0.001 was asked for"
    assert solver_text(good).startswith("converged: relative residual 1.0e-04")
    assert solver_text(none) is None
    assert solver_notes([bad, good, none]) == [f"influence on als is {solver_text(bad)}."]
    assert NOT_CONVERGED in solver_lines(bad)[0]
    assert solver_lines(good) == []
    assert "not finite" in solver_text({"solve": Solve(math.nan, 1e-3, 2).facts()})


def test_newton_of_a_nearly_singular_head_says_so():
    from msgm.classifier.methods.newton_certified import Problem

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(40, 3)), np.ones((40, 1))], 1)
    y = np.where(rng.random((40, 2)) < 0.5, 1.0, -1.0)
    problem = Problem(x, y, np.zeros((2, 4)), 0.1)
    steps = problem.newton(np.zeros((2, 4)))
    assert problem.solve(np.zeros((2, 4)), steps).converged
    assert problem.solve(np.zeros((2, 4)), 0 * steps).residual == pytest.approx(1)


def test_a_regression_that_stops_early_gives_no_finding():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 20)), rng.integers(0, 2, 200)
    assert hasattr(fitted(lambda: LogisticRegression().fit(x, y), "it"), "coef_")
    with pytest.raises(RunError, match="the probe did not converge"):
        fitted(lambda: LogisticRegression(max_iter=1).fit(x, y), "the probe")
