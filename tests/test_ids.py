import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgm.errors import UserError
from msgm.ids import as_id, as_index, class_number


@pytest.mark.parametrize(
    "text", ["010", "1.10", "0x1F", "yes", "~", "1e3", "1_2", "nan", "None", "${a}", "???", "ü", " a"]
)
def test_an_id_is_the_text_as_written(text):
    assert as_id(text, "request.users") == text


@given(st.text().filter(str.strip))
def test_any_text_is_its_own_id(text):
    assert as_id(text, "key") == text


@pytest.mark.parametrize(("value", "text"), [(10, "10"), (-3, "-3"), (np.int64(7), "7"), (np.uint8(8), "8")])
def test_a_whole_number_stands_for_its_decimal_text(value, text):
    found = as_id(value, "request.users")
    assert found == text
    assert type(found) is str


def test_a_text_of_numpy_becomes_plain_text():
    assert type(as_id(np.str_("u1"), "request.users")) is str


@pytest.mark.parametrize(
    "value", [True, False, None, 0.5, 1.0, float("nan"), np.float64(1), np.bool_(True), b"u1", [1], {}, ("a",), "", " "]
)
def test_what_is_neither_text_nor_a_whole_number_is_no_id(value):
    with pytest.raises(UserError, match=r"^request\.users: expected an id") as error:
        as_id(value, "request.users")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "number"), [("010", 10), ("10", 10), (" 7 ", 7), (3, 3), (np.int32(4), 4), ("-1", -1)]
)
def test_an_index_is_decimal(value, number):
    found = as_index(value, "request.indices")
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        "0x1F",
        "1_0",
        "1e3",
        "1.0",
        "+1",
        "٢",
        "²",
        "",
        "a",
        "9" * 101,
        True,
        None,
        1.0,
        1.7,
        np.float32(1),
        [1],
    ],
)
def test_what_is_no_decimal_number_is_no_index(value):
    with pytest.raises(UserError, match=r"^request\.indices: expected an index"):
        as_index(value, "request.indices")


@pytest.mark.parametrize("read", [as_id, as_index])
def test_a_number_of_thousands_of_digits_is_refused(read):
    with pytest.raises(UserError, match="got a number of thousands of digits"):
        read(10**5000, "request.users")


HALVES = ["1.0", "2.0", "3.0"]


@pytest.mark.parametrize(
    ("value", "classes", "number"),
    [
        (1, HALVES, 0),
        ("3", HALVES, 2),
        ("2.00", HALVES, 1),
        ("1", ["1", "1.0"], 0),
        ("1.0", ["1", "1.0"], 1),
        ("1", ["1", "0"], 0),
        (0, ["1", "0"], 1),
        ("-1", ["-1.0", "1.0"], 0),
        (-1, ["-1", "1"], 0),
        ("010", ["8", "010"], 1),
        ("10", ["8", "010"], 1),
        ("1000", ["1e3", "5"], 0),
        ("dog", ["cat", "dog"], 1),
        ("٢", ["2", "٢"], 1),
        ("0.1", ["0.1", "0.10000000149011612"], 0),
    ],
)
def test_a_class_is_found_by_its_name_and_else_by_the_number_it_spells(value, classes, number):
    assert class_number(value, classes, "request.labels") == number


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        ("010", ["8", "10"]),
        ("0", HALVES),
        (0, ["-1", "1"]),
        ("1", ["cat", "dog"]),
        ("٢", ["1", "2"]),
        ("²", ["1", "2"]),
        ("1e0", HALVES),
        ("+1", HALVES),
        ("1.", HALVES),
        ("0x1", HALVES),
        ("1_0", ["10"]),
        ("forg", ["frog", "cat"]),
        ("1", ["nan", "inf"]),
    ],
)
def test_what_names_no_class_is_refused_with_the_classes(value, classes):
    with pytest.raises(UserError, match=r"^request\.labels: unknown label") as error:
        class_number(value, classes, "request.labels")
    assert ", ".join(classes) in str(error.value)


def test_a_number_that_several_classes_equal_is_refused_with_them():
    with pytest.raises(UserError, match=r"'1' equals the classes 1\.0 and 01 as a number.*classes: 1\.0, 01, 2"):
        class_number(1, ["1.0", "01", "2"], "request.labels")


@pytest.mark.parametrize("value", [True, None, 1.0, float("nan"), []])
def test_a_class_is_named_by_text_or_a_whole_number(value):
    with pytest.raises(UserError, match=r"^request\.labels: expected a class"):
        class_number(value, HALVES, "request.labels")


def test_without_names_a_class_is_its_number():
    assert class_number("02", [], "request.labels") == 2
    with pytest.raises(UserError, match=r"^request\.labels: expected an index"):
        class_number("dog", [], "request.labels")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, unique=True), st.data())
def test_every_class_is_found_by_its_own_name(classes, data):
    name = data.draw(st.sampled_from(classes))
    assert classes[class_number(name, classes, "key")] == name
