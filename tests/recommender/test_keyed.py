"""Comparisons of requests by ids keep no id in their folder."""

import json
import re

import pytest

from msgm.reading import read_json, read_yaml

pytestmark = pytest.mark.usefixtures("rendered")

CONFIG = """
name: tiny
seeds: 1
data: {name: table, path: LOG}
models: {ease: {}}
metrics: [ranking]
requests:
  people: {users: [zoe, "007"]}
  things: {items: [teapot]}
  pairs: {interactions: [[adam, kettle]]}
"""
USERS, ITEMS = ["zoe", "007", "adam", "eve", "bob", "joe"], ["teapot", "kettle", "lamp", "chair", "rug", "bed", "desk"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from msgm.cli import main

    place = tmp_path_factory.mktemp("keyed")
    cells = [(u, i) for n, u in enumerate(USERS) for m, i in enumerate(ITEMS) if (n + m) % 3 or u == "adam"]
    (place / "log.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in cells))
    (place / "c.yaml").write_text(CONFIG.replace("LOG", str(place / "log.csv")))
    assert main(again(place)) == 0
    return place


def again(place):
    chosen = ["--only", "do-nothing,retrain,native", "--out", str(place / "run")]
    return ["recommender", "compare", str(place / "c.yaml"), *chosen]


def written(folder):
    return {path: path.read_bytes().decode(errors="replace") for path in (folder / "run").rglob("*") if path.is_file()}


def test_no_id_of_a_request_stands_in_any_file(folder):
    for path, text in written(folder).items():
        assert not re.search(r"(?<![\w.])(zoe|007|adam|teapot|kettle)\b", text), path  # 0.007 is a time


def test_settings_and_records_hold_the_same_digests(folder):
    stored = read_yaml(folder / "run" / "config.yaml")["requests"]
    assert [text.startswith("keyed:") for text in stored["people"]["users"]] == [True, True]
    for name in ("people", "things", "pairs"):
        record = read_json(folder / "run" / "records" / "ease" / name / "native.json")
        assert record["made"]["request"] == stored[name]


def test_the_same_command_goes_on_by_the_digests(folder, cli):
    assert cli(*again(folder)).out.count(": kept") == 9


def test_records_of_the_first_version_are_kept_and_lose_their_ids(folder, cli):
    place = folder / "run" / "records" / "ease" / "people" / "native.json"
    record = read_json(place)
    record["made"]["request"]["users"] = ["zoe", "007"]
    place.write_text(json.dumps(record))
    assert cli(*again(folder)).out.count(": kept") == 9
    test_no_id_of_a_request_stands_in_any_file(folder)
