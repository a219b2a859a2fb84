import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.data import DATASETS, Folder, Gaussians, load_dataset, reading
from msgm.data.images import ImageFiles
from msgm.errors import UserError
from msgm.requests import ForgetRequest


def test_digits_are_1797_images_of_17_levels():
    digits = load_dataset("digits")
    assert len(digits) == 1797
    assert digits.items.shape == (1797, 1, 8, 8)
    assert digits.items.dtype == torch.uint8
    assert (digits.items.min(), digits.items.max(), digits.levels) == (0, 16, 17)
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_split_by_a_request_for_two_classes():
    settings = DATASETS.build({"name": "digits"})
    digits = settings.load()
    split = settings.split(digits, ForgetRequest(labels=[3, 7]))
    assert set(digits.labels[split.train.forget]) == {3, 7}
    assert set(digits.labels[split.train.retain]) == {0, 1, 2, 4, 5, 6, 8, 9}
    assert (len(split.train.all), len(split.validation.all), len(split.test.all)) == (1257, 270, 270)


def test_an_unknown_data_set_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"data.name: unknown data 'digit'.*Did you mean 'digits'\?"):
        load_dataset("digit")


def test_the_digest_follows_the_contents():
    digits = load_dataset("digits")
    changed = replace(digits, items=digits.items.clone())
    assert changed.digest() == digits.digest()
    changed.items[5, 0, 0, 0] += 1
    assert changed.digest() != digits.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [str(9 - k) for k in range(10)]},
        {"labels": np.zeros(1797, dtype=np.int64)},
        {"groups": {"subject": np.array(["7"] * 1797)}},
        {"attributes": {"even": np.arange(1797) % 2 == 0}},
        {"test": np.arange(1797) < 100},
        {"names": [f"{k}.png" for k in range(1797)]},
    ],
)
def test_the_digest_follows_all_that_is_known_of_the_items(change):
    digits = load_dataset("digits")
    assert replace(digits, **change).digest() != digits.digest()


def test_gaussians_have_the_moments_asked_for():
    data = Gaussians(count=20_000).load()
    shares = np.bincount(data.labels) / len(data)
    assert shares == pytest.approx([0.4, 0.2, 0.4], abs=0.015)
    for component, mean in enumerate([(-2, -2), (0, 0), (2, 2)]):
        points = data.items.numpy()[data.labels == component]
        assert points.mean(0) == pytest.approx(mean, abs=0.07)
        assert np.cov(points.T) == pytest.approx(np.eye(2), abs=0.08)


def test_gaussians_are_vectors_drawn_by_their_own_seed():
    one, again, other = (Gaussians(count=50, draw_seed=seed).load() for seed in (0, 0, 1))
    assert (one.shape, one.levels, one.items.dtype) == ((2,), None, torch.float32)
    assert torch.equal(one.items, again.items)
    assert not torch.equal(one.items, other.items)


@pytest.mark.parametrize("weights", [[0.8, 0.4, 0.8], [0.5, 0.5], [], [1.5, -1.0, 0.5]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(UserError, match=r"data\.weights: expected 3 shares that sum to 1"):
        load_dataset({"name": "gaussians", "weights": weights})


def write_image(path, colour, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def labelled(tmp_path):
    write_image(tmp_path / "cat" / "b.png", (0, 255, 0))
    write_image(tmp_path / "cat" / "deep" / "a.PNG", (0, 0, 255))
    write_image(tmp_path / "ape" / "c.jpg", (0, 0, 0))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_sub_folders_are_classes_and_items_are_numbered_by_path(labelled):
    data = Folder(root=str(labelled), size=4).load()
    assert data.classes == ["ape", "cat"]
    assert data.labels.tolist() == [0, 1, 1]
    assert data.items.shape == (3, 3, 4, 4)
    assert data.items[:, :, 0, 0].tolist() == [[0, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_flat_folder_has_no_labels(tmp_path):
    for name, level in (("b.png", 200), ("a.png", 100)):
        write_image(tmp_path / name, level, mode="L")
    data = Folder(root=str(tmp_path), size=8, channels=1).load()
    assert data.labels is None
    assert data.classes == []
    assert data.items[:, 0, 0, 0].tolist() == [100, 200]


def test_a_grey_or_transparent_image_becomes_rgb(tmp_path):
    write_image(tmp_path / "a.png", 77, mode="L")
    write_image(tmp_path / "b.png", (1, 2, 3, 128), mode="RGBA")
    assert Folder(root=str(tmp_path), size=4).load().items[:, :, 0, 0].tolist() == [
        [77, 77, 77],
        [128, 128, 129],  # half of (1, 2, 3) over white
    ]


def test_the_largest_centred_square_is_taken(tmp_path):
    image = Image.new("L", (10, 4), 0)
    image.paste(255, (3, 0, 7, 4))
    image.save(tmp_path / "a.png")
    assert Folder(root=str(tmp_path), size=4, channels=1).load().items.min() == 255


def test_a_smaller_crop_is_taken_when_asked(tmp_path):
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (2, 2, 6, 6))
    image.save(tmp_path / "a.png")
    assert Folder(root=str(tmp_path), size=4, channels=1, crop=4).load().items.min() == 255


def test_a_folder_past_the_limit_streams_the_same_items(labelled):
    resident, lazy = (Folder(root=str(labelled), size=4, resident_mb=mb).load() for mb in (2048, 0))
    assert isinstance(lazy.items, ImageFiles)
    assert torch.equal(lazy.take(np.arange(3)), resident.items)


def test_many_items_of_a_streaming_set_are_read_by_workers_in_order(labelled, monkeypatch):
    lazy = Folder(root=str(labelled), size=4, resident_mb=0, workers=2).load()
    indices = np.random.default_rng(0).integers(0, 3, 200)
    alone = lazy.take(indices)
    monkeypatch.setattr(reading, "MANY", 100)
    monkeypatch.setattr(ImageFiles, "__getitem__", only_elsewhere(os.getpid(), ImageFiles.__getitem__))
    assert torch.equal(lazy.take(indices), alone)
    with pytest.raises(AssertionError):
        lazy.take(indices[:10])


def test_a_folder_is_gathered_by_workers_when_it_is_large(labelled, monkeypatch):
    alone = Folder(root=str(labelled), size=4).load().items
    monkeypatch.setattr(reading, "MANY", 2)
    monkeypatch.setattr(ImageFiles, "__getitem__", only_elsewhere(os.getpid(), ImageFiles.__getitem__))
    assert torch.equal(Folder(root=str(labelled), size=4, workers=1).load().items, alone)


def only_elsewhere(process, method):
    """Return ``method``, made to fail in ``process``."""

    def called(self, index):
        assert os.getpid() != process
        return method(self, index)

    return called


def test_no_items_of_a_streaming_set_are_an_empty_tensor(labelled):
    lazy = Folder(root=str(labelled), size=4, resident_mb=0).load()
    assert lazy.take(np.array([], dtype=np.int64)).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("resident_mb", [0, 2048])
def test_a_bad_image_met_by_a_worker_is_named_in_one_line(labelled, monkeypatch, resident_mb):
    monkeypatch.setattr(reading, "MANY", 2)
    broken = labelled / "cat" / "broken.png"
    broken.write_bytes(b"no png at all")
    with pytest.raises(UserError) as error:
        Folder(root=str(labelled), size=4, resident_mb=resident_mb).load().take(np.arange(4))
    assert str(error.value).startswith(f"cannot read the image {broken}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "folder", "size": 0}, "data.size must be at least 1, got 0."),
        ({"name": "folder", "crop": -3}, "data.crop must be at least 1, got -3."),
        ({"name": "folder", "channels": 2}, "data.channels must be 1 or 3, got 2."),
        ({"name": "mnist", "size": 0}, "data.size must be at least 1, got 0."),
        ({"name": "celeba", "crop": 0}, "data.crop must be at least 1, got 0."),
        ({"name": "gaussians", "count": 0}, "data.count must be at least 1, got 0."),
        ({"name": "gaussians", "draw_seed": -1}, "data.draw_seed must be at least 0, got -1."),
        ({"name": "gaussians", "means": [[0.0], [1.0]]}, "data.means: expected one [x, y] a component"),
        ({"name": "gaussians", "means": [[0.0, float("nan")]]}, "data.means[0][1]: expected a number, got nan"),
        ({"name": "gaussians", "workers": -1}, "data.workers must be at least 0, got -1."),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        DATASETS.build(settings)


def test_an_unreadable_image_is_named(labelled):
    (labelled / "cat" / "broken.png").write_bytes(b"no png at all")
    with pytest.raises(UserError, match=r"cannot read the image .*broken\.png"):
        Folder(root=str(labelled), size=4).load()


def test_a_truncated_image_is_named(labelled):
    path = labelled / "cat" / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot read the image .*b\.png"):
        Folder(root=str(labelled), size=4).load()


@pytest.mark.parametrize("root", [None, "", "nowhere"])
def test_a_missing_folder_is_refused(root):
    with pytest.raises(UserError, match=r"data\.root: say where the images are"):
        Folder(root=root).load()


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"data\.root: no image in .*\.png"):
        Folder(root=str(tmp_path)).load()
