"""Comparisons that share retrained models through the cache."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import msgm
from msgm import cache_keys
from msgm.cache import Cache
from msgm.chain import Chain, Entry
from msgm.config import load_config
from msgm.data import load_dataset
from msgm.diffusion import PROCESSES
from msgm.diffusion.networks import NETWORKS
from msgm.objectives import OBJECTIVES
from msgm.training.retrained import is_shared, parts_of
from msgm.training.run import split_data
from msgm.training.trainer import Trainer
from tests.conftest import DIGITS, settings
from tests.generator.test_cells import SMALL
from tests.helpers import edit_unloaded

ONLY = ["--only", "do-nothing,unseen-scratch", "--device", "cpu"]
OF_SEEDS = ["unseen-scratch", "seed-1", "retrained-1", "retrained-2"]


def arguments(out: Path, *more: str) -> list[object]:
    return ["compare", DIGITS, *settings([*SMALL, *more]), *ONLY, "--out", out]


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Names of the runs that take a step, in order."""
    found: list[str] = []
    step = Trainer._step

    def noted(trainer: Trainer, *inputs) -> None:
        name = trainer.run.path.name
        found.extend([name] if name not in found else [])
        step(trainer, *inputs)

    monkeypatch.setattr(Trainer, "_step", noted)
    return found


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


def test_a_second_comparison_trains_no_retrained_model_again(cli, tmp_path, trained):
    first = cli(*arguments(tmp_path / "a", "name=one"))
    assert first.code == 0, first.err
    assert [name for name in trained if name in OF_SEEDS] == ["unseen-scratch", "seed-1", "retrained-1", "retrained-2"]
    trained.clear()
    changed = ["name=two", "evaluation.samples=10", "evaluation.metrics=[ur,nll]", "sampling.steps=4"]
    second = cli(*arguments(tmp_path / "b", *changed))
    assert second.code == 0, second.err
    assert set(trained) == {"do-nothing", "seed-1"}  # the base models
    for cell in ("rows/unseen-scratch", "rows/unseen-scratch/seed-1", "retrains/retrained-2"):
        one, two = tmp_path / "a" / cell, tmp_path / "b" / cell
        assert weights(one / "model") == weights(two / "model")
        assert weights(one / "checkpoints") == weights(two / "checkpoints")
        was, now = (json.loads((folder / "manifest.json").read_text()) for folder in (one, two))
        assert now["cached"].keys() == {"trained", "entry"}
        assert "cached" not in was
        assert all(was[key] == now[key] for key in ("seconds", "platform", "threads", "device", "status", "seed"))
        assert (two / "key").read_bytes() != (one / "key").read_bytes()
        assert was["forget_digest"] != now["forget_digest"]
    assert cli("verify", tmp_path / "b").code == 0
    note = "Taken from the cache, with the seconds that training took when it was done: unseen-scratch, retrained-1, "
    assert note in (tmp_path / "b" / "report.md").read_text()
    assert note not in (tmp_path / "a" / "report.md").read_text()
    card = json.loads((tmp_path / "b" / "rows/unseen-scratch/card.json").read_text())
    assert card["method"]["from_cache"].startswith("trained 2")


def test_the_folder_stays_complete_when_the_cache_is_cleared(cli, tmp_path, own_cache):
    for name in "ab":
        assert cli(*arguments(tmp_path / name, "seeds=1")).code == 0
    shutil.rmtree(own_cache)
    (tmp_path / "b" / "retrains/retrained-1/report.json").unlink()
    again = cli(*arguments(tmp_path / "b", "seeds=1"))
    assert again.code == 0, again.err
    assert "retrained-1: measuring ur" in again.out
    assert json.loads((tmp_path / "b" / "retrains/retrained-1/report.json").read_text())["cached"]


def test_without_the_cache_all_is_trained_and_nothing_kept(cli, tmp_path, trained, own_cache):
    for name in "ab":
        assert cli(*arguments(tmp_path / name, "seeds=1", "retrains=1"), "--no-cache").code == 0
        assert trained == ["do-nothing", "unseen-scratch"]
        trained.clear()
    assert not own_cache.exists()


def test_in_python_the_cache_may_be_left_out(tmp_path, own_cache):
    overrides = [*SMALL, "seeds=1", "retrains=1"]
    only = ["do-nothing", "unseen-scratch"]
    msgm.compare(DIGITS, tmp_path / "a", only, device="cpu", cache=False, overrides=overrides)
    assert not own_cache.exists()


@pytest.mark.parametrize("part", ["network", "process", "objective"])
def test_a_part_whose_code_the_key_does_not_cover_is_not_shared(monkeypatch, part):
    """A class of a notebook may change under its name; a plugin's is known by its file."""
    config = load_config(DIGITS, ["objective.name=unseen"])
    assert is_shared(config)
    registry = {"network": NETWORKS, "process": PROCESSES, "objective": OBJECTIVES}[part]
    name = getattr(config, part)["name"]
    monkeypatch.setitem(registry.entries, name, type("Own", (registry.entries[name],), {"__module__": "__main__"}))
    assert not is_shared(config)


def test_a_model_that_saw_the_request_is_not_shared():
    assert not is_shared(load_config(DIGITS, ["objective.name=standard"]))


def test_a_run_that_was_stopped_goes_on_by_itself(cli, tmp_path, trained):
    for name in "ab":
        assert cli(*arguments(tmp_path / name, "seeds=1", "retrains=1")).code == 0
    row = tmp_path / "b" / "rows" / "unseen-scratch"
    manifest = json.loads((row / "manifest.json").read_text())
    (row / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    shutil.rmtree(row / "model")
    trained.clear()
    assert cli(*arguments(tmp_path / "b", "seeds=1", "retrains=1")).code == 0
    assert trained == []
    assert json.loads((row / "manifest.json").read_text())["cached"] == manifest["cached"]


def test_a_damaged_model_is_trained_again(cli, tmp_path, trained, own_cache):
    one_seed = ["seeds=1", "retrains=1"]
    assert cli(*arguments(tmp_path / "a", *one_seed)).code == 0
    (entry,) = Cache(own_cache).entries()
    next(entry.folder.rglob("network.safetensors")).write_bytes(b"")
    trained.clear()
    again = cli(*arguments(tmp_path / "b", *one_seed))
    assert again.code == 0
    assert trained == ["do-nothing", "unseen-scratch"]
    assert "note: the cache is damaged, and the model is trained again: " in again.out
    assert weights(tmp_path / "a" / "rows") == weights(tmp_path / "b" / "rows")
    trained.clear()
    assert cli(*arguments(tmp_path / "c", *one_seed)).code == 0
    assert trained == ["do-nothing"]


def test_a_cached_model_that_saw_what_is_forgotten_later_is_named(cli, tmp_path, own_cache):
    one_seed = ["seeds=1", "retrains=1"]
    first = cli(*arguments(tmp_path / "a", *one_seed, "request.labels=[3]"))
    assert first.code == 0, first.err
    (entry,) = Cache(own_cache).entries()
    assert "cache" not in str(json.loads((tmp_path / "a" / "report.json").read_text())["artifacts"])
    assert "msgm's cache" not in cli("forget-traces", tmp_path / "a").out

    assert cli(*arguments(tmp_path / "b", *one_seed, "request.labels=[5]")).code == 0
    found = json.loads((tmp_path / "b" / "report.json").read_text())["artifacts"]
    named = [line for line in found if "msgm's cache" in line["what"]]
    assert [(tmp_path / "b" / line["path"]).resolve() for line in named] == [entry.folder.resolve()]
    assert "msgm's cache" in (tmp_path / "b" / "rows/unseen-scratch/card.md").read_text()
    listed = cli("forget-traces", tmp_path / "b").out
    assert f"{entry.folder.name} (" in listed
    assert "saw the retain items of suppression of the concept" in listed
    path = next(line.split(" (")[0] for line in listed.splitlines() if "msgm's cache" in line)
    refused = cli("forget-traces", tmp_path / "b", "--delete", path)
    assert refused.code == 2
    assert f"use msgm cache --delete {entry.folder.name}" in refused.err
    assert cli("cache", "--delete", entry.folder.name).code == 0
    assert "msgm's cache" not in cli("forget-traces", tmp_path / "b").out


# The key


BASE = ["request.labels=[3]", "network.channels=[8]", "objective.name=unseen"]
CHANGES = {
    "data": ["data.split_seed=1"],
    "another share": ["data.test=0.3"],
    "request": ["request.labels=[5]"],
    "goal": ["request.goal=removal"],
    "process": ["process.name=subvp"],
    "a setting of the process": ["process.beta_max=19"],
    "network": ["network.channels=[16]"],
    "objective": ["objective.name=redirect"],
    "steps": ["training.steps=7"],
    "batch size": ["training.batch_size=8"],
    "precision": ["training.precision=bf16"],
    "weights": ["training.weights=raw"],
    "seed": ["seed=1"],
}
SAME = {
    "name": ["name=other"],
    "samples": ["evaluation.samples=7"],
    "metrics": ["evaluation.metrics=[ur]"],
    "judge": ["evaluation.judge.epochs=2"],
    "sampling": ["sampling.steps=9"],
    "seeds": ["seeds=3"],
    "retrains": ["retrains=6"],
    "rows": ["rows.redirect.optional=true"],
    "finetune": ["finetune.steps=3"],
}


def parts(*overrides: str, chain: Chain | None = None, device: str = "cpu", processes: int = 1) -> dict:
    config = load_config(None, [*BASE, *overrides])
    dataset = load_dataset(config.data)
    return parts_of(config, dataset, split_data(config, dataset), chain or Chain(), device, processes)


@pytest.mark.parametrize("change", CHANGES)
def test_every_setting_that_makes_the_model_is_part_of_the_key(change):
    assert parts(*CHANGES[change]) != parts()


@pytest.mark.parametrize("change", SAME)
def test_no_setting_that_measures_it_is(change):
    assert parts(*SAME[change]) == parts()


def test_device_and_processes_are_part_of_the_key():
    assert parts(device="cuda") != parts() != parts(processes=2)


def test_the_data_are_part_of_the_key():
    config = load_config(None, BASE)
    dataset = load_dataset(config.data)
    split = split_data(config, dataset)
    items = dataset.images if hasattr(dataset, "images") else dataset.items
    other = load_dataset(config.data)
    (other.images if hasattr(other, "images") else other.items)[0] = 1 - items[0]
    assert parts_of(config, other, split, Chain(), "cpu", 1) != parts_of(config, dataset, split, Chain(), "cpu", 1)


def test_the_items_that_a_model_trained_elsewhere_leaves_are_part_of_the_key():
    config = load_config(None, BASE)
    dataset = load_dataset(config.data)
    split = split_data(config, dataset)
    whole = parts_of(config, dataset, split, Chain(), "cpu", 1)
    for kind in ("retain", "forget", "gone"):
        items = getattr(split.train, kind)
        fewer = items[1:] if len(items) else np.array([0])
        less = replace(split, train=replace(split.train, **{kind: fewer}))
        assert parts_of(config, dataset, less, Chain(), "cpu", 1) != whole


def test_the_whole_chain_is_part_of_the_key_but_for_its_dates():
    entry = Entry("removal of 5", "removal", "observed", "labels", "unseen", "2026-01-01", np.array([1, 2]))
    asked = parts(chain=Chain((entry,)))
    assert asked != parts()
    assert asked == parts(chain=Chain((replace(entry, date="2027-02-02"),)))
    others = [
        replace(entry, positions=np.array([1])),
        replace(entry, goal="suppression"),
        replace(entry, by="redirect"),
    ]
    chains = [Chain((other,)) for other in others] + [Chain((entry,), unknown="what?"), Chain((entry,), anew=("x",))]
    chains.append(Chain((entry, entry)))
    assert all(parts(chain=chain) != asked for chain in chains)


@pytest.mark.parametrize("name", ["msgm.__version__", "torch.__version__"])
def test_versions_are_part_of_the_key(monkeypatch, name):
    before = parts()
    module, attribute = name.split(".")
    monkeypatch.setattr(getattr(cache_keys, module), attribute, "99.0")
    assert parts() != before


def test_the_version_of_diffusers_is_part_of_the_key(monkeypatch):
    before = parts()
    monkeypatch.setattr(cache_keys, "version", {"diffusers": "99.0"}.get)
    assert parts() != before


def test_msgm_s_own_source_is_part_of_the_key(monkeypatch):
    before = parts()
    monkeypatch.setattr(cache_keys, "sources", lambda: "other")
    assert parts() != before
    assert len(before["code"]["sources"]) == 64


def test_the_code_of_plugins_is_part_of_the_key(tmp_path, monkeypatch):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("")
    before = parts(f"plugins=[{plugin}]")
    edit_unloaded(plugin, "# other\n", monkeypatch)
    assert parts() != parts(f"plugins=[{plugin}]") != before
