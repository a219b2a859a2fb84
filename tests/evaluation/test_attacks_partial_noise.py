import numpy as np
import pytest
import torch

from msgm.data import DATASETS, dequantise
from msgm.diffusion import PROCESSES
from msgm.errors import UserError
from msgm.evaluation.attacks.levels import clean_items, time_at
from msgm.evaluation.attacks.partial_noise import PartialNoise, start_from
from msgm.requests import ForgetRequest
from tests.evaluation.attacks import Empirical, bench_of, config_of, fresh, subject_of


@pytest.fixture(scope="module")
def bench():
    return bench_of("sampling.steps=12")


def empirical(bench, indices, process="vp"):
    bank = clean_items(bench.dataset, indices, torch.device("cpu"))
    return Empirical(PROCESSES.build({"name": process}), bank)


@pytest.mark.parametrize("process", ["vp", "ve", "subvp", "ddpm"])
def test_a_little_noise_returns_the_item_itself(bench, process):
    indices = bench.split.test.forget[:5]
    model = empirical(bench, bench.split.test.all, process)
    returned = start_from(model, bench, indices, 0.1)
    assert torch.allclose(returned, clean_items(bench.dataset, indices, model.device), atol=0.1)


def test_everything_comes_back_from_the_model_of_the_items_and_nothing_from_one_without_them(bench):
    split = bench.split
    with_them = empirical(bench, split.test.all)
    without = empirical(bench, split.test.retain)
    metric = PartialNoise(levels=[0.1], items=20)
    kept = metric.measure(subject_of(bench, with_them))["partial_noise"]["levels"][0]
    judged = bench.judge.forgotten_share(bench.judge.votes(bench.dataset.take(split.test.forget[:20])))
    assert kept["level"] == 0.1
    assert kept["forget"]["kept"]["value"] == pytest.approx(1, abs=0.11)
    assert kept["forget"]["forgotten"]["value"] == pytest.approx(judged.float().mean().item(), abs=0.11)
    assert kept["retain"]["kept"]["value"] == pytest.approx(1, abs=0.11)
    gone = metric.measure(subject_of(bench, without))["partial_noise"]["levels"][0]
    assert gone["forget"]["forgotten"]["value"] <= 0.2
    assert gone["retain"]["kept"]["value"] == pytest.approx(1, abs=0.11)


def test_an_item_has_its_own_noise_whatever_its_batch(bench):
    model = fresh(bench)
    indices = bench.split.test.forget[:6]
    whole = start_from(model, bench, indices, 1.0)
    alone = torch.cat([start_from(model, bench, np.array([i]), 1.0) for i in indices])
    assert torch.allclose(whole, alone, atol=1e-4)


def test_junk_does_not_come_back(bench):
    point = PartialNoise(levels=[20.0], items=10).measure(subject_of(bench))["partial_noise"]["levels"][0]
    assert point["forget"]["junk"]["value"] == 1
    assert point["forget"]["forgotten"]["value"] == point["forget"]["kept"]["value"] == 0


def test_without_test_items_to_forget_training_ones_are_noised():
    config = config_of()
    dataset = bench_of().dataset
    settings = DATASETS.build({"name": "digits"})
    train = settings.split(dataset, ForgetRequest(labels=[3])).train.forget
    split = settings.split(dataset, ForgetRequest(indices=train[:9].tolist()))
    PartialNoise(items=9).check(config, dataset, split)
    with pytest.raises(UserError, match="partial-noise.items: 10 asked for, but there are 9 training items to forget"):
        PartialNoise(items=10).check(config, dataset, split)


@pytest.mark.parametrize("levels", [[], [0.0], [1.0, 1e4]])
def test_levels_that_the_process_does_not_have_are_refused(bench, levels):
    with pytest.raises(UserError, match=r"^evaluation.options.partial-noise.levels must lie between"):
        PartialNoise(levels=levels).check(bench.config, bench.dataset, bench.split)


@pytest.mark.parametrize("process", ["vp", "ve", "subvp", "ddpm"])
def test_a_level_is_met_at_its_time(process):
    made = PROCESSES.build({"name": process})
    for level in (0.5, 5.0):
        t = torch.tensor([time_at(made, level)], dtype=torch.float64)
        assert made.ratio(t).item() == pytest.approx(level, rel=1e-6)


def test_items_are_at_the_centres_of_their_bins(bench):
    indices = bench.split.test.all[:3]
    expected = dequantise(bench.dataset.take(indices), 17)
    assert torch.equal(clean_items(bench.dataset, indices, torch.device("cpu")), expected)


def test_the_cells_list_the_levels_in_order(bench):
    rates = [{"value": 0.98}, {"value": 0.5}]
    levels = [{"forget": {"forgotten": r}, "retain": {"kept": r}} for r in rates]
    row = {"partial_noise": {"levels": levels}}
    assert [column.cell(row, {}) for column in PartialNoise.columns] == ["98 / 50", "98 / 50"]
