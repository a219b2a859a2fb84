"""The distance of scores against the divergence of Gaussians, and on models of known behaviour."""

import math

import numpy as np
import pytest
import torch

from msgm.diffusion import PROCESSES, ScoreModel
from msgm.errors import UserError
from msgm.evaluation.attacks.inference import held_out
from msgm.evaluation.attacks.score_distance import ScoreDistance, gaps, integral
from tests.evaluation.attacks import bench_of, fresh, subject_of
from tests.evaluation.test_attacks_lira import beside

VARIANCE = 0.25


@pytest.fixture(scope="module")
def bench():
    return bench_of("retrains=3")


class Gaussian(ScoreModel):
    """The exact model of N(mean, VARIANCE) in every dimension."""

    def __init__(self, mean, process="vp"):
        super().__init__(torch.nn.Linear(1, 1), PROCESSES.build({"name": process}), (1, 8, 8))
        self.mean = mean

    def eps(self, x, t, condition=None):
        signal, noise = (part[:, None, None, None] for part in (self.process.signal(t), self.process.noise(t)))
        return noise * (x - signal * self.mean) / (signal**2 * VARIANCE + noise**2)


def lies_apart(shift, rho):
    return (shift * rho / (VARIANCE + rho**2)) ** 2


@pytest.mark.parametrize("process", ["vp", "ve", "flow"])
def test_gaussians_differ_as_their_means_do_at_every_level(bench, process):
    levels, indices = [0.1, 0.5, 3.0], bench.split.train.forget[:4]
    found = gaps(Gaussian(0.2, process), Gaussian(0.5, process), bench, indices, levels)
    assert found.tolist() == pytest.approx([lies_apart(0.3, rho) for rho in levels], rel=1e-3)


def test_over_all_levels_it_is_the_divergence_of_the_gaussians():
    levels = np.geomspace(1e-3, 1e3, 400).tolist()
    values = torch.tensor([lies_apart(0.3, rho) for rho in levels], dtype=torch.float64)
    assert integral(values, levels) == pytest.approx(0.3**2 / (2 * VARIANCE), rel=1e-3)


def test_a_model_has_no_distance_from_itself_and_the_mean_of_those_from_others(bench):
    made = ScoreDistance(levels=[0.1, 0.5, 3.0], items=5)
    row = made.measure(subject_of(beside(bench, Gaussian(0.2), Gaussian(0.5)), Gaussian(0.2)))
    for part in ("forget", "retain"):
        tree = row["score_distance"]["compared"][f"score distance {part}"]
        apart = [pair["value"] for pair in tree["by_model"].values()]
        assert apart[0] == 0 < apart[1]
        assert (tree["value"], tree["least"], tree["greatest"]) == (apart[1] / 2, 0, apart[1])
    assert len(ScoreDistance.columns[-1].cell(row, {}).split(" / ")) == 3


def test_points_are_training_items_to_forget_and_held_out_items_to_retain(bench):
    found = ScoreDistance(items=30).points(bench)
    assert {part: len(indices) for part, indices in found.items()} == {"forget": 30, "retain": 30}
    assert np.isin(found["forget"], bench.split.train.forget).all()
    assert np.isin(found["retain"], held_out(bench.split, "retain")).all()


def test_noise_is_common_to_models_and_does_not_depend_on_the_batch(bench):
    one, other = fresh(bench), fresh(bench.at(1))
    indices = bench.split.train.forget[:5]
    alone = [gaps(one, other, bench, indices[k : k + 1], [0.3, 1.0]) for k in range(5)]
    assert torch.allclose(torch.stack(alone).mean(0), gaps(one, other, bench, indices, [0.3, 1.0]), rtol=1e-4)


def test_a_model_that_diverges_has_no_value(bench):
    row = ScoreDistance(items=3).measure(subject_of(beside(bench, Gaussian(0.2)), Gaussian(math.nan)))
    found = row["score_distance"]
    assert ScoreDistance.followed(found) == {"score distance forget": None, "score distance retain": None}
    assert [column.cell(row, {}) for column in ScoreDistance.columns] == ["no value"] * 3


@pytest.mark.parametrize("levels", [[0.5], [1.0, 0.5], [0.5, 0.5], []])
def test_levels_that_bound_no_integral_are_refused(levels):
    with pytest.raises(UserError, match=r"evaluation.options.score-distance.levels must be two rising numbers or more"):
        ScoreDistance(levels=levels)
