import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from msgm.cli import main
from msgm.diffusion import SAMPLERS, SamplingSettings
from scripts.bench import samplers as benchmark
from tests.conftest import DIGITS, TINY, settings

pytestmark = pytest.mark.usefixtures("rendered")


def test_the_frechet_distance_is_the_textbook_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) + 1
    one, two = (np.cov(x.T) for x in (a, b))
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + two - 2 * sqrtm(one @ two).real)
    found = benchmark.frechet(*benchmark.moments(torch.from_numpy(a)), *benchmark.moments(torch.from_numpy(b)))
    assert found == pytest.approx(expected)
    assert benchmark.frechet(*2 * benchmark.moments(torch.from_numpy(a))) == pytest.approx(0, abs=1e-9)


def test_a_budget_buys_the_most_steps_that_it_pays_for():
    bought = {name: benchmark.affordable(SamplingSettings(name), 100) for name in SAMPLERS.entries}
    expected = {"ancestral": 100, "heun": 50, "pf-ode": 25, "predictor-corrector": 50, "pf-ode-adaptive": 2}
    assert expected.items() <= bought.items()
    assert "torchsde" not in {case.sampler for case in benchmark.cases(None, [20])}
    assert [case.steps for case in benchmark.cases("heun,pf-ode-adaptive", [9, 20])] == [5, 10, 2]


def line(junk, frechet):
    return benchmark.Line("ddim", 10, 10, 1.0, junk, frechet)


def test_within_noise_means_both_numbers_are():
    references = [line(3.0, 0.50), line(3.4, 0.54), line(3.2, 0.52)]
    for junk, frechet, expected in ((3.5, 0.55, True), (1.0, 0.1, True), (4.0, 0.5, False), (3.0, 0.6, False)):
        assert benchmark.within(line(junk, frechet), references, 10**6) is expected
    # A share of few samples is no more certain than they allow: 3.2% of 1000 has a deviation of .56.
    assert benchmark.within(line(4.2, 0.5), references, 1000)
    assert not benchmark.within(line(4.4, 0.5), references, 1000)


def test_it_measures_a_run_and_writes_its_figures(tmp_path, monkeypatch, capsys):
    run, found, picture = tmp_path / "run", tmp_path / "figures.json", tmp_path / "figures.png"
    assert main(["train", str(DIGITS), *settings(TINY), "--device", "cpu", "--out", str(run)]) == 0
    small = "--samplers ancestral,heun,pf-ode-adaptive --budgets 3,5 --samples 20 --seeds 2 --reference-steps 4"
    arguments = ["samplers.py", str(run), *small.split(), "--device", "cpu", "--json", str(found)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--plot", str(picture)])
    benchmark.main()
    figures = json.loads(found.read_text())
    assert [(entry["sampler"], entry["evaluations"]) for entry in figures["lines"][:4]] == [
        ("ancestral", 3),
        ("ancestral", 5),
        ("heun", 3),
        ("heun", 5),
    ]
    assert figures["lines"][4]["evaluations"] > 10
    assert len(figures["reference"]) == 2
    assert all(math.isfinite(entry["frechet"]) and 0 <= entry["junk"] <= 100 for entry in figures["lines"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "within noise" in capsys.readouterr().out
