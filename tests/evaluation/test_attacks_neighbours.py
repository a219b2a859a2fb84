import pytest
import torch

from msgm.data import DATASETS, dequantise
from msgm.evaluation import Bench, Reality
from msgm.evaluation import reality as reality_module
from msgm.evaluation.attacks.neighbours import Neighbours
from msgm.requests import ForgetRequest
from tests.evaluation.attacks import bench_of, subject_of


@pytest.fixture(scope="module")
def bench():
    return bench_of("evaluation.samples=100")


def showing(bench, indices, **more):
    """A model whose samples are the items at ``indices``."""
    subject = subject_of(bench, **more)
    items = bench.dataset.take(indices)
    vars(subject)["samples"] = dequantise(items, 17)
    return subject


def test_a_model_that_copies_retain_items_lies_nearer_than_the_control(bench):
    found = Neighbours().measure(showing(bench, bench.split.train.retain[:100]))["neighbours"]
    assert found["retain"]["nearer"]["0.05"]["value"] == found["retain"]["nearer"]["0.01"]["value"] == 1
    assert found["retain"]["samples"]["0.95"] == pytest.approx(0, abs=0.02)
    assert found["retain"]["control"]["0.01"] > 0
    assert found["forget"]["nearer"]["0.05"]["value"] < 0.2


def test_held_out_items_lie_as_near_as_the_control(bench):
    found = Neighbours().measure(showing(bench, bench.split.test.retain[:100]))["neighbours"]
    low, high = (found["retain"]["nearer"]["0.05"][end] for end in ("low", "high"))
    assert low < 0.06
    assert high > 0.02
    held = (bench.split.validation, bench.split.test)
    assert found["retain"]["control_n"] == sum(len(part.retain) for part in held)
    assert found["forget"]["control_n"] == sum(len(part.forget) for part in held)


@pytest.mark.parametrize("chunk", [3, 1000])
def test_the_nearest_item_is_named_by_its_place(chunk, monkeypatch):
    monkeypatch.setattr(reality_module, "CHUNK", chunk)
    g = torch.Generator().manual_seed(0)
    points, bank = torch.randn(20, 3, generator=g), torch.randn(11, 3, generator=g)
    distances, places = Reality(bank, None, 1.0, 0.1).nearest(points)
    expected = (points[:, None] - bank).norm(dim=2).min(1)
    assert torch.equal(places, expected.indices)
    assert torch.allclose(distances, expected.values, atol=1e-5)


def test_the_picture_shows_samples_above_their_nearest_items(bench, tmp_path):
    from PIL import Image

    subject = showing(bench, bench.split.train.forget[:100], folder=tmp_path)
    found = Neighbours(shown=4).measure(subject)["neighbours"]
    assert found["picture"] == "neighbours.png"
    picture = torch.tensor(list(Image.open(tmp_path / "neighbours.png").convert("L").getdata()))
    side = 4 * (8 + 1)
    lines = picture.view(3 * side + 4, 4 * side + 4)
    sample, forget, retain = (lines[4 + k * side : 4 + k * side + 32] for k in range(3))
    assert torch.equal(sample, forget)
    assert not torch.equal(sample, retain)


def test_without_a_folder_there_is_no_picture(bench):
    assert Neighbours().measure(showing(bench, bench.split.test.retain[:10]))["neighbours"]["picture"] is None


def test_samples_that_are_no_numbers_are_left_out(bench):
    subject = showing(bench, bench.split.test.retain[:10])
    subject.samples[:3] = float("nan")
    assert Neighbours().measure(subject)["neighbours"]["n"] == 7
    subject = showing(bench, bench.split.test.retain[:10])
    subject.samples[:] = float("nan")
    found = Neighbours().measure(subject)["neighbours"]
    assert (found["n"], found["retain"]["nearer"], found["retain"]["samples"]) == (0, None, None)


def test_without_held_out_items_to_forget_there_is_no_control_of_them(bench):
    request = ForgetRequest(indices=bench.split.train.forget[:9].tolist())
    split = DATASETS.build({"name": "digits"}).split(bench.dataset, request)
    alone = Bench(bench.config, bench.dataset, split, bench.judge, bench.reality)
    row = Neighbours().measure(showing(alone, split.test.retain[:10]))
    assert row["neighbours"]["forget"]["nearer"] is None
    assert row["neighbours"]["forget"]["samples"] is not None
    assert Neighbours.columns[1].cell(row, {}) == "-"
