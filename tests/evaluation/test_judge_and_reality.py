"""The judge and the distances, on real digits and on Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.config import JudgeSettings, load_config
from msgm.data import DATASETS, dequantise
from msgm.diffusion import ScoreModel
from msgm.evaluation import Bench, Reality, Subject, train_judge
from msgm.evaluation import reality as reality_module
from msgm.evaluation.judge import Judge, Task, assess
from msgm.evaluation.measuring import measure
from msgm.evaluation.metrics.likelihood import nll_indices, summary
from msgm.evaluation.metrics.unlearning_ratio import real_numbers, sample_numbers
from msgm.evaluation.rates import rate
from msgm.evaluation.reality import to_items
from msgm.requests import ForgetRequest
from msgm.training.run import load_data, new_model

REQUEST = ForgetRequest(labels=[3, 7])
SMALL = JudgeSettings(epochs=2, width=8)


@pytest.fixture(scope="module")
def digits():
    settings = DATASETS.build({"name": "digits"})
    dataset = settings.load()
    return dataset, settings.split(dataset, REQUEST)


@pytest.fixture(scope="module", params=[10, pytest.param(JudgeSettings().epochs, marks=pytest.mark.slow)])
def judge(digits, request):
    """A judge of default settings, and one that was trained for a third of its epochs."""
    return train_judge(*digits, REQUEST, JudgeSettings(epochs=request.param), seed=0)


@pytest.fixture(scope="module")
def small_judge(digits):
    return train_judge(*digits, REQUEST, SMALL, seed=0)


@pytest.fixture(scope="module")
def reality(digits):
    return Reality.of(*digits)


@pytest.fixture(scope="module")
def bench(digits, small_judge, reality):
    overrides = ["request.labels=[3,7]", "network.channels=[8]", "sampling.steps=3"]
    overrides += ["evaluation.samples=30", "evaluation.nll_items=3", "evaluation.likelihood.steps=2"]
    return Bench(load_config(None, overrides), *digits, small_judge, reality)


def test_the_judge_is_right_on_97_percent_of_held_out_digits(judge, digits):
    dataset, split = digits
    predicted = judge.votes(dataset.take(split.test.all)).argmax(1).numpy()
    right = (predicted == dataset.labels[split.test.all]).mean()
    assert right >= 0.97
    assert judge.accuracy["value"] == pytest.approx(right)
    assert judge.accuracy["n"] == len(split.test.all)


def test_the_judge_reports_its_recall_of_forget_items(judge, digits):
    dataset, split = digits
    found = judge.forgotten_share(judge.votes(dataset.take(split.test.forget)))
    assert judge.recall == rate(int(found.sum()), len(split.test.forget))
    assert judge.recall["value"] > 0.9


def test_real_items_give_the_floor_and_the_control_of_the_thresholds(bench, judge, digits):
    real = real_numbers(replace(bench, judge=judge))
    assert real["unlearning_ratio"]["n"] == len(digits[1].test.retain)
    assert real["unlearning_ratio"]["value"] < 0.03
    assert real["junk_rate"] < 0.04
    assert real["copy_rate"] < 0.04


@pytest.mark.parametrize("change", [{"seed": 1}, {"width": 5}, {"labels": [1]}])
def test_a_judge_made_for_something_else_is_not_reused(digits, tmp_path, change):
    dataset, split = digits
    train_judge(dataset, split, REQUEST, SMALL, seed=0, folder=tmp_path)
    request = ForgetRequest(labels=change.get("labels", [3, 7]))
    settings = replace(SMALL, width=change.get("width", SMALL.width))
    split = DATASETS.build({"name": "digits"}).split(dataset, request)
    again = train_judge(dataset, split, request, settings, seed=change.get("seed", 0), folder=tmp_path)
    fresh = train_judge(dataset, split, request, settings, seed=change.get("seed", 0))
    assert again.summary() == fresh.summary()


def test_the_same_seed_gives_the_same_judge_whatever_was_drawn_before(small_judge, digits):
    torch.manual_seed(99)
    again = train_judge(*digits, REQUEST, SMALL, seed=0)
    for one, other in zip(again.network.parameters(), small_judge.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_saved_judge_is_loaded_and_not_trained_again(digits, tmp_path, monkeypatch):
    first = train_judge(*digits, REQUEST, SMALL, seed=0, folder=tmp_path)
    monkeypatch.setattr("msgm.evaluation.judges.own._fit", lambda *arguments: pytest.fail("it was trained again"))
    again = train_judge(*digits, REQUEST, SMALL, seed=0, folder=tmp_path)
    items = digits[0].items[:200]
    assert torch.equal(again.votes(items).argmax(1), first.votes(items).argmax(1))
    assert again.summary() == first.summary()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judge.json", "judge.safetensors"]


def test_a_request_by_indices_makes_a_judge_of_two_classes(digits):
    dataset, _ = digits
    request = ForgetRequest(indices=np.flatnonzero(dataset.labels == 0).tolist())
    split = DATASETS.build({"name": "digits"}).split(dataset, request)
    judge = train_judge(dataset, split, request, JudgeSettings(epochs=3, width=8), seed=0)
    assert (judge.classes, judge.forgotten) == (["retain", "forget"], [1])
    assert judge.forgotten_share(judge.votes(dataset.items[split.test.forget])).float().mean() > 0.8


def test_the_judge_reads_vectors():
    config = load_config(None, ["data.name=gaussians", "data.count=3000", "request.labels=[2]", "network.name=mlp"])
    judge = train_judge(*load_data(config), config.request, JudgeSettings(epochs=5), seed=0)
    assert judge.classes == ["0", "1", "2"]
    assert judge.accuracy["value"] > 0.75


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_the_distance_is_to_the_nearest_item_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(reality_module, "CHUNK", chunk)
    points, bank = torch.randn(50, 3), torch.randn(20, 3)
    expected = (points[:, None] - bank).norm(dim=2).min(1).values
    assert torch.allclose(Reality(bank, None, 1.0, 0.1).distances(points), expected, atol=1e-5)


def test_about_one_in_a_hundred_real_items_is_junk_or_a_copy(digits, reality):
    dataset, split = digits
    for part, most in ((split.validation, 0.015), (split.test, 0.04)):
        distances = reality.distances(dataset.take(part.all))
        assert reality.junk(distances).float().mean() <= most
        assert reality.copies(distances).float().mean() <= most
    calibrated = reality.distances(dataset.take(split.validation.all))
    assert reality.junk(calibrated).any()
    assert reality.copies(calibrated).any()


def test_noise_is_junk_and_no_copy(reality):
    noise = torch.randint(0, 17, (100, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    distances = reality.distances(noise)
    assert reality.junk(distances).all()
    assert not reality.copies(distances).any()


def test_training_items_are_copies_and_no_junk(digits, reality):
    dataset, split = digits
    distances = reality.distances(dataset.take(split.train.all))
    assert reality.copies(distances).all()
    assert not reality.junk(distances).any()


def test_samples_become_levels_and_vectors_stay(digits):
    items = digits[0].items[:5]
    assert torch.equal(to_items(dequantise(items, 17, 0.3), 17), items)
    vectors = torch.randn(4, 2)
    assert torch.equal(to_items(vectors, None), vectors)


def finite(items):
    return items, torch.ones(len(items), dtype=torch.bool)


def test_a_sample_that_is_no_number_is_junk(bench, digits):
    items, mask = finite(digits[0].take(digits[1].train.all[:10]))
    mask[:4] = False
    numbers = sample_numbers(items, mask, bench)
    assert numbers["non_finite_samples"] == 4
    assert (numbers["junk_rate"], numbers["copy_rate"]) == (0.4, 0.6)


def test_a_diverged_likelihood_is_null_with_its_count():
    assert summary(torch.tensor([1.0, float("inf"), float("nan")])) == {
        "mean": None,
        "median": None,
        "standard_error": None,
        "n": 3,
        "non_finite": 2,
    }


def test_the_numbers_of_training_items_are_those_of_a_model_that_copies(bench, digits):
    dataset, split = digits
    numbers = sample_numbers(*finite(dataset.take(split.train.all)), bench)
    assert (numbers["copy_rate"], numbers["junk_rate"]) == (1.0, 0.0)
    assert numbers["class_histogram"]["none"] == 0


def test_the_histogram_counts_every_sample_once_and_junk_as_none(bench, digits):
    dataset, split = digits
    noise = torch.randint(0, 17, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    numbers = sample_numbers(*finite(torch.cat([noise, dataset.take(split.test.all)])), bench)
    n = 40 + len(split.test.all)
    assert sum(numbers["class_histogram"].values()) == n
    assert numbers["class_histogram"]["none"] == round(numbers["junk_rate"] * n)
    assert numbers["class_histogram"]["none"] >= 40
    assert list(numbers["class_histogram"]) == [*"0123456789", "none"]
    assert numbers["unlearning_ratio"]["n"] == n


def test_junk_is_no_forgotten_content_but_for_the_closed_set_ratio(bench, digits):
    dataset, split = digits
    items = dataset.take(split.test.forget)
    noise = torch.randint(0, 17, (200, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    both = torch.cat([noise, items])
    named = bench.judge.forgotten_share(bench.judge.votes(both))
    real = ~bench.reality.junk(bench.reality.distances(both))
    assert named[:200].any()
    numbers = sample_numbers(*finite(both), bench)
    assert numbers["unlearning_ratio"] == rate(int(named[real].sum()), len(both))
    assert numbers["unlearning_ratio_closed_set"] == rate(int(named.sum()), len(both))


@pytest.fixture(scope="module")
def model(bench) -> ScoreModel:
    return new_model(bench.config, bench.dataset)


def test_a_model_is_measured_and_not_changed(bench, model):
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    numbers = measure(Subject("model", model, bench))
    assert list(numbers["measured"]) == ["ur", "nll"]
    assert sum(numbers["class_histogram"].values()) == 30
    assert numbers["nll"]["unit"] == "bits/dim"
    assert numbers["nll"]["retain"]["n"] == numbers["nll"]["forget"]["n"] == 3
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_measuring_twice_gives_the_same_numbers(bench, model):
    torch.manual_seed(5)
    assert measure(Subject("model", model, bench)) == measure(Subject("model", model, bench))


def test_what_was_measured_is_not_measured_again(bench, model):
    row = measure(Subject("model", model, bench)) | {"junk_rate": "kept"}
    assert measure(Subject("model", model, bench), row) == row


def test_likelihoods_are_of_the_first_test_items(bench, digits):
    _, split = digits
    chosen = nll_indices(bench)
    assert chosen["retain"].tolist() == split.test.retain[:3].tolist()
    assert chosen["forget"].tolist() == split.test.forget[:3].tolist()


class Undecided(Judge):
    """A judge that gives all classes the same log-probability, or all but the first two less."""

    kind, digest = "undecided", "none"

    def __init__(self, classes, forgotten, of_two=False):
        super().__init__(classes, forgotten, 16)
        self.of_two = of_two

    def outputs(self, items):
        logits = torch.zeros(len(items), len(self.classes))
        logits[:, 2:] = -1.0 if self.of_two else 0.0
        return torch.zeros(len(items), 1), logits


def test_tied_classes_share_a_judgement(bench, digits, small_judge):
    task = Task.of(*digits, REQUEST)
    judge = Undecided(small_judge.classes, [3, 7])
    assess(judge, task)
    assert judge.accuracy["value"] == pytest.approx(1 / 10)
    assert judge.recall["value"] == pytest.approx(2 / 10)
    items = digits[0].take(digits[1].test.retain)
    numbers = sample_numbers(*finite(items), replace(bench, judge=judge))
    shares = [numbers["class_histogram"][name] for name in judge.classes]
    assert shares == pytest.approx([shares[0]] * 10)
    assert numbers["unlearning_ratio_closed_set"]["value"] == pytest.approx(0.2)
    two = Undecided(small_judge.classes, [1], of_two=True)
    assert two.votes(items)[0].tolist() == [0.5, 0.5] + [0.0] * 8
    assert two.forgotten_share(two.votes(items)).tolist() == [0.5] * len(items)
