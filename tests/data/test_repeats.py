import numpy as np
import pytest
import torch
from PIL import Image

from msgm.classifier.config import load_config as classifier_config
from msgm.data import DATASETS, load_dataset
from msgm.errors import UserError
from msgm.evaluation.restored import items_to_restore
from msgm.requests import ForgetRequest

TRAIN = DATASETS.build({"name": "digits"}).parts(load_dataset("digits"))["train"].tolist()
ONE, OTHER = TRAIN[4], TRAIN[9]
REPEAT = {"3": [ONE], "5": [OTHER]}


def repeated(repeat=REPEAT, **settings):
    settings = DATASETS.build({"name": "digits", "repeat": repeat, **settings})
    return settings, load_dataset(settings)


def test_copies_come_after_all_items_with_what_is_known_of_their_item():
    _, digits = repeated()
    assert (len(digits), digits.copies) == (1797 + 2 + 4, 6)
    assert digits.origin[1797:].tolist() == [ONE] * 2 + [OTHER] * 4
    assert torch.equal(digits.items[1797], digits.items[ONE])
    assert digits.labels[1797:].tolist() == digits.labels[digits.origin[1797:]].tolist()
    assert digits.distinct(np.array([ONE, 1797, 1800])).tolist() == [ONE]


def test_the_digest_tells_copies_and_their_number():
    digests = [load_dataset("digits").digest(), *(repeated(r)[1].digest() for r in ({"3": [ONE]}, {"4": [ONE]}))]
    assert len(set(digests)) == 3


def test_a_request_for_an_item_or_for_its_copy_takes_all_of_them():
    _, digits = repeated()
    for named in (ONE, 1797):
        assert np.flatnonzero(digits.forget_mask(ForgetRequest(indices=[named]))).tolist() == [ONE, 1797, 1798]
    assert digits.forget_mask(ForgetRequest(indices=[TRAIN[0]])).sum() == 1


def test_copies_lie_in_the_training_part_and_the_other_items_where_they_lay():
    settings, digits = repeated()
    parts, before = settings.parts(digits), DATASETS.build({"name": "digits"}).parts(load_dataset("digits"))
    assert parts["train"].tolist() == [*before["train"], *range(1797, 1803)]
    assert all(parts[name].tolist() == before[name].tolist() for name in ("validation", "test"))
    split = settings.split(digits, ForgetRequest(indices=[ONE]))
    assert split.train.forget.tolist() == [ONE, 1797, 1798]
    assert items_to_restore(digits, split, None)["forget"].tolist() == [ONE]


@pytest.mark.parametrize(
    ("repeat", "message"),
    [
        ({"0": [1]}, "data.repeat: expected how many times items are to stand in the data, from 1, got '0'"),
        ({"often": [1]}, "data.repeat: expected an index"),
        ({"3": [1797]}, "data.repeat.3: index 1797 is out of range; the data set has items 0 to 1796"),
        ({"3": [ONE], "4": [ONE]}, f"data.repeat.4: item {ONE} is named twice"),
    ],
)
def test_what_cannot_be_repeated_is_refused(repeat, message):
    with pytest.raises(UserError, match=message):
        repeated(repeat)


def test_a_held_out_item_cannot_be_repeated():
    held = next(k for k in range(1797) if k not in TRAIN)
    settings, digits = repeated({"3": [held]})
    with pytest.raises(UserError, match=f"data.repeat: item {held} lies in the .* part, and training items alone"):
        settings.parts(digits)


@pytest.mark.parametrize("megabytes", [0, 100])
def test_files_are_repeated_by_name_in_memory_and_streaming(tmp_path, megabytes):
    for number in range(8):
        Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(tmp_path / f"{number}.png")
    how = {"name": "folder", "root": str(tmp_path), "size": 8, "resident_mb": megabytes}
    pictures = load_dataset(how | {"repeat": {"2": ["3.png"]}})
    assert (pictures.names[-1], len(pictures)) == ("3.png", 9)
    assert torch.equal(pictures.take(np.array([8])), pictures.take(np.array([3])))
    assert np.flatnonzero(pictures.forget_mask(ForgetRequest(files=["3.png"]))).tolist() == [3, 8]
    assert [*pictures.item_digests()][8] == [*pictures.item_digests()][3]
    with pytest.raises(UserError, match="no item is named '33.png'. Did you mean '3.png'"):
        load_dataset(how | {"repeat": {"2": ["33.png"]}})


def test_classifiers_refuse_copies():
    with pytest.raises(UserError, match="data.repeat is read by generators alone"):
        classifier_config(None, ["data.repeat.3=[1]"])
