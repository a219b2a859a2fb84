import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgm.errors import UserError
from msgm.fields import OptionalSettings, Plain, Settings, lossless, merged, natural, structured, typed

WRITTEN = ["010", "1.10", "0x1F", "yes", "1e3", "1_2", "true", "nan", ".5", "${a}", "???", "2020-01-01", "1:30"]


@pytest.mark.parametrize("text", [*WRITTEN, "~", "null"])
def test_a_field_of_text_takes_what_was_written(text):
    assert typed(Plain(text), str, "key") == text
    assert typed([Plain(text)], list[str], "key") == [text]
    assert typed(Plain(text), int | str, "key") == text
    assert typed({text: Plain(text)}, dict[str, str | list[str]], "key") == {text: text}
    assert type(typed(Plain(text), str, "key")) is str


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_a_field_that_may_be_none_is_not_set_by_nothing(text):
    assert typed(Plain(text), str | None, "key") is None
    assert typed(Plain(text), int | None, "key") is None
    assert typed(Plain(text), OptionalSettings, "key") is None
    assert typed(str(text), str | None, "key") == text


@pytest.mark.parametrize(
    ("text", "number"), [("010", 10), ("1_000", 1000), ("0x1F", 31), ("0o17", 15), ("-3", -3), ("+3", 3), (7, 7)]
)
def test_a_field_of_whole_numbers_reads_one(text, number):
    assert typed(text, int, "key") == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), (".5", 0.5), ("1.", 1.0), ("1_0.5", 10.5), ("-2", -2.0), ("inf", math.inf), (3, 3.0)],
)
def test_a_field_of_numbers_reads_one(text, number):
    found = typed(text, float, "key")
    assert found == number
    assert type(found) is float


@pytest.mark.parametrize(("text", "flag"), [("true", True), ("No", False), ("on", True), ("0", False), (True, True)])
def test_a_flag_reads_words(text, flag):
    assert typed(text, bool, "key") is flag


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("many", int, "a whole number"),
        ("1.0", int, "a whole number"),
        ("1e3", int, "a whole number"),
        (1.0, int, "a whole number"),
        (True, int, "a whole number"),
        (2**63, int, "a whole number"),
        ("9" * 29, int, "a whole number"),
        ("٢", int, "a whole number"),
        ("much", float, "a number"),
        (True, float, "a number"),
        (".nan", float, "a number"),
        ("nan", float | None, "a number"),
        (math.nan, float, "a number"),
        (math.nan, float | None, "a number"),
        ([1.0, math.nan], list[float], "a number"),
        ({"x": [Plain(".nan")]}, Any, "a number"),
        ("0x1", float, "a number"),
        ("maybe", bool, "true or false"),
        (1.0, bool, "true or false"),
        (Plain(""), str, "a text"),
        (True, str, "a text"),
        (1.5, str, "a text"),
        (None, str, "a text"),
        (Plain("a"), list[str], "a list, such as"),
        ({"a": 1}, list[str], "a list, such as"),
        ([1], dict[str, int], "settings by name"),
        (Plain("~"), Settings, "settings by name"),
        ([1], OptionalSettings, "settings by name"),
        ("c", Literal["a", "b"], "one of a, b"),
        (["a"], Literal["a", "b"], "one of a, b"),
        ([[1]], list[str], "a text"),
        ({1.5: 2}, dict[str, int], "a name"),
        ("x", tuple[float, ...], "a list"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_key(value, kind, expected):
    with pytest.raises(UserError, match=rf"^a\.key.*expected {expected}") as error:
        typed(value, kind, "a.key")
    assert "\n" not in str(error.value)


def test_a_number_is_text_where_text_is_wanted_and_kept_where_both_may_stand():
    assert typed(10, str, "key") == "10"
    assert typed([10, "a"], list[int | str], "key") == [10, "a"]
    assert typed(Plain("3"), int | float, "key") == 3
    assert typed(Plain("3.5"), int | float, "key") == 3.5
    assert typed("a/b", Path, "key") == Path("a/b")
    assert typed(["1", 2], tuple[float, ...], "key") == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("010", "010"),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("yes", True),
        ("~", None),
        ("", None),
        ("y", "y"),
        ("inf", "inf"),
        (".inf", math.inf),
        ("0x1F", 31),
        ("1_0", 10),
        ("-", "-"),
        (".", "."),
    ],
)
def test_a_field_of_anything_reads_what_yaml_would(text, value):
    found = natural({"a": [Plain(text)]})["a"][0]
    assert found == value
    assert type(found) is type(value)
    assert natural(str(text)) == text


def test_settings_of_a_part_that_nobody_built_lose_nothing():
    tree = {"a": Plain("1.10"), "b": Plain("3"), "c": Plain("~"), "d": [Plain("~")], "e": {"f": Plain("010")}, "g": 1.5}
    assert lossless(tree) == {"a": "1.10", "b": 3, "c": None, "d": ["~"], "e": {"f": "010"}, "g": 1.5}


@dataclass
class Inner:
    width: int = 3
    name: str = "in"


@dataclass
class Outer:
    needed: int
    inner: Inner = field(default_factory=lambda: Inner(width=5))
    part: Settings = field(default_factory=lambda: {"name": "a", "size": 1})
    rows: dict[str, Inner] = field(default_factory=lambda: {"one": Inner(1), "two": Inner(2)})
    free: Any = None
    names: list[str] = field(default_factory=list)


@dataclass
class Drawn:
    seed: int = 0
    draw_seed: int = 0


@dataclass
class Bounded:
    rate: float = 1.0
    rates: list[float] = field(default_factory=list)
    reach: float = math.inf


@pytest.mark.parametrize(("key", "value"), [("rate", "inf"), ("rate", -math.inf), ("rates", [1, ".inf"])])
def test_a_number_is_finite_where_its_default_is(key, value):
    with pytest.raises(UserError, match=rf"^part\.{key} must be finite, got "):
        structured(Bounded, {key: value}, "part")
    assert structured(Bounded, {"reach": "inf"}, "part").reach == math.inf


@pytest.mark.parametrize("key", ["seed", "draw_seed"])
def test_no_seed_is_negative(key):
    with pytest.raises(UserError, match=rf"^data\.{key} must be at least 0, got -1\.$"):
        structured(Drawn, {key: "-1"}, "data")


def test_settings_are_merged_over_defaults():
    made = structured(
        Outer,
        {"needed": "1", "inner": {"name": "x"}, "part": {"size": Plain("02")}, "rows": {"two": {"name": "y"}}},
        "",
    )
    assert made.inner == Inner(5, "x")
    assert made.part == {"name": "a", "size": "02"}
    assert made.rows == {"one": Inner(1), "two": Inner(2, "y")}


def test_settings_that_are_given_as_none_are_none():
    made = structured(Outer, {"needed": 1, "part": {}, "rows": {}, "inner": {}}, "")
    assert (made.part, made.rows, made.inner) == ({}, {}, Inner())


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ["top.needed", "missing"]),
        ({"needed": 1, "iner": {}}, ["top.iner: unknown setting", "Did you mean 'inner'?"]),
        ({"needed": 1, "inner": {"widht": 3}}, ["top.inner.widht", "Did you mean 'width'?"]),
        ({"needed": 1, "rows": {"one": {"width": "x"}}}, ["top.rows.one.width", "'x'"]),
        ({"needed": 1, "names": ["a", ["b"]]}, ["top.names[1]", "expected a text"]),
        ([1], ["top: expected settings by name", "a list"]),
        (None, ["top: expected settings by name", "nothing"]),
    ],
)
def test_errors_name_the_whole_key(values, parts):
    with pytest.raises(UserError) as error:
        structured(Outer, values, "top")
    assert all(part in str(error.value) for part in parts)


def test_later_settings_win_and_those_by_name_are_merged():
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
    assert merged({"a": {"b": 1}}, {"a": 3}) == {"a": 3}
    assert merged({"a": Inner(5)}, {"a": {"name": "x"}}) == {"a": {"width": 5, "name": "x"}}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text().map(Plain)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)
KINDS = [int, float, bool, str, str | None, list[str], list[int | str], list[list[float]], dict[str, Any], Settings]
KINDS += [
    OptionalSettings,
    dict[str, OptionalSettings],
    dict[str, str | list[str]],
    Literal["a", "b"],
    Any,
    Path,
    Inner,
]
KINDS += [tuple[float, ...], float | None, dict[str, Inner], int | float]


@given(TREES, st.sampled_from(KINDS))
def test_whatever_the_tree_it_is_typed_or_refused_in_one_sentence(tree, kind):
    sentence = "one line."
    try:
        typed(tree, kind, "key")
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))


@given(st.text(alphabet="\\\\${}a:.'\" "))
def test_text_that_looks_like_an_interpolation_is_text(text):
    assert structured(Inner, {"name": text}, "part").name == text


def test_nothing_of_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    for text in ("${oc.env:SECRET}", "\\\\${oc.env:SECRET}", "???"):
        assert structured(Inner, {"name": Plain(text)}, "part").name == text
