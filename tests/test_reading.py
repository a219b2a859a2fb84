"""Checked reading: whatever the bytes, a file is read as what was written or refused in one sentence."""

import json
import os
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from msgm.errors import UserError
from msgm.fields import FINITE
from msgm.reading import (
    parse_json,
    parse_yaml,
    read_headed_arrays,
    read_json,
    read_jsonl,
    read_npz,
    read_tensors,
    read_text,
    read_yaml,
)
from msgm.shapes import Count, check

IN_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TREES = st.recursive(SCALARS | TEXT, lambda below: st.lists(below) | st.dictionaries(TEXT, below), max_leaves=12)


class Row(TypedDict):
    name: str
    value: float | None
    kind: Literal["a", "b"]
    step: NotRequired[Count]


class Report(TypedDict):
    rows: list[Row]
    names: dict[str, int]


ROW = {"name": "x", "value": 1, "kind": "a"}
REPORT = {"rows": [ROW, ROW | {"value": None, "step": 0}], "names": {"x": 1}, "more": {"let": "through"}}


def refused(read, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def attempt(read, *arguments):
    """What was read, or the sentence that it was refused with."""
    try:
        return read(*arguments), ""
    except UserError as error:
        return None, str(error)


@given(TREES)
@IN_FOLDER
def test_what_json_can_say_is_read_as_it_was_written(tmp_path, tree):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(tree))
    assert read_json(path) == tree
    path.write_text("".join(json.dumps(tree) + "\n" for _ in range(3)))
    assert read_jsonl(path) == [tree] * 3


@given(st.binary())
@IN_FOLDER
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    for read in (read_json, read_jsonl, read_yaml, read_npz, read_tensors):
        found, sentence = attempt(read, path)
        assert "\n" not in sentence
        assert found is None or not sentence
        assert not sentence or str(path) in sentence


@given(st.text(alphabet="{}[]:,-?|>&*!%@`'\"#~ \n\tab01.e+x\0é\ud800"))
@settings(max_examples=200, deadline=None)
def test_any_yaml_is_read_or_refused_in_one_sentence(text):
    tree, sentence = attempt(parse_yaml, text, "a.yaml")
    assert "\n" not in sentence
    assert check(tree, Any, "again") == tree


class Writer(yaml.SafeDumper):
    """PyYAML's own, which quotes what YAML 1.2 reads as a number, 0E0, too."""


Writer.add_implicit_resolver("tag:yaml.org,2002:float", FINITE, list("-+.0123456789"))


@given(TREES)
@example({"0E0": "0E0"})
@IN_FOLDER
def test_yaml_of_plain_values_is_read_as_it_was_written(tree):
    text = yaml.dump({"tree": tree}, Dumper=Writer, allow_unicode=True)
    if "&id" not in text:
        names = json.loads(json.dumps({"tree": tree}))
        assert parse_yaml(text, "a.yaml") == names


def damaged(content: bytes):
    """A file with a byte changed, cut out or doubled, or cut short."""
    place = st.integers(0, len(content) - 1)
    flip = st.tuples(place, st.integers(1, 255)).map(
        lambda k: content[: k[0]] + bytes([content[k[0]] ^ k[1]]) + content[k[0] + 1 :]
    )
    return flip | place.map(lambda k: content[:k]) | place.map(lambda k: content[: k + 1] + content[k:])


def archive(tmp_path, save=np.savez_compressed) -> bytes:
    save(tmp_path / "good.npz", x=np.arange(6.0).reshape(2, 3), y=np.array([1, 0]))
    return (tmp_path / "good.npz").read_bytes()


@given(st.data())
@IN_FOLDER
def test_damaged_arrays_are_refused_or_of_the_right_kind(tmp_path, data):
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    path = tmp_path / "a.npz"
    path.write_bytes(data.draw(damaged(archive(tmp_path, save))))
    arrays, sentence = attempt(read_npz, path, {"x": "f 2", "y": "iu 1"})
    assert str(path) in sentence or (arrays["x"].dtype.kind, arrays["y"].ndim) == ("f", 1)


@given(st.data())
@IN_FOLDER
def test_damaged_tensors_are_refused_or_of_the_right_shape(tmp_path, data):
    like = {"w": torch.ones(2, 3), "b": torch.ones(3)}
    save_file(like, tmp_path / "good.safetensors")
    path = tmp_path / "a.safetensors"
    path.write_bytes(data.draw(damaged((tmp_path / "good.safetensors").read_bytes())))
    tensors, sentence = attempt(read_tensors, path, like)
    if tensors is None:
        assert str(path) in sentence
    else:
        assert {name: one.shape for name, one in tensors.items()} == {"w": (2, 3), "b": (3,)}
        assert all(one.isfinite().all() for one in tensors.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("{", "line 1 column 2"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "a: expected a finite number"),
        ('{"a": 1, "a": 2}', "'a' stands in it twice"),
        ('{"a": {"b": [1, 2, 3' + "0" * 5000 + "]}}", "too many digits"),
        ('{"a": {"b": [1, 3' + "0" * 30 + "]}}", "a.b[1]: expected a number of at most 64 bits"),
        ("[" * 200 + "]" * 200, "at most 100 levels"),
        ("[" * 100_000 + "]" * 100_000, "more than 100 levels"),
        (r'{"a": "\ud800"}', "a: expected text in Unicode"),
        (r'{"\ud800": 1}', "expected text in Unicode"),
        ('{"a": 1} x', "Extra data"),
    ],
)
def test_json_that_is_not_strict_is_refused_with_its_place(text, said):
    sentence = refused(parse_json, text, "a.json")
    assert sentence.startswith("a.json")
    assert said in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "a key stands in it twice (line 2, column 1)"),
        ("a: [1", "line 1"),
        ("a: &x [1]\nb: *x", "anchors are not read here (line 2, column 4)"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: .nan", "a: expected a finite number"),
        ("a: " + "1" * 5000, "a number out of range"),
        ("a: " + "[" * 150 + "]" * 150, "more than 100 levels"),
        ("a: " + "[" * 20_000, "more than 100 levels"),
        ("? [1, 2]\n: 3", "a key is no plain name"),
        ("a: \0", "a character that YAML does not allow"),
        ("a: !!binary aGk=", "expected a plain value"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_place(text, said):
    sentence = refused(parse_yaml, text, "a.yaml")
    assert sentence.startswith("a.yaml")
    assert said in sentence


def test_yaml_errors_show_nothing_of_the_file():
    assert "secret" not in refused(parse_yaml, "root:x:0:0: secret: secret\nsecret", "a.yaml")


def test_yaml_of_a_run_is_plain_text_where_it_looks_like_a_resolver_or_a_date():
    assert parse_yaml("a: ${oc.env:HOME}\nb: 2020-01-01\n1: x\nc: [1e-3, 2E5, 1.5e3]", "a") == {
        "a": "${oc.env:HOME}",
        "b": "2020-01-01",
        "1": "x",
        "c": [1e-3, 2e5, 1.5e3],
    }


def test_a_shape_lets_through_what_it_says_and_further_keys():
    assert check(REPORT, Report, "r.json") == REPORT


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([], "r.json: expected an object with names, rows, got an empty list."),
        ({"rows": []}, "r.json: names: expected an object of values by name, got nothing."),
        (REPORT | {"rows": [ROW, 3]}, "r.json: rows[1]: expected an object with kind, name, value, got 3."),
        (REPORT | {"rows": [ROW | {"value": "1"}]}, "r.json: rows[0].value: expected a number or null, got '1'."),
        (REPORT | {"rows": [ROW | {"value": True}]}, "r.json: rows[0].value: expected a number or null, got true."),
        (REPORT | {"rows": [ROW | {"kind": "c"}]}, "r.json: rows[0].kind: expected 'a' or 'b', got 'c'."),
        (REPORT | {"rows": [ROW | {"step": -1}]}, "r.json: rows[0].step: expected a whole number from 0, got -1."),
        (REPORT | {"rows": [ROW | {"name": None}]}, "r.json: rows[0].name: expected text, got null."),
        (REPORT | {"names": {"x": 1.5}}, "r.json: names.x: expected a whole number, got 1.5."),
        (REPORT | {"names": {"x": False}}, "r.json: names.x: expected a whole number, got false."),
    ],
)
def test_what_is_not_of_the_shape_is_named_with_its_key(tree, said):
    assert refused(check, tree, Report, "r.json") == said


def test_lines_of_json_are_numbered(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    assert f"{path}, line 2 is damaged" in refused(read_jsonl, path)
    path.write_text('{"a": 1}\n\n')
    assert f"{path}, line 2 is damaged: it is empty" in refused(read_jsonl, path)
    path.write_text('{"a": 1}\n{"a": 1}')
    assert "line 2 was cut" in refused(read_jsonl, path)
    path.write_text("")
    assert read_jsonl(path) == []


def test_what_is_no_file_is_refused(tmp_path):
    assert "No such file" in refused(read_json, tmp_path / "a.json")
    assert "it is a folder" in refused(read_text, tmp_path)
    assert "it is a folder" in refused(read_tensors, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_npz, read_tensors):
        assert "no regular file" in refused(read, tmp_path / "pipe")
    assert "null" in refused(read_json, tmp_path / "a\0b")
    (tmp_path / "b").write_bytes(b"ab\xff")
    assert "byte 3 is not UTF-8" in refused(read_text, tmp_path / "b")


def test_arrays_are_checked_for_kind_and_rank(tmp_path):
    archive(tmp_path)
    path = tmp_path / "good.npz"
    assert read_npz(path, {"x": "f 2"})["x"].shape == (2, 3)
    assert "the array z is missing; it holds x, y" in refused(read_npz, path, {"z": "f"})
    assert "y must hold real numbers, got int64" in refused(read_npz, path, {"y": "f"})
    assert "x must have 1 dimensions, got the shape (2, 3)" in refused(read_npz, path, {"x": "f 1"})
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    assert "plain NumPy arrays" in refused(read_npz, tmp_path / "o.npy")
    np.save(tmp_path / "one.npy", np.arange(3))
    assert read_npz(tmp_path / "one.npy")[""].tolist() == [0, 1, 2]


def test_tensors_are_checked_for_names_shapes_and_finiteness(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2), "n": torch.tensor([1.0, float("nan")])}, path)
    assert "the tensor n holds numbers that are not finite" in refused(read_tensors, path)
    save_file({"w": torch.ones(2)}, path)
    assert read_tensors(path, {"w": torch.zeros(2)})["w"].tolist() == [1, 1]
    assert "w has the shape (2,), the network's has (3,)" in refused(read_tensors, path, {"w": torch.zeros(3)})
    assert "the tensor b is missing" in refused(read_tensors, path, {"w": torch.zeros(2), "b": torch.zeros(1)})
    assert "no tensor w" in refused(read_tensors, path, {})


def test_arrays_with_a_header(tmp_path):
    path = tmp_path / "a.safetensors"
    save_arrays({"w": np.ones(2)}, path, {"msgm": '{"seed": 3}'})
    arrays, header = read_headed_arrays(path, "msgm", dict[str, Count])
    assert (arrays["w"].tolist(), header) == ([1, 1], {"seed": 3})
    assert "its header: seed: expected text, got 3" in refused(read_headed_arrays, path, "msgm", dict[str, str])
    save_arrays({"w": np.array([np.nan])}, path, {"msgm": "{}"})
    assert "the array w holds NaN" in refused(read_headed_arrays, path, "msgm", dict)
    save_arrays({"w": np.ones(2)}, path)
    assert "its header has no 'msgm'" in refused(read_headed_arrays, path, "msgm", dict)
