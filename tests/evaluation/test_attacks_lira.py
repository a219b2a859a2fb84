"""LiRA against a closed form, and on models of known behaviour."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msgm.errors import UserError
from msgm.evaluation.attacks.inference import held_out
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.attacks.lira import LiRA, standardised
from msgm.evaluation.bench import Retrained, Subject
from msgm.strata import auc
from msgm.study.band import Band
from tests.evaluation.attacks import Empirical, bench_of, fresh, subject_of


@pytest.fixture(scope="module")
def bench():
    return bench_of("retrains=3")


def beside(bench, *models):
    """The same bench beside retrained models that are given."""
    names = [Retrained(f"retrained-{number}", Path(f"model-{number}"), number) for number in range(len(models))]
    memory = {
        f"retrained/{one.model}": Subject(one.name, model, bench) for one, model in zip(names, models, strict=True)
    }
    return replace(bench, retrained=tuple(names), memory=memory)


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_difficulty_of_items_does_not_hide_members(gap):
    """Difficulties have sd 10; a member's log-loss is lower by ``gap``, where the spread over models is 1."""
    n, models, rng = 4000, 4, np.random.default_rng(0)
    hard = rng.normal(0, 10, (2 * n, 1))
    own = hard + rng.normal(size=(2 * n, 1))
    own[:n] -= gap
    out = hard + rng.normal(size=(models, 2 * n, 1))
    found, plain = -standardised(own, out)[:, 0], -own[:, 0]
    exact = (1 + math.erf(gap / math.sqrt(2 * (1 + 1 / models)) / math.sqrt(2))) / 2
    assert auc(found[:n], found[n:]) == pytest.approx(exact, abs=0.015)
    assert auc(plain[:n], plain[n:]) == pytest.approx(0.5, abs=0.04)


def test_a_level_has_one_spread_for_all_items():
    out = np.zeros((2, 2, 1))
    out[:, 0, 0], out[:, 1, 0] = (-1, 1), (-3, 3)  # variances 2 and 18
    assert standardised(np.array([[1.0], [1.0]]), out)[:, 0] == pytest.approx([1 / math.sqrt(10)] * 2)


@pytest.mark.parametrize("models", [3, 5, 8])
def test_a_retrained_model_lies_inside_the_band_more_often_than_stated(models):
    """Models whose forget items are off by chance, each model's together; AUCs of 1,500 draws, in place of levels."""
    rng, n, draws = np.random.default_rng(models), 20, 1500
    logs = rng.normal(size=(models + 1, 2 * n, draws))
    logs[:, :n] += rng.normal(0, 0.5, (models + 1, 1, draws))
    found = np.empty((models + 1, draws))
    for one in range(models + 1):
        scores = standardised(logs[one], np.delete(logs[:models], one, 0) if one < models else logs[:models])
        found[one] = (scores[:n, None] < scores[None, n:]).mean((0, 1))
    off = np.abs(found[models] - found[:models].mean(0)) / found[:models].std(0, ddof=1)
    assert 0.005 < (off > Band(0.0, 1.0, models).half_width()).mean() < 0.045
    spread = found[:models].var(0, ddof=1).mean() / found[models].var()
    assert 1.02 < math.sqrt(spread) < models / (models - 1)


def test_a_model_that_returns_its_training_items_gives_them_away(bench):
    process, device = fresh(bench).process, torch.device("cpu")
    made = LiRA(items=12, levels=[0.28, 0.46])
    known = clean_items(bench.dataset, made.forget_sides(bench).members, device)
    kept = clean_items(bench.dataset, held_out(bench.split, "retain")[:40], device)
    others = [Empirical(process, bank, width=0.3) for bank in kept.split(20)]
    subject = subject_of(beside(bench, *others), Empirical(process, torch.cat([kept, known]), width=0.3))
    found = made.measure(subject)["lira"]
    assert found["forget"]["auc"]["value"] == pytest.approx(1)
    assert LiRA.followed(found) == pytest.approx({"LiRA AUC forget": 1, "LiRA TPR %": 100})


def test_a_model_that_saw_no_more_than_the_others_tells_nothing(bench):
    models = [fresh(bench.at(seed)) for seed in range(4)]
    found = LiRA(items=100, levels=[0.3, 1.0]).measure(subject_of(beside(bench, *models[1:]), models[0]))["lira"]
    assert found["forget"]["auc"]["low"] < 0.5 < found["forget"]["auc"]["high"]
    assert "retain" not in found
    assert [column.heading for column in LiRA.columns if "retain" in column.heading] == []


def test_it_takes_two_other_models(bench):
    found = LiRA().measure(subject_of(beside(bench, fresh(bench))))["lira"]
    assert found == {
        "not_tested": "1 other retrained models stand beside it, and it takes 2: 'retrains' of a comparison"
    }
    with pytest.raises(UserError, match="retrains must be at least 3 for the metric lira.*got 2"):
        LiRA().check(replace(bench.config, retrains=2), bench.dataset, bench.split)
    LiRA().check(bench.config, bench.dataset, bench.split)
