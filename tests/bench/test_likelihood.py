import json
import math
import sys

import pytest
import torch

from msgm.diffusion import VE, VP, SubVP, likelihood
from msgm.diffusion.likelihood_settings import LikelihoodSettings
from scripts.bench import likelihood as benchmark
from tests.conftest import DIGITS
from tests.helpers import Mixture


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()], ids=lambda process: process.name)
def test_the_reference_way_agrees_with_ours(process):
    """Two solvers written apart, in other variables, give one likelihood; fine steps leave no excuse."""
    model = Mixture(process, torch.zeros(1, 20), [0.5])
    levels = torch.randint(17, (3, 20), generator=torch.Generator().manual_seed(0))
    settings = LikelihoodSettings(steps=50, exact_dims=0)
    (probe,) = likelihood._probes(torch.zeros(3, 20), settings, 0, range(3), 0)
    x = likelihood.dequantise(levels, 17, likelihood._uniform(levels, 0, range(len(levels)), 0))
    images = benchmark.Images(levels, 17, x, probe)
    ours, theirs = benchmark.fused(model, images, settings), benchmark.separate(model, images, 1e-5)
    torch.testing.assert_close(theirs.bits, ours.bits, rtol=0, atol=1e-3)
    torch.testing.assert_close(benchmark.true_bits(model, images, 2, 1e-4), ours.bits[:2], rtol=0, atol=1e-3)


def test_it_trains_a_model_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    found = tmp_path / "figures.json"
    small = "--train-steps 3 --items 4 --steps 2 --tolerance 1e-2 --truth-items 2 --truth-tolerance 1e-2 --rounds 1"
    config = tmp_path / "tiny.yaml"
    config.write_text(f"extends: {DIGITS}\nnetwork: {{channels: [8], mid_attention: false}}\n")
    given = ["likelihood.py", *small.split(), "--config", str(config), "--json", str(found)]
    monkeypatch.setattr(sys, "argv", given)
    benchmark.main()
    figures = json.loads(found.read_text())
    assert {"speedup", "error_bits_per_dim", "reference_error_bits_per_dim", "threads"} < set(figures)
    assert all(math.isfinite(figures[key]) and figures[key] > 0 for key in ("speedup", "error_bits_per_dim"))
    assert (figures["items"], figures["evaluations"]) == (4, 8)
    assert figures["settings"]["train_steps"] == 3
    assert "times faster" in capsys.readouterr().out
