"""Kills and damaged files, few of them: scripts/bench/faults.py has found nothing, and finds what is wrong."""

import importlib.util
import random
import sys

import pytest

from msgm.recommender.service import Service
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", ROOT / "scripts" / "bench" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(faults, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    faults.build(folder)
    return folder


def test_few_damaged_files_are_all_refused_or_read(faults, place, monkeypatch):
    few = faults.specimens(place)[::3]
    monkeypatch.setattr(faults, "specimens", lambda place: few)
    records = faults.malform(place, len(few), random.Random(2))
    assert {record["verdict"] for record in records} <= {"refused", "read"}
    assert sum(record["verdict"] == "refused" for record in records) > len(few) / 2


@pytest.mark.parametrize("name", ["train", "sample", "recommender forget"])
def test_a_killed_command_goes_on(faults, place, name, monkeypatch):
    monkeypatch.setattr(faults, "tasks", lambda place, every=faults.tasks: {name: every(place)[name]})
    assert all(not record["faults"] for record in faults.kill(place, 2, random.Random(3)))


def test_ids_and_strays_that_stay_are_found(faults, place, tmp_path):
    task = faults.tasks(place)["recommender forget"]
    out = tmp_path / "served"
    task.begin(out)
    Service(out).forget("users", faults.FORGOTTEN)
    leaves, done = faults._leaves(task, out), faults.Ended(0, "", 0.0)
    assert not faults._faults(task, out, leaves, done)
    (out / ".ids.json.abc").write_text(faults.FORGOTTEN[1])
    (out / "recommender.safetensors").unlink()
    found = faults._faults(task, out, leaves, done)
    assert [fault.split(":")[0] for fault in found] == ["loss", "stray", "id"]


@pytest.mark.slow
def test_many_kills_and_damaged_files(faults, tmp_path):
    assert not any(faults.measure(tmp_path, 32, 152, seed=5)["summary"].values())
