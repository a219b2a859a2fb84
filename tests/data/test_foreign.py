"""Data that other libraries hold: each form gives the same levels, labels and classes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import Compose, Grayscale, RandomHorizontalFlip, ToTensor

from msgm.data import Digits, load_dataset
from msgm.data import foreign as module
from msgm.data.adapters import given
from msgm.errors import UserError
from msgm.requests import ForgetRequest

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 5, 6), dtype=np.uint8)
LABELS = [k % 3 for k in range(12)]
SHAPE = (1, 5, 6)


class Pairs(torch.utils.data.Dataset):
    """A data set as most people write it."""

    def __init__(self, images=GREY, labels=LABELS, transform=None):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


class Table:
    """What a Hugging Face ``Dataset`` looks like: rows by column name, and features that name classes."""

    def __init__(self, names=None, **columns):
        self.columns = columns
        self.column_names = list(columns)
        self.features = {name: SimpleNamespace(names=names if name == "label" else None) for name in columns}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.columns.items()}


def pictures(mode="L"):
    return [Image.fromarray(image).convert(mode) for image in GREY]


def read(source, shape=SHAPE, **options):
    return given(source, shape, **options).dataset


FORMS = {
    "pairs of uint8 arrays": lambda: Pairs(),
    "pairs of pictures": lambda: Pairs(pictures()),
    "ToTensor": lambda: Pairs(GREY[:, :, :, None], transform=ToTensor()),
    "normalised": lambda: Pairs(GREY[:, :, :, None], transform=lambda x: ToTensor()(x) * 2 - 1),
    "tensors": lambda: TensorDataset(torch.from_numpy(GREY)[:, None], torch.tensor(LABELS)),
    "numpy pair": lambda: (GREY, np.array(LABELS)),
    "torch pair": lambda: (torch.from_numpy(GREY), torch.tensor(LABELS)),
    "lists": lambda: (pictures(), LABELS),
    "channels last": lambda: (GREY[..., None], LABELS),
    "columns": lambda: Table(image=pictures(), label=LABELS),
    "a subset": lambda: Subset(Pairs(np.concatenate([GREY, GREY]), LABELS * 2), list(range(12))),
    "int64": lambda: (GREY.astype(np.int64), LABELS),
    "double": lambda: (GREY / 255, LABELS),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_form_is_the_same_data(form):
    data = read(form())
    assert data.items.dtype == torch.uint8
    assert torch.equal(data.items, torch.from_numpy(GREY)[:, None])
    assert (data.shape, data.levels) == (SHAPE, 256)
    assert data.labels.tolist() == LABELS
    assert np.flatnonzero(data.forget_mask(ForgetRequest(labels=[1]))).tolist() == [1, 4, 7, 10]


def test_the_digits_as_arrays_are_the_digits():
    own = load_dataset("digits")
    data = read((own.items.numpy(), own.labels), own.shape, levels=17)
    assert torch.equal(data.items, own.items)
    assert data.levels == 17
    scaled = read((own.items / 16, own.labels), own.shape, levels=17)
    assert torch.equal(scaled.items, own.items)


def test_colour_images_may_have_their_channels_last():
    colours = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    expected = torch.from_numpy(colours).permute(0, 3, 1, 2)
    assert torch.equal(read(colours, (3, 5, 6)).items, expected)
    assert torch.equal(read(expected, (3, 5, 6)).items, expected)
    assert torch.equal(read([Image.fromarray(image) for image in colours], (3, 5, 6)).items, expected)


def test_images_without_labels_are_data_too():
    for source in (GREY, torch.from_numpy(GREY), [*GREY], TensorDataset(torch.from_numpy(GREY)), Table(image=GREY)):
        data = read(source)
        assert data.labels is None
        assert len(data) == 12


def test_vectors_stay_numbers():
    points = RNG.normal(size=(7, 2))
    data = read((points, [0] * 6 + [1]), (2,))
    assert data.levels is None
    assert data.items.dtype == torch.float32
    assert np.allclose(data.items.numpy(), points)


@pytest.mark.parametrize(
    ("source", "classes", "labels"),
    [
        (lambda: Table(names=["cat", "dog", "frog"], image=GREY, label=LABELS), ["cat", "dog", "frog"], ["dog"]),
        (lambda: (GREY, ["frog", "dog", "cat"] * 4), ["cat", "dog", "frog"], ["dog"]),
        (lambda: FakeData(12, (1, 5, 6), 3, Compose([Grayscale(), ToTensor()])), [], [1]),
        (lambda: Pairs(), [], [1]),
    ],
)
def test_classes_have_their_names(source, classes, labels):
    data = read(source())
    assert data.classes == classes
    data.forget_mask(ForgetRequest(labels=labels))


def test_the_classes_of_torchvisions_mnist_go_by_their_digits():
    pairs = Pairs()
    pairs.classes = ["0 - zero", "1 - one", "2 - two"]
    assert read(pairs).classes == ["0", "1", "2"]
    pairs.classes = ["zero", "one", "two"]
    assert read(pairs).classes == ["zero", "one", "two"]


def test_torchvisions_folders_and_a_path_are_read(tmp_path):
    for kind, k in (("cat", 0), ("dog", 1)):
        (tmp_path / kind).mkdir()
        for n in range(3):
            Image.fromarray(np.full((6, 6), 100 * k + n, dtype=np.uint8)).save(tmp_path / kind / f"{n}.png")
    theirs = read(ImageFolder(str(tmp_path), Compose([Grayscale(), ToTensor()])), (1, 6, 6))
    for path in (tmp_path, str(tmp_path)):
        found = given(path, (1, 6, 6), flip=True)
        assert torch.equal(found.dataset.items, theirs.items)
        assert found.dataset.classes == theirs.classes == ["cat", "dog"]
        assert found.settings is None
        assert found.dataset.flip
        assert found.dataset.forget_mask(ForgetRequest(files=["dog/1.png"])).nonzero()[0].tolist() == [4]


def test_columns_are_named():
    table = Table(picture=GREY, kind=LABELS)
    assert read(table, columns=("picture", "kind")).labels.tolist() == LABELS
    assert read(table, columns=("picture", None)).labels is None
    for columns, said in ((None, "no column 'image'; columns are picture, kind"), (("pictur", None), "mean 'picture'")):
        with pytest.raises(UserError, match=f"fit.columns: .*{said}"):
            read(table, columns=columns)


def test_a_real_hugging_face_data_set_is_read():
    datasets = pytest.importorskip("datasets", reason="datasets is optional and not installed")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    data = read(datasets.Dataset.from_dict({"image": pictures(), "label": LABELS}, features=features))
    assert torch.equal(data.items, torch.from_numpy(GREY)[:, None])
    assert data.classes == ["a", "b", "c"]


def test_a_set_too_large_to_hold_is_read_item_by_item(monkeypatch):
    held = read(Pairs(pictures()))
    monkeypatch.setattr(module, "RESIDENT", 100)
    for source in (Pairs(pictures()), Pairs(GREY[:, :, :, None], transform=ToTensor())):
        data = read(source)
        assert not isinstance(data.items, torch.Tensor)
        assert torch.equal(data.take(np.arange(12)), held.items)
        assert list(data.item_digests()) == list(held.item_digests())
        assert np.array_equal(data.labels, held.labels)


class Iterable:
    def __iter__(self):
        return iter(GREY)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Iterable(), "with a length and items by number, got a Iterable"),
        (3, "got a int"),
        ([], "it has no item"),
        ((GREY, LABELS[:3]), "12 images and 3 labels are no pairs"),
        ((GREY, LABELS, LABELS), r"expected a tuple \(images, labels\)"),
        (GREY[:, :4], r"item 0 has shape \(4, 6\), and the model makes items of shape \(1, 5, 6\)"),
        ([*GREY[:3], GREY[0, :2]], r"item 3 has shape \(2, 6\)"),
        (GREY * 1.0, "numbers from 0 to 255; expected levels as whole numbers"),
        (GREY.astype(np.int32) - 9, "are no levels 0 to 255"),
        (np.full(GREY.shape, np.inf), "is not finite"),
        (Pairs(pictures("RGBA")), "item 0 is a picture of mode RGBA; convert it to RGB or L"),
        (["a"], "item 0 is no image but 'a'"),
        (Pairs(labels=[1.5] * 12), "item 0 has the label 1.5; expected a class number"),
        (Pairs(labels=[0] * 11 + [-1]), "item 11 has the label -1"),
        (Pairs(labels=[0, "a"] * 6), "item 1 has the label 'a'"),
        (Table(names=["a"], image=GREY, label=LABELS), "item 2 is of class 2, and there are 1 names"),
        ([(GREY[0], 1, 2)], "item 0 has 3 parts"),
        ({"train": 1, "test": 2}, "got several by name: train, test"),
        ("digts", "'digts' is no folder, and no data set: .*Did you mean 'digits'"),
    ],
)
def test_what_cannot_be_read_is_refused(source, said):
    with pytest.raises(UserError, match=said):
        read(source)


@pytest.mark.parametrize("levels", [1, 257])
def test_levels_are_between_2_and_256(levels):
    with pytest.raises(UserError, match="fit.levels must lie between 2 and 256"):
        read(GREY, levels=levels)


def test_random_transforms_are_refused():
    flipped = Pairs(GREY[:, :, :, None], transform=Compose([ToTensor(), RandomHorizontalFlip()]))
    with pytest.raises(UserError, match="is another one each time it is read"):
        read(flipped)


def test_a_folder_needs_a_square_shape(tmp_path):
    with pytest.raises(UserError, match=r"square images, and the model makes items of shape \(1, 5, 6\)"):
        read(tmp_path)


@pytest.mark.parametrize("source", ["digits", Digits(), load_dataset("digits")])
def test_what_a_data_set_says_itself_is_no_option(source):
    for options in ({"levels": 17}, {"columns": ("a", None)}, {"flip": True}):
        with pytest.raises(UserError, match=f"fit.{next(iter(options))}: this data set says it itself"):
            read(source, (1, 8, 8), **options)


def test_items_to_forget_may_be_in_another_form():
    data = read((GREY, LABELS))
    for few in (GREY[[7, 2]], (GREY[[7, 2]] / 255, [0, 0]), Pairs(pictures()[2:8:5])):
        assert data.forget_mask(ForgetRequest(dataset=few)).nonzero()[0].tolist() == [2, 7]
