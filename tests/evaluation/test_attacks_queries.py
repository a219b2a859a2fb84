"""PIA, SecMI and SimA against closed forms of Gaussian data, and on models of known behaviour."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.diffusion import PROCESSES, ScoreModel
from msgm.diffusion.samplers import sigma_space
from msgm.evaluation.attacks.inference import held_out
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.pia import PIA
from msgm.evaluation.attacks.secmi import SecMI
from msgm.evaluation.attacks.sima import SimA
from tests.evaluation.attacks import Empirical, bench_of, fresh, subject_of

ATTACKS = (PIA, SecMI, SimA)
MEAN, VARIANCE, LEAST, LEVEL = 0.3, 0.49, 0.02, 0.6


@pytest.fixture(scope="module")
def bench():
    return bench_of()


class Gaussian(ScoreModel):
    """The exact model of N(MEAN, VARIANCE) in every dimension."""

    def __init__(self, process):
        super().__init__(torch.nn.Linear(1, 1), PROCESSES.build({"name": process}), (5,))

    def eps(self, x, t, condition=None):
        signal, noise = self.process.signal(t)[:, None], self.process.noise(t)[:, None]
        return noise * (x - signal * MEAN) / (signal**2 * VARIANCE + noise**2)


def predicted(y, rho):
    return rho * (y - MEAN) / (VARIANCE + rho**2)


def by_proximal_initialization(x):
    first = predicted(x, LEAST)
    return np.mean((first - predicted(x + LEVEL * first, LEVEL)) ** 4, axis=1)


def by_a_step_up_and_back(x):
    """DDIM multiplies the distance from the mean by a factor at each step."""
    ratios = np.linspace(LEAST, LEVEL, 11)
    step = ratios[1] - ratios[0]
    for rho in ratios[:-1]:
        x = MEAN + (x - MEAN) * (1 + step * rho / (VARIANCE + rho**2))
    up = x + step * predicted(x, LEVEL)
    return np.mean((x - (up - step * predicted(up, LEVEL + step))) ** 2, axis=1)


def by_the_predicted_noise(x):
    return np.mean(predicted(x, LEVEL) ** 4, axis=1)


@pytest.mark.parametrize("process", ["vp", "ve", "flow"])
@pytest.mark.parametrize(
    ("attack", "expected"),
    [(PIA, by_proximal_initialization), (SecMI, by_a_step_up_and_back), (SimA, by_the_predicted_noise)],
)
def test_scores_of_gaussian_data_are_closed_forms_whatever_the_process(process, attack, expected):
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found = attack().query(sigma_space(Gaussian(process)), x, LEVEL, LEAST)
    # A step up and back nearly cancels, which leaves rounding of float32.
    assert found.numpy() == pytest.approx(expected(x.double().numpy()), rel=2e-3)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_model_that_returns_its_training_items_gives_them_away(bench, attack):
    made, split = attack(items=12, levels=[0.28, 0.46]), bench.split
    retain = made.sides(bench, split.train.retain, held_out(split, "retain"))
    members = np.concatenate([made.forget_sides(bench).members, retain.members])
    known = clean_items(bench.dataset, members, torch.device("cpu"))
    found = made.measure(subject_of(bench, Empirical(fresh(bench).process, known, width=0.05)))[attack.key]
    for part in ("forget", "retain"):
        assert found[part]["auc"]["value"] == pytest.approx(1)
        assert [point["auc"]["value"] for point in found[part]["by_level"]] == pytest.approx([1, 1])
    assert attack.followed(found) == pytest.approx({f"{attack.short} AUC forget": 1, f"{attack.short} TPR %": 100})


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_network_that_was_not_trained_tells_nothing(bench, attack):
    found = attack(items=100, levels=[0.3]).measure(subject_of(bench))[attack.key]
    for part in ("forget", "retain"):
        assert found[part]["auc"]["low"] < 0.5 < found[part]["auc"]["high"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_scores_do_not_depend_on_the_batch(bench, attack):
    indices, model = bench.split.train.forget[:5], fresh(bench)
    small = replace(bench, config=replace(bench.config, sampling=replace(bench.config.sampling, batch_size=2)))
    whole, parts = (attack(levels=[0.3, 0.5]).scores(subject_of(one, model), indices) for one in (bench, small))
    assert whole.shape == (5, 2)
    assert parts == pytest.approx(whole, rel=1e-3)


def test_no_level_outweighs_another():
    """The second level's scores are a thousand times as large, and its order is the other way round."""
    scores = np.array([[1.0, 4000.0], [2.0, 1000.0]])
    first, second = SimA(levels=[0.1, 0.2]).combined(scores)
    assert first - second == pytest.approx(np.log(2) / 2)


def test_columns_show_the_area_by_level(bench):
    found = SimA(items=20, levels=[0.1, 0.3]).measure(subject_of(bench))
    cells = {column.heading: column.cell(found, {}) for column in SimA.columns}
    assert len(cells["SimA AUC forget, by level"].split(" / ")) == 2
    assert "[" in cells["SimA AUC forget (aim: the retrain's)"]
