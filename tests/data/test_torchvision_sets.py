import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from msgm.data import load_dataset
from msgm.errors import RunError, UserError
from msgm.requests import ForgetRequest

needs_data = pytest.mark.skipif(
    "MSGM_DATA" not in os.environ, reason="the variable MSGM_DATA names no folder of data sets"
)
NAMES = ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba"]


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_refused_with_the_key_and_the_way_to_fetch_them(name, tmp_path):
    with pytest.raises(UserError) as error:
        load_dataset({"name": name, "root": str(tmp_path)})
    assert str(tmp_path) in str(error.value)
    assert "data.root" in str(error.value)
    assert "data.download=true" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_without_root_and_variable_the_key_is_named(name, monkeypatch):
    monkeypatch.delenv("MSGM_DATA", raising=False)
    with pytest.raises(UserError, match=r"data\.root.*MSGM_DATA"):
        load_dataset(name)


def test_the_variable_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MSGM_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match="elsewhere"):
        load_dataset("mnist")


def test_a_failed_download_is_a_failed_run(tmp_path, monkeypatch):
    def refuse(self):
        raise RuntimeError("Error downloading train-images")

    monkeypatch.setattr(datasets.MNIST, "download", refuse)
    with pytest.raises(RunError, match="could not download mnist"):
        load_dataset({"name": "mnist", "root": str(tmp_path), "download": True})


@needs_data
def test_real_mnist_has_70000_items_and_its_own_test_set():
    mnist = load_dataset("mnist")
    assert mnist.items.shape == (70_000, 1, 28, 28)
    assert mnist.items.dtype == torch.uint8
    assert mnist.test.sum() == 10_000
    assert mnist.test[60_000:].all()
    assert mnist.classes == [str(k) for k in range(10)]
    assert mnist.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.labels[60_000:60_005].tolist() == [7, 2, 1, 0, 4]
    assert (mnist.items.min(), mnist.items.max()) == (0, 255)


@needs_data
def test_real_mnist_is_resized_when_asked():
    mnist = load_dataset({"name": "mnist", "size": 14})
    assert mnist.shape == (1, 14, 14)
    assert mnist.items.shape == (70_000, 1, 14, 14)


def test_mnist_joins_both_parts(tmp_path, monkeypatch):
    def fake(root, download, train):
        size = 6 if train else 2
        images, labels = torch.full((size, 28, 28), 9, dtype=torch.uint8), torch.arange(size)
        return SimpleNamespace(data=images, targets=labels, classes=["0 - zero", "1 - one"])

    monkeypatch.setattr(datasets, "MNIST", fake)
    data = load_dataset({"name": "mnist", "root": str(tmp_path)})
    assert data.items.shape == (8, 1, 28, 28)
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert data.classes == ["0", "1"]
    assert data.test.tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_images_come_channels_first(tmp_path, monkeypatch, name):
    def fake(root, download, train):
        images = np.zeros((3, 32, 32, 3), dtype=np.uint8)
        images[..., 2] = 50 if train else 60
        return SimpleNamespace(data=images, targets=[0, 1, 2], classes=["plane", "car", "bird"])

    monkeypatch.setattr(datasets, name.upper(), fake)
    data = load_dataset({"name": name, "root": str(tmp_path)})
    assert data.items.shape == (6, 3, 32, 32)
    assert data.items[:, :, 0, 0].tolist() == [[0, 0, 50]] * 3 + [[0, 0, 60]] * 3
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.test.tolist() == [False] * 3 + [True] * 3


def test_svhn_is_read_from_matlab_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    for part, count in (("train", 3), ("test", 2)):
        images = np.zeros((32, 32, 3, count), dtype=np.uint8)
        images[0, 1, 2] = 10 * np.arange(count)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": np.array([[10], [1], [9]][:count])})
    data = load_dataset({"name": "svhn", "root": str(tmp_path)})
    assert data.items.shape == (5, 3, 32, 32)
    assert data.items[:, 2, 0, 1].tolist() == [0, 10, 20, 0, 10]
    assert data.labels.tolist() == [0, 1, 9, 0, 1]
    assert data.test.tolist() == [False] * 3 + [True] * 2


def test_stl10_reads_labelled_parts_and_resizes(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda *arguments: True)
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    (folder / "fold_indices.txt").write_text("0 1\n" * 10)
    for part, count in (("train", 4), ("test", 3)):
        (folder / f"{part}_X.bin").write_bytes(np.full(count * 3 * 96 * 96, count, dtype=np.uint8).tobytes())
        (folder / f"{part}_y.bin").write_bytes(np.array([1, 2, 1, 2][:count], dtype=np.uint8).tobytes())
    data = load_dataset({"name": "stl10", "root": str(tmp_path), "size": 32})
    assert data.items.shape == (7, 3, 32, 32)
    assert data.items[:, 0, 0, 0].tolist() == [4] * 4 + [3] * 3
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert data.classes == ["airplane", "bird"]
    assert data.test.sum() == 3


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Five faces of CelebA's form: training items 1 to 3, a validation item and a test item."""
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"00000{k}.jpg" for k in range(1, 6)]
    for number, name in enumerate(names):
        Image.new("RGB", (178, 218), (40 * number, 0, 0)).save(folder / "img_align_celeba" / name)

    def table(file, columns, values):
        head = "" if columns is None else f"5\n{columns}\n"
        rows = [f"{name} {value}\n" for name, value in zip(names, values, strict=True)]
        (folder / file).write_text(head + "".join(rows))

    table("list_eval_partition.txt", None, [0, 0, 0, 1, 2])
    table("identity_CelebA.txt", None, [1, 2, 3, 4, 5])
    table("list_bbox_celeba.txt", "image_id x_1 y_1 width height", ["0 0 9 9"] * 5)
    table("list_landmarks_align_celeba.txt", "lefteye_x lefteye_y", ["1 1"] * 5)
    table("list_attr_celeba.txt", "Bangs Smiling ", ["1 -1", "-1 -1", "1 1", "-1 1", "-1 1"])
    return tmp_path


def test_celeba_has_attributes_and_counts_its_validation_part_as_training(faces):
    data = load_dataset({"name": "celeba", "root": str(faces)})
    assert data.items.shape == (5, 3, 64, 64)
    assert data.items[4, :, 32, 32].tolist() == pytest.approx([160, 0, 0], abs=3)
    assert data.test.tolist() == [False] * 4 + [True]
    assert list(data.attributes) == ["Bangs", "Smiling"]
    assert data.attributes["Bangs"].tolist() == [True, False, True, False, False]


def test_celeba_streams_when_it_is_too_large(faces):
    data = load_dataset({"name": "celeba", "root": str(faces), "resident_mb": 0, "size": 16})
    assert not isinstance(data.items, torch.Tensor)
    assert data.take(np.array([2, 0])).shape == (2, 3, 16, 16)


def test_faces_are_asked_for_by_the_names_of_their_files(faces):
    data = load_dataset({"name": "celeba", "root": str(faces)})
    request = ForgetRequest(files=["000002.jpg", "000005.jpg"])
    assert data.forget_mask(request).tolist() == [False, True, False, False, True]
    assert data.content(1) == (faces / "celeba" / "img_align_celeba" / "000002.jpg").read_bytes()


def test_a_person_is_asked_for_where_identities_are_read(faces):
    data = load_dataset({"name": "celeba", "root": str(faces), "identities": True})
    assert data.forget_mask(ForgetRequest(group={"identity": [2, 5]})).tolist() == [False, True, False, False, True]
    with pytest.raises(UserError, match=r"unknown column 'identity'"):
        load_dataset({"name": "celeba", "root": str(faces)}).forget_mask(ForgetRequest(group={"identity": 2}))


@pytest.mark.parametrize("resident_mb", [0, 2048])
def test_a_crop_larger_than_a_face_is_refused(faces, resident_mb):
    with pytest.raises(UserError, match=r"000001\.jpg has 178x218 pixels, fewer than data\.crop 200"):
        load_dataset({"name": "celeba", "root": str(faces), "crop": 200, "resident_mb": resident_mb})
