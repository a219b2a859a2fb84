"""The cache of retrained models: what is kept comes back whole, or not at all."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from msgm.cache import Cache, Model, name_of
from msgm.errors import UserError

PARTS = ("log.txt", "checkpoints")


def model(**changes) -> Model:
    facts = {"what": "a model", "request": "removal of 3", "data_digest": "d1g35t", "items": 10}
    return Model(**(facts | {"seen": np.array([0, 1, 2, 5]), "facts": {"seconds": 2.5}} | changes))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder that was trained."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "weights").write_bytes(b"weights")
    (folder / "log.txt").write_text("loss\n")
    return folder


@pytest.fixture
def cache(own_cache, run) -> Cache:
    """A cache with the model of ``run`` as ``one``."""
    made = Cache.of_user()
    assert made.folder == own_cache
    made.keep("one", model(), run, PARTS)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_kept_comes_back_whole(cache, run, tmp_path):
    taken = cache.take("one", tmp_path / "other", PARTS)
    assert contents(tmp_path / "other") == contents(run)
    assert (taken.model.facts, taken.model.seen.tolist()) == ({"seconds": 2.5}, [0, 1, 2, 5])
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_copy_shares_no_file_with_the_cache(cache, tmp_path):
    cache.take("one", tmp_path / "other", PARTS)
    with (tmp_path / "other" / "log.txt").open("a") as file:
        file.write("more\n")
    assert cache.take("one", tmp_path / "third", PARTS) is not None


def test_another_name_is_absent(cache, tmp_path):
    assert cache.take("two", tmp_path / "other", PARTS) is None
    assert not (tmp_path / "other").exists()


def damages() -> dict:
    def edit(entry: Path, **changes) -> None:
        tree = json.loads((entry / "entry.json").read_text())
        (entry / "entry.json").write_text(json.dumps(tree | changes))

    return {
        "another byte": lambda entry: (entry / "files/checkpoints/step-1/weights").write_bytes(b"weightz"),
        "a missing file": lambda entry: (entry / "files/log.txt").unlink(),
        "a cut record": lambda entry: (entry / "entry.json").write_text("{"),
        "no record": lambda entry: (entry / "entry.json").unlink(),
        "no seconds": lambda entry: edit(entry, facts={}),
        "items out of range": lambda entry: edit(entry, seen="0-10"),
        "a path that leads out": lambda entry: edit(entry, files={"../../../secret": "0"}),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_entry_counts_as_absent_and_is_replaced(cache, run, tmp_path, capsys, damage):
    damages()[damage](cache.folder / "retrained" / "one")
    assert cache.take("one", tmp_path / "other", PARTS) is None
    assert "note: the cache is damaged, and the model is trained again: " in capsys.readouterr().out
    assert not (tmp_path / "other" / "checkpoints").exists()
    cache.keep("one", model(), run, PARTS)
    assert cache.take("one", tmp_path / "other", PARTS) is not None


def test_a_whole_entry_is_not_written_again(cache, run):
    record = cache.folder / "retrained" / "one" / "entry.json"
    before = record.stat().st_ino
    cache.keep("one", model(), run, PARTS)
    assert record.stat().st_ino == before


def test_a_cache_that_cannot_be_written_is_a_line(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    Cache(tmp_path / "file").keep("one", model(), run, PARTS)
    assert "note: the retrained model is not kept in the cache: " in capsys.readouterr().out


def keep_many(folder: Path, run: Path) -> int:
    for _ in range(5):
        Cache(folder).keep("one", model(), run, PARTS)
        assert Cache(folder).take("one", run.parent / f"taken-{os.getpid()}", PARTS) is not None
    return len(Cache(folder).entries())


def test_processes_may_keep_the_same_model_at_once(own_cache, run):
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        counts = [pool.submit(keep_many, own_cache, run) for _ in range(3)]
        assert [count.result() for count in counts] == [1, 1, 1]
    left = [path.name for path in (own_cache / "retrained").iterdir()]
    assert left == ["one"]


def test_an_entry_knows_which_items_it_saw(cache):
    (found,) = cache.entries()
    assert found.saw(np.array([3, 5]))
    assert not found.saw(np.array([3, 4]))
    assert not found.saw(np.array([], dtype=int))


def test_entries_are_removed_by_name_or_all(cache, run):
    cache.keep("two", model(what="another"), run, PARTS)
    with pytest.raises(UserError, match="has no entry 'three'; msgm cache lists what it has"):
        cache.remove(["one", "three"])
    assert [found.model.what for found in cache.entries()] == ["a model", "another"]
    assert [path.name for path in cache.remove(["one"])] == ["one"]
    (cache.folder / "retrained" / "two" / "entry.json").write_text("{")
    assert [path.name for path in cache.clear()] == ["two"]
    assert list((cache.folder / "retrained").iterdir()) == []


def test_the_name_is_a_hash_of_all_parts():
    assert name_of({"a": 1, "b": [2]}) == name_of({"b": [2], "a": 1}) != name_of({"a": 1, "b": [3]})
    assert len(name_of({})) == 32


def test_the_command_lists_and_removes(cli, cache):
    listed = cli("cache")
    assert listed.code == 0
    assert ": a model; without removal of 3\n1 retrained model, 0 MB in" in listed.out
    assert cli("cache", "--delete", "two").code == 2
    assert cli("cache", "--delete", "one").out.endswith(f"0 retrained models, 0 MB in {cache.folder}\n")
    assert cli("cache", "--clear").code == 0
