"""Plain lines of progress, the time that is left, and the shares that measuring tells."""

import pytest
import torch

from msgm import progress
from msgm.diffusion import VP, ScoreModel
from msgm.diffusion.likelihood import measure_likelihood
from msgm.diffusion.likelihood_settings import LikelihoodSettings
from msgm.diffusion.networks import MLPSettings
from msgm.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_shares_are_printed_with_the_time_left(clock, capsys):
    shown = Progress("row: drawing 8 samples")
    for clock[0], share in ((105.0, 0.1), (120.0, 0.25), (125.0, 0.5), (180.0, 0.8)):
        shown.update(share)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["row: drawing 8 samples: 25%, about 60 s left", "row: drawing 8 samples: 80%, about 20 s left"]


def test_short_work_prints_nothing(clock, capsys):
    with Progress("row: nll") as shown:
        shown.update(1)
    assert capsys.readouterr().out == ""


def test_steps_after_a_resume_are_timed_from_there(clock, capsys):
    shown = Progress("training", 100, "step", start=50)
    clock[0] += 20
    shown.update(75, "loss 0.5")
    clock[0] += 1
    shown.update(100, "loss 0.4")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["training: step 75/100  loss 0.5, about 20 s left", "training: step 100/100  loss 0.4"]


def test_other_processes_are_silent(clock, capsys):
    shown = Progress("training", 100, "step", enabled=False)
    clock[0] += 20
    shown.update(100, "loss 0.5")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_durations_are_rough(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("solver", "items", "error_items", "told"),
    [
        ("rk4", 3, 2, [3 / 16, 6 / 16, 9 / 16, 12 / 16, 14 / 16, 1]),
        ("heun", 5, 0, [3 / 20, 6 / 20, 9 / 20, 12 / 20, 14 / 20, 16 / 20, 18 / 20, 1]),
        ("dopri5", 5, 2, [3 / 5, 1]),
    ],
)
def test_measuring_the_likelihood_tells_how_much_is_done(solver, items, error_items, told):
    settings = LikelihoodSettings(solver, steps=4, tolerance=0.1, batch_size=3, error_items=error_items)
    found = []
    model = ScoreModel(MLPSettings(width=4, depth=1).build((2,)), VP(), (2,))
    measure_likelihood(model, torch.randn(items, 2), None, settings, watch=found.append)
    assert found == pytest.approx(told)
