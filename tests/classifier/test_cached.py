"""Comparisons of classifiers that share retrained models through the cache."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import msgm
from msgm import cache_keys
from msgm.cache import Cache
from msgm.chain import Chain, Entry
from msgm.classifier.config import load_config
from msgm.classifier.experiment import Experiment
from msgm.classifier.methods.retrain import Retrain
from msgm.classifier.networks import CLASSIFIERS, MLP
from msgm.classifier.shared import parts_of, shared
from msgm.data import load_dataset
from msgm.reading import read_json
from tests.classifier.test_compare import TABLE
from tests.conftest import settings
from tests.helpers import edit_unloaded

ONLY = ["--only", "do-nothing,finetune", "--device", "cpu"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A comparison of one seed, whose five retrained models forget a class."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "table.csv").write_text(TABLE)
    (folder / "c.yaml").write_text(
        f"""
name: tiny
data: {{name: table, path: {folder / "table.csv"}}}
network: {{name: mlp, hidden: [5]}}
training: {{epochs: 2, batch_size: 64, lr: 0.1}}
seeds: 1
metrics: [accuracy]
requests: {{two: {{labels: [2]}}}}
"""
    )
    return folder / "c.yaml"


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """Numbers of retain items of the models that are retrained, in order."""
    found: list[int] = []
    forget = Retrain._forget

    def noted(method, model, split, *given):
        found.append(len(split.retain))
        return forget(method, model, split, *given)

    monkeypatch.setattr(Retrain, "_forget", noted)
    return found


@pytest.fixture
def compare(cli, config, tmp_path):
    """Run the comparison in a folder, with settings over the config's and further options."""

    def run(name: str, *overrides: str, more: tuple[str, ...] = (), command: tuple[str, ...] = ("compare",)):
        done = cli(*command, config, *settings(overrides), *ONLY, "--out", tmp_path / name, *more)
        assert done.code == 0, done.err
        return done

    return run


def made(folder: Path, number: int = 1, request: str = "two") -> dict:
    return read_json(folder / "models" / "seed-0" / request / f"retrain-{number}" / "made.json")


def weights(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("models/*/*/retrain-*/model.safetensors"))]


def test_a_second_comparison_trains_no_retrained_model_again(compare, cli, tmp_path, trained):
    first = compare("a")
    assert len(trained) == 5
    assert "taken from the cache" not in first.out
    trained.clear()
    second = compare("b", "name=other", "metrics=[accuracy, tug-of-war]", "seeds=2", command=("classifier", "compare"))
    assert trained == []
    a, b = tmp_path / "a", tmp_path / "b"
    seconds = made(a)["seconds"]
    line = f"seed 0, two: training retrained model 1: taken from the cache, where it took {seconds:.3f} s"
    assert line in second.out
    assert weights(a) == weights(b)
    assert len(weights(b)) == 5
    for number in range(1, 6):
        one, two = made(a, number), made(b, number)
        assert one["seconds"] == two["seconds"]
        assert one["made"]["forget"] != two["made"]["forget"]
        assert ("cached" in one, two["cached"].keys()) == (False, {"trained", "entry"})
    assert cli("verify", b).code == 0
    (row, *_) = read_json(b / "report.json")["rows"]
    assert [model["cached"] for model in row["retrain_band"]] == [made(b, number)["cached"] for number in range(1, 6)]
    assert row["retrain_seconds"] == np.median([made(a, number)["seconds"] for number in range(1, 6)])
    note = "Taken from the cache, with the seconds that training took when it was done: retrained models 1, 2, 3, 4, 5."
    assert note in (b / "report.md").read_text()
    assert note not in (a / "report.md").read_text()
    assert not any("cached" in model for row in read_json(a / "report.json")["rows"] for model in row["retrain_band"])


def test_more_retrained_models_take_what_is_there_and_train_the_rest(compare, tmp_path, trained):
    compare("a")
    trained.clear()
    compare("b", "retrains=6")
    assert len(trained) == 1
    assert "cached" in made(tmp_path / "b", 5)
    assert "cached" not in made(tmp_path / "b", 6)
    assert "done: retrained models 1, 2, 3, 4, 5." in (tmp_path / "b" / "report.md").read_text()


def test_the_folder_stays_complete_when_the_cache_is_cleared(compare, tmp_path, trained, own_cache):
    compare("a")
    compare("b")
    shutil.rmtree(own_cache)
    trained.clear()
    shutil.rmtree(tmp_path / "b" / "records")
    compare("b")
    assert trained == []
    assert "retrained models 1, 2, 3, 4, 5" in (tmp_path / "b" / "report.md").read_text()
    assert not own_cache.exists()


def test_without_the_cache_all_is_trained_and_nothing_kept(compare, trained, own_cache, config, tmp_path):
    compare("a", more=("--no-cache",))
    compare("b", more=("--no-cache",), command=("classifier", "compare"))
    msgm.compare(config, tmp_path / "c", ["do-nothing"], device="cpu", cache=False)
    assert len(trained) == 15
    assert not own_cache.exists()


def test_a_domain_without_a_cache_refuses_the_option(cli, tmp_path):
    tree = {"domain": "recommender", "data": {"name": "synthetic"}, "models": {"ease": {}}}
    (tmp_path / "r.yaml").write_text(json.dumps(tree | {"requests": {"few": {"random_users": 5}}}))
    refused = cli("compare", tmp_path / "r.yaml", "--no-cache", "--out", tmp_path / "r")
    assert refused.code == 2
    assert "a recommender experiment shares no models through a cache; leave --no-cache out" in refused.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_or_half_written_model_is_trained_again(compare, tmp_path, trained, own_cache, damage):
    compare("a")
    entry = next(each for each in Cache(own_cache).entries() if each.model.what.endswith("model 3"))
    damage(entry.folder / "files" / "model.safetensors")
    trained.clear()
    again = compare("b")
    assert len(trained) == 1
    assert "note: the cache is damaged, and the model is trained again: " in again.out
    assert "cached" not in made(tmp_path / "b", 3)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    trained.clear()
    compare("c")
    assert trained == []


def test_nothing_vouches_for_weights_that_are_taken_over_without_their_chain(compare, config, tmp_path, monkeypatch):
    compare("a", "requests.two.labels=[1]")
    compare("b")
    folder = tmp_path / "a" / "models" / "seed-0" / "two" / "retrain-1"
    assert (folder / "made.json").is_file()

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "keep", killed)
    experiment = world(source=config, folder=tmp_path / "a", cache=Cache.of_user())
    with pytest.raises(KeyboardInterrupt):
        experiment.retrain(folder, "two", 1)
    assert (folder / "model.safetensors").read_bytes() == weights(tmp_path / "b")[0]
    assert not (folder / "made.json").exists()
    assert not (folder / "network.json").exists()


def test_cached_models_that_saw_what_is_forgotten_later_are_named(compare, cli, tmp_path, own_cache):
    compare("a")
    assert "cache" not in str(read_json(tmp_path / "a" / "report.json")["artifacts"])
    compare("b", "requests.two.labels=[1]", "requests.zero.labels=[0]")
    entries = {entry.folder.resolve(): entry.model.request for entry in Cache(own_cache).entries()}
    assert len(entries) == 15
    texts = {name: one["text"] for name, one in read_json(tmp_path / "b" / "report.json")["requests"].items()}
    for request in ("two", "zero"):
        found = read_json(tmp_path / "b" / "cards" / request / "finetune" / "card.json")["artifacts"]["found"]
        named = [line for line in found if "msgm's cache: mlp on table, 2 epochs, seed 0, model " in line["what"]]
        saw = {path for path, text in entries.items() if text != texts[request]}
        assert len(saw) == 10
        assert {(tmp_path / "b" / line["path"]).resolve() for line in named} == saw
    listed = cli("forget-traces", tmp_path / "b").out
    assert listed.count("msgm's cache") == 15
    assert cli("cache", "--clear").code == 0
    assert "msgm's cache" not in cli("forget-traces", tmp_path / "b").out


def test_a_single_model_names_them_too(compare, cli, config, tmp_path):
    compare("a")
    given = [config, *settings(["requests.two.labels=[1]"]), "--device", "cpu"]
    assert cli("classifier", "train", *given, "--out", tmp_path / "o").code == 0
    forgot = ["unlearn", *given, "--from", tmp_path / "o", "--method", "finetune", "--out", tmp_path / "u"]
    assert cli("classifier", *forgot).code == 0
    assert cli("forget-traces", tmp_path / "u").out.count("msgm's cache") == 5


# The key


DATA = ["data.name=digits", "requests.two.labels=[2]", "requests.same.labels=[2]"]
TWO = [*DATA, "network.name=mlp", "network.hidden=[5]"]
CHANGES = {
    "request": ["requests.two.labels=[3]"],
    "goal": ["requests.two.goal=removal"],
    "another share": ["shares.test=0.2"],
    "split seed": ["split_seed=1"],
    "network": ["network.hidden=[6]"],
    "epochs": ["training.epochs=3"],
    "batch size": ["training.batch_size=8"],
    "rate": ["training.lr=0.2"],
    "precision": ["training.precision=bf16"],
    "augmentation": ["training.augment=flip"],
    "seed": ["seed=1", "split_seed=0"],
}
SAME = {
    "name": ["name=other"],
    "metrics": ["metrics=[accuracy]"],
    "seeds": ["seeds=7"],
    "retrains": ["retrains=6"],
    "a method": ["methods.finetune.epochs=2"],
    "another request": ["requests.more.labels=[4]"],
    "the split seed that is the seed": ["split_seed=0"],
}


def world(*overrides: str, source: Path | None = None, **given) -> Experiment:
    config = load_config(source, list(overrides))
    device = torch.device(given.pop("device", "cpu"))
    return Experiment(config, load_dataset(config.data), config.seed, device, first=config.seed, **given)


def parts(*overrides: str, request: str = "two", number: int = 1, **given) -> dict:
    experiment = world(*TWO, *overrides, **given)
    return parts_of(experiment, experiment.split(request), request, number)


@pytest.mark.parametrize("change", CHANGES)
def test_every_setting_that_makes_the_model_is_part_of_the_key(change):
    assert parts(*CHANGES[change]) != parts()


@pytest.mark.parametrize("change", SAME)
def test_no_setting_that_measures_it_is(change):
    assert parts(*SAME[change]) == parts()


def test_the_request_counts_and_not_its_name():
    assert parts(request="same") == parts()


def test_number_and_device_are_part_of_the_key():
    assert parts(number=2) != parts() != parts(device="meta")


def test_the_items_are_part_of_the_key():
    experiment = world(*TWO)
    split = experiment.split("two")
    whole = parts_of(experiment, split, "two", 1)
    for kind in ("retain", "forget"):
        fewer = replace(split, **{kind: getattr(split, kind).subset(np.arange(5))})
        assert parts_of(experiment, fewer, "two", 1) != whole
    assert parts_of(experiment, replace(split, gone=split.forget), "two", 1) != whole


def test_the_data_are_part_of_the_key(monkeypatch):
    experiment = world(*TWO)
    whole = parts_of(experiment, experiment.split("two"), "two", 1)
    monkeypatch.setattr(type(experiment.dataset), "digest", lambda self: "other")
    assert parts_of(experiment, experiment.split("two"), "two", 1) != whole


def test_the_whole_chain_is_part_of_the_key_but_for_its_dates():
    entry = Entry("removal of 5", "removal", "observed", "labels", "finetune", "2026-01-01", np.array([1, 2]))
    asked = parts(chain=Chain((entry,)))
    assert asked != parts()
    assert asked == parts(chain=Chain((replace(entry, date="2027-02-02"),)))
    others = [replace(entry, positions=np.array([1])), replace(entry, by="redirect")]
    chains = [Chain((other,)) for other in others] + [Chain((entry,), unknown="what?"), Chain((entry,), anew=("x",))]
    assert all(parts(chain=chain) != asked for chain in [*chains, Chain((entry, entry))])


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


def test_code_of_msgm_and_of_plugins_is_part_of_the_key(monkeypatch, tmp_path):
    (tmp_path / "plugin.py").write_text("")
    before = parts(f"plugins=[{tmp_path / 'plugin.py'}]")
    edit_unloaded(tmp_path / "plugin.py", "# other\n", monkeypatch)
    assert parts() != parts(f"plugins=[{tmp_path / 'plugin.py'}]") != before
    before = parts()
    monkeypatch.setattr(cache_keys, "sources", lambda: "other")
    assert parts() != before


def test_the_file_of_a_network_of_the_user_s_is_part_of_the_key(tmp_path, monkeypatch):
    file = tmp_path / "net.py"
    file.write_text("def net(shape, classes): ...\n")
    network = ["network.name=normalised", "network.network.name=module", f"network.network.function={file}:net"]

    def key() -> dict:
        experiment = world(*DATA, *network)
        return parts_of(experiment, experiment.split("two"), "two", 1)

    before = key()
    edit_unloaded(file, "def net(shape, classes): return 1\n", monkeypatch)
    assert key() != before


def test_a_network_of_a_notebook_is_not_shared_for_its_code_may_change(monkeypatch, tmp_path):
    experiment = world(*TWO, cache=Cache(tmp_path))
    assert shared(experiment, experiment.split("two"), "two", 1) is not None
    own = type("Own", (MLP,), {"__module__": "__main__"})
    monkeypatch.setitem(CLASSIFIERS.entries, "mlp", own)
    assert shared(experiment, experiment.split("two"), "two", 1) is None
