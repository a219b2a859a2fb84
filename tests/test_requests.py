import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.classifier.config import ClassifierConfig, RequestSettings
from msgm.config import Config, load_config
from msgm.errors import UserError
from msgm.itemlists import read_indices
from msgm.recommender.requests import RecommenderRequest
from msgm.requests import ForgetRequest
from msgm.splits import Split, make_split

CLASSES = ["cat", "dog", "frog"]
LABELS = np.array([0, 1, 2, 0, 1, 2])
SUBJECTS = {"subject": np.array(["7", "7", "8", "12", "8", "7"]), "site": np.array(list("aabbcc"))}
BANGS = np.array([True, False, False, True, False, False])


def mask_of(request: ForgetRequest, **known) -> list[int]:
    known = {
        "labels": LABELS,
        "classes": CLASSES,
        "attributes": {"Bangs": BANGS, "Smiling": ~BANGS},
        "groups": SUBJECTS,
    } | known
    return np.flatnonzero(request.select(6, **known)).tolist()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ForgetRequest(positions=[2]), [2, 5]),
        (ForgetRequest(labels=["frog"]), [2, 5]),
        (ForgetRequest(labels=["cat", "dog"]), [0, 1, 3, 4]),
        (ForgetRequest(positions=["00", "1"]), [0, 1, 3, 4]),
        (ForgetRequest(labels=("frog",)), [2, 5]),
        (ForgetRequest(indices=["005", "0"]), [0, 5]),
        (ForgetRequest(attribute="Bangs"), [0, 3]),
        (ForgetRequest(group={"subject": [7, "12"]}), [0, 1, 3, 5]),
        (ForgetRequest(group={"site": "b"}), [2, 3]),
        (ForgetRequest(indices=[5, 0]), [0, 5]),
    ],
)
def test_a_selector_picks_its_items(request_, expected):
    assert mask_of(request_) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"labels": "37"}, "request.labels: expected a list of labels, got '37'"),
        ({"labels": 3}, "request.labels: expected a list of labels, got 3"),
        ({"labels": {"3": 1}}, "request.labels: expected a list"),
        ({"indices": "10"}, "request.indices: expected a list of indices, got '10'"),
        ({"positions": None}, "request.positions: expected a list"),
        ({"files": "dog/1.png"}, "request.files: expected a list of files"),
        ({"files": [True]}, "request.files: expected a file's name"),
        ({"attribute": True}, "request.attribute: expected an attribute"),
        ({"group": "subject"}, "request.group: expected a column with its values"),
        ({"group": {"subject": {"7"}}}, "request.group.subject: expected a list of values"),
    ],
)
def test_one_text_is_not_taken_for_a_list(given, told):
    with pytest.raises(UserError, match=re.escape(told)):
        ForgetRequest(**given)


def test_an_array_or_a_range_is_a_list():
    assert mask_of(ForgetRequest(indices=range(1, 3))) == [1, 2]
    assert mask_of(ForgetRequest(indices=np.array([0, 5]))) == [0, 5]


def test_a_number_that_is_a_class_name_means_that_class():
    assert np.flatnonzero(ForgetRequest(labels=[1]).select(2, np.array([0, 1]), ["1", "0"])).tolist() == [0]


def test_a_file_lists_one_index_a_line_and_may_hold_blank_lines(tmp_path):
    (tmp_path / "ids.txt").write_text("4\n\n 1 \n")
    assert mask_of(ForgetRequest(file=str(tmp_path / "ids.txt"))) == [1, 4]


def test_a_predicate_sees_item_and_label(tmp_path):
    (tmp_path / "rule.py").write_text("def big(item, label):\n    return item >= 40 and label == 'dog'\n")
    assert mask_of(ForgetRequest(predicate=f"{tmp_path / 'rule.py'}:big"), items=lambda i: 10 * i) == [4]


def test_a_predicate_of_data_without_labels_sees_none(tmp_path):
    (tmp_path / "rule.py").write_text("def rule(item, label):\n    return label is None and item == 2\n")
    request = ForgetRequest(predicate=f"{tmp_path / 'rule.py'}:rule")
    assert mask_of(request, labels=None, items=lambda i: i) == [2]


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        (ForgetRequest(), ["exactly one of", "none"]),
        (ForgetRequest(labels=[1], indices=[2]), ["request.labels and request.indices"]),
        (ForgetRequest(labels=["forg"]), ["unknown label 'forg'", "cat, dog, frog", "Did you mean 'frog'?"]),
        (ForgetRequest(labels=[3]), ["unknown label '3'", "cat, dog, frog"]),
        (ForgetRequest(labels=[-1]), ["unknown label '-1'"]),
        (ForgetRequest(group={"sybject": [7]}), ["unknown column 'sybject'", "Did you mean 'subject'?"]),
        (ForgetRequest(group={"subject": [7, 13]}), ["request.group.subject", "no item has '13'", "12, 7, 8"]),
        (ForgetRequest(group={"subject": [7], "site": ["a"]}), ["exactly one column", "subject, site"]),
        (ForgetRequest(labels=["cat", "cat"]), ["twice"]),
        (ForgetRequest(positions=[0, "00"]), ["request.positions names a class twice: 0, 0"]),
        (ForgetRequest(positions=[3]), ["request.positions: there is no class number 3; they are 0 to 2"]),
        (ForgetRequest(positions=[-1]), ["request.positions: there is no class number -1"]),
        (ForgetRequest(attribute="Bang"), ["unknown attribute 'Bang'", "Did you mean 'Bangs'?"]),
        (ForgetRequest(indices=[6]), ["index 6 is out of range", "0 to 5"]),
        (ForgetRequest(indices=[10**30]), [f"index {10**30} is out of range", "0 to 5"]),
        (ForgetRequest(labels=["²"]), ["unknown label '²'"]),
        (ForgetRequest(indices=[-1]), ["index -1 is out of range"]),
        (ForgetRequest(indices=[2, 1, 2]), ["index 2 is given twice"]),
        (ForgetRequest(indices=[0, 1, 2, 3, 4, 5]), ["all 6 items", "nothing is left to retain"]),
        (ForgetRequest(labels=CLASSES), ["all 6 items"]),
        (ForgetRequest(file="nowhere.txt"), ["request.file", "nowhere.txt"]),
        (ForgetRequest(predicate="nowhere.py:f"), ["nowhere.py", "request.predicate: the file", "does not exist"]),
        (ForgetRequest(predicate="f"), ["path/to/file.py:function", "'f'"]),
    ],
)
def test_a_bad_request_is_refused_in_one_sentence(request_, parts):
    with pytest.raises(UserError) as error:
        mask_of(request_, items=lambda i: i)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_class_without_items_makes_an_empty_forget_set():
    with pytest.raises(UserError, match="selects no item"):
        mask_of(ForgetRequest(labels=["owl"]), classes=[*CLASSES, "owl"])


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_makes_an_empty_forget_set(tmp_path, content):
    (tmp_path / "ids.txt").write_text(content)
    with pytest.raises(UserError, match="holds no id"):
        mask_of(ForgetRequest(file=str(tmp_path / "ids.txt")))


@pytest.mark.parametrize("line", ["one", "1.5", "2 3"])
def test_a_malformed_line_is_named_with_its_number(tmp_path, line):
    (tmp_path / "ids.txt").write_text(f"0\n\n{line}\n")
    with pytest.raises(UserError, match=rf"line 3: expected an index, .*, got '{line}'"):
        read_indices(tmp_path / "ids.txt")


def test_a_binary_file_of_indices_is_refused(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="ids.txt, line 1: this is no UTF-8 text"):
        read_indices(tmp_path / "ids.txt")


def test_a_predicate_that_the_file_does_not_define_is_refused(tmp_path):
    (tmp_path / "rule.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="defines no function 'rule'"):
        mask_of(ForgetRequest(predicate=f"{tmp_path / 'rule.py'}:rule"))


def test_labels_of_unlabelled_data_are_refused():
    with pytest.raises(UserError, match="none"):
        mask_of(ForgetRequest(labels=[1]), labels=None, classes=[])


def test_a_request_describes_itself_with_goal_target_and_selector():
    text = ForgetRequest(labels=[3, 7], goal="removal", target="observed").describe()
    assert text == "removal of the observed given by labels 3, 7"


def random_mask(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(size) < 0.3


def numbers(split: Split) -> dict[str, list[int]]:
    return {name: getattr(split, name).all.tolist() for name in ("train", "validation", "test")}


def test_the_parts_are_disjoint_and_complete():
    split = make_split(random_mask(200, 1), 0.15, 0.25, seed=0)
    assert sorted(n for part in numbers(split).values() for n in part) == list(range(200))


def test_the_shares_are_what_was_asked():
    split = make_split(random_mask(200, 1), 0.15, 0.25, seed=0)
    assert [len(part) for part in numbers(split).values()] == [120, 30, 50]


def test_the_parts_are_the_same_whatever_is_forgotten():
    one, other = (make_split(random_mask(300, seed), 0.2, 0.2, seed=5) for seed in (1, 2))
    assert numbers(one) == numbers(other)


def test_the_parts_change_with_the_seed():
    one, other = (make_split(random_mask(300, 1), 0.2, 0.2, seed=seed) for seed in (0, 1))
    assert numbers(one) != numbers(other)


def test_no_forget_item_is_retained_and_none_is_lost():
    mask = random_mask(300, 3)
    split = make_split(mask, 0.2, 0.2, seed=0)
    for part in (split.train, split.validation, split.test):
        assert not mask[part.retain].any()
        assert mask[part.forget].all()
    assert sum(len(part.forget) for part in (split.train, split.validation, split.test)) == mask.sum()


def test_the_published_test_set_is_the_test_part():
    published = np.arange(100) >= 80
    split = make_split(random_mask(100, 1), 0.25, 0.9, seed=0, published_test=published)
    assert split.test.all.tolist() == list(range(80, 100))
    assert len(split.validation.all) == 20
    assert len(split.train.all) == 60


@pytest.mark.parametrize(
    ("validation", "test", "key"),
    [(0.0, 0.2, "data.validation"), (1.0, 0.2, "data.validation"), (0.2, -0.1, "data.test"), (0.5, 0.5, "below 1")],
)
def test_shares_outside_their_range_are_refused(validation, test, key):
    with pytest.raises(UserError, match=key):
        make_split(random_mask(100, 1), validation, test, seed=0)


def test_a_request_that_meets_held_out_items_alone_is_refused():
    published = np.arange(50) >= 40
    with pytest.raises(UserError, match="no training item"):
        make_split(published, 0.2, 0.2, seed=0, published_test=published)


def test_a_part_without_retain_items_is_refused():
    with pytest.raises(UserError, match="validation part has no item to retain"):
        make_split(np.array([True, False, False]), 0.1, 0.3, seed=0)


def test_a_predicate_that_fails_is_refused_with_its_item(tmp_path):
    (tmp_path / "mine.py").write_text("def bad(item, label):\n    return 1 / (item - 2)\n")
    request = ForgetRequest(predicate=f"{tmp_path}/mine.py:bad")
    with pytest.raises(UserError, match="failed on item 2: ZeroDivisionError"):
        request.select(4, items=lambda i: i)


def test_a_group_is_described_by_column_and_values():
    assert ForgetRequest(group={"subject": [7, 12]}).describe().endswith("given by group subject 7, 12")
    assert ForgetRequest(group={"subject": 17}).describe().endswith("given by group subject 17")


NAMES = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/10.png", "dog/fido.png", "10"]


def test_files_are_named_as_they_lie_in_the_folder():
    assert mask_of(ForgetRequest(files=["dog/10.png", "cat/2.png"]), names=NAMES) == [1, 3]


def test_a_file_may_list_names_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("dog/1.png\n\n10\n")
    assert mask_of(ForgetRequest(file=str(path)), names=NAMES) == [2, 5]
    path.write_bytes("\ufeffdog/1.png\r\ncat/1.png\r\n".encode())
    assert mask_of(ForgetRequest(file=str(path)), names=NAMES) == [0, 2]


def test_a_file_of_numbers_alone_lists_positions_in_a_set_of_files_too(tmp_path):
    (tmp_path / "ids.txt").write_text("4\n1\n")
    assert mask_of(ForgetRequest(file=str(tmp_path / "ids.txt")), names=NAMES) == [1, 4]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["dog/fido.PNG"], r"request\.files: no item is named 'dog/fido\.PNG'\. Did you mean 'dog/fido\.png'\?"),
        (["/data/pets/fido.png"], r"Did you mean 'dog/fido\.png'\?"),
        (["pets\\dog\\fido.png"], r"Did you mean 'dog/fido\.png'\?"),
        (["dog/1.png", "dog/1.png"], r"request\.files: 'dog/1\.png' is given twice"),
        (["4"], r"no item is named '4'"),
    ],
)
def test_a_file_that_is_no_item_is_refused_with_the_nearest(files, message):
    with pytest.raises(UserError, match=message):
        mask_of(ForgetRequest(files=files), names=NAMES)


def test_a_name_in_a_file_that_is_no_item_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("dog/fido.png\n4\n")
    with pytest.raises(UserError, match=r"request\.file: no item is named '4'"):
        mask_of(ForgetRequest(file=str(tmp_path / "names.txt")), names=NAMES)


def test_files_of_a_set_without_names_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"request\.files needs a data set of files"):
        mask_of(ForgetRequest(files=["a.png"]))


def test_many_items_are_counted_in_the_words_of_a_request():
    text = ForgetRequest(files=[f"{k}.png" for k in range(12)]).describe()
    assert text.endswith("given by files " + ", ".join(f"{k}.png" for k in range(10)) + " and 2 more")
    assert ForgetRequest(indices=list(range(10))).describe().endswith("7, 8, 9")
    assert ForgetRequest(labels=[str(k) for k in range(12)]).describe().endswith("10, 11")


def test_indices_of_a_file_are_decimal_however_it_was_written(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b'\xef\xbb\xbf010\r\n\r\n "7" \r\n03')
    assert read_indices(tmp_path / "ids.txt") == [10, 7, 3]


@pytest.mark.parametrize("line", ["1_0", "٣", "0x1F", "1e1", '"1","2"', "3,4"])
def test_other_ways_to_write_numbers_are_no_indices(tmp_path, line):
    (tmp_path / "ids.txt").write_text(f"0\n\n{line}\n")
    with pytest.raises(UserError, match="line 3: expected"):
        read_indices(tmp_path / "ids.txt")


MASK = [True, False, False, False, False, True]


@pytest.mark.parametrize(
    "mask", [MASK, tuple(MASK), np.array(MASK), torch.tensor(MASK)], ids=["list", "tuple", "array", "tensor"]
)
def test_a_mask_is_its_items(mask):
    request = ForgetRequest(mask=mask)
    assert mask_of(request) == [0, 5]
    assert mask_of(replace(request, goal="removal")) == [0, 5]
    assert request.describe() == "suppression of the concept given by mask of 2 items"
    assert (request.named, request.selector()) == (True, "mask")


@pytest.mark.parametrize("mask", [[0, 5], ["a"], [[True, False]], True, np.array([0.0, 1.0])])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(UserError, match="request.mask: expected a list of booleans"):
        ForgetRequest(mask=mask)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(UserError, match="expected one boolean for each of 6 items, got 2"):
        mask_of(ForgetRequest(mask=[True, False]))
    with pytest.raises(UserError, match="selects no item"):
        mask_of(ForgetRequest(mask=[False] * 6))


def test_a_mask_that_is_changed_afterwards_changes_no_request():
    mask = np.array(MASK)
    request = ForgetRequest(mask=mask)
    mask[:] = False
    request.select(6)[:] = False
    assert mask_of(request) == [0, 5]


def test_a_predicate_may_be_a_function():
    def of_dogs(item, label):
        return item > 1 and label == "dog"

    assert mask_of(ForgetRequest(predicate=of_dogs), items=lambda i: i) == [4]
    assert ForgetRequest(predicate=of_dogs).describe().endswith("given by predicate in Python")
    with pytest.raises(UserError, match="request.predicate: of_dogs failed on item 0: TypeError"):
        mask_of(ForgetRequest(predicate=of_dogs), items=lambda i: None)


def test_two_selectors_of_python_are_refused():
    with pytest.raises(UserError, match="found request.labels and request.mask"):
        mask_of(ForgetRequest(mask=MASK, labels=["dog"]))


@pytest.mark.parametrize("given", [{"mask": MASK}, {"dataset": "digits"}, {"predicate": len}])
def test_a_config_refuses_what_it_could_not_hold(given):
    for made in (
        lambda: Config(request=ForgetRequest(**given)),
        lambda: ClassifierConfig(requests={"all": RequestSettings(**given)}),
    ):
        with pytest.raises(UserError, match=rf"request\w*\.(all\.)?{next(iter(given))}: a config cannot hold it"):
            made()


@pytest.mark.parametrize("name", ["mask", "dataset"])
def test_no_setting_is_for_python_alone(name):
    with pytest.raises(UserError, match=f"request.{name}: unknown setting"):
        load_config({"request": {name: [True]}})
    assert name not in load_config({}).to_dict()["request"]


def test_recommenders_refuse_what_is_for_items_of_a_data_set():
    with pytest.raises(UserError, match="request.mask is not for recommenders"):
        RecommenderRequest(mask=MASK, users=["a"]).deletion(None, None)


@pytest.mark.parametrize(
    ("given", "lists"),
    [({"labels": [1]}, False), ({"group": {"a": 1}}, False), ({"indices": [1]}, True), ({"mask": MASK}, True)],
)
def test_a_request_by_item_names_no_kind(given, lists):
    assert ForgetRequest(**given).by_item == lists


def test_a_request_says_what_it_means():
    assert ForgetRequest(labels=[3], means="condition").describe().endswith("given by labels 3, as a condition")
    assert ForgetRequest(labels=[3], means="items").describe().endswith("given by labels 3, under every condition")
    assert ForgetRequest(labels=[3]).describe().endswith("given by labels 3")


def test_a_classifier_is_asked_for_no_condition():
    with pytest.raises(UserError, match="^request.means: 'both' is said to class-conditional generators"):
        RequestSettings(labels=["3"], means="both")
