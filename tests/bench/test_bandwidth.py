import json
import math
import sys

import pytest
import torch

from msgm.objectives.kernel import leave_one_out_bandwidth
from scripts.bench import bandwidth as benchmark


def test_the_held_out_density_is_that_of_a_mixture_of_gaussians():
    bank = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    components = torch.distributions.Independent(torch.distributions.Normal(bank, 0.5), 1)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(2)), components)
    points = torch.tensor([[0.3, -0.4], [5.0, 1.0]])
    expected = mixture.log_prob(points).double() / (2 * math.log(2))
    torch.testing.assert_close(benchmark.held_out_bits(bank, points, 0.5), expected, rtol=1e-5, atol=1e-6)


def test_the_best_bandwidth_beats_its_neighbours():
    draws = torch.Generator().manual_seed(0)
    bank, items = torch.randn(300, 2, generator=draws), torch.randn(200, 2, generator=draws)
    best = benchmark.best_bandwidth(bank, items, leave_one_out_bandwidth(bank))
    bits = [float(benchmark.held_out_bits(bank, items, factor * best).mean()) for factor in (0.97, 1.0, 1.03)]
    assert bits[1] == max(bits)


def test_it_prints_both_bandwidths_and_writes_the_figures(tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    given = ["bandwidth.py", "configs/digits/vp.yaml", "--bank", "100", "--items", "50", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", given)
    benchmark.main()
    (found,) = json.loads(path.read_text()).values()
    assert (found["bank"], found["items"]) == (100, 50)
    assert found["gain"] >= 0
    assert found["best"] == pytest.approx(found["bandwidth"], rel=0.2)
    assert f"by the rule {found['bandwidth']:.4f}" in capsys.readouterr().out
