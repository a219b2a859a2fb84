"""Comparisons through the command line, on a few items and with few epochs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from msgm.classifier.compare import CLASSIFIERS
from msgm.classifier.config import load_config
from msgm.classifier.experiment import Experiment
from msgm.classifier.methods import METHODS
from msgm.classifier.outputs import load_outputs
from msgm.data import load_dataset
from msgm.digests import unkeyed_digest
from msgm.errors import Interrupted, RunError
from msgm.reading import read_json
from tests.conftest import settings

TABLE = "label,a,b\n" + "\n".join(f"{k % 3},{k % 3 + (k * 37 % 100) / 90},{(k * 61 % 100) / 50}" for k in range(150))
ONLY = "do-nothing,retrain,finetune,boundary-shrink"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "table.csv").write_text(TABLE)
    (folder / "c.yaml").write_text(
        f"""
name: tiny
data: {{name: table, path: {folder / "table.csv"}}}
network: {{name: mlp, hidden: [5]}}
training: {{epochs: 3, batch_size: 32, lr: 0.1}}
seeds: 2
metrics: [accuracy, tug-of-war, weights]
requests:
  few: {{random: 8, goal: removal, target: observed}}
  two: {{labels: [2]}}
"""
    )
    return folder / "c.yaml"


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["classifier", "compare", str(config), "--only", ONLY, "--out", str(out)]) == 0
    return out


def test_the_report_has_a_row_a_method_and_request_with_a_band_of_five_retrains_a_seed(made):
    report = read_json(made / "report.json")
    assert report["kind"] == "classifier"
    assert report["seeds"] == [0, 1]
    rows = {(row["method"], row["request"]): row for row in report["rows"]}
    assert set(rows) == {(m, r) for m in ("do-nothing", "retrain", "finetune") for r in ("few", "two")} | {
        ("boundary-shrink", "two")
    }
    for row in rows.values():
        assert [(e["seed"], e["retrain"]) for e in row["retrain_band"]] == [(0, 1), (1, 2), (0, 3), (1, 4), (0, 5)]
        assert [entry["seed"] for entry in row["per_seed"]] == [0, 1]
        number = row["metrics"]["forget_accuracy"]
        assert {"value", "band", "inside", "text", "section", "better"} <= set(number)
        assert number["value"] == pytest.approx(np.mean([e["metrics"]["forget_accuracy"] for e in row["per_seed"]]))
    assert rows["do-nothing", "few"]["metrics"]["weight_distance"]["value"] == 0
    assert rows["retrain", "few"]["metrics"]["weight_distance"]["value"] > 0
    assert report["requests"]["few"]["n"] == 8
    assert report["requests"]["two"]["scope"] == "class"
    assert report["requests"]["two"]["selected"] == 50 > report["requests"]["two"]["n"]
    card = read_json(made / "cards" / "two" / "finetune" / "card.json")
    assert card["request"]["items"].startswith(f"50 selected, {report['requests']['two']['n']} in training")
    assert [asked["without_controls"] for asked in report["requests"].values()] == [0, 0]
    duplicates = report["requests"]["two"]["near_duplicates"]
    assert duplicates["included"] is False
    assert 0 <= duplicates["retained"] <= duplicates["found"]
    assert sum(report["data"]["n"][part] for part in ("train", "tuning", "nonmembers", "test")) == 150


def test_a_method_that_is_not_meant_for_a_request_is_skipped_with_a_line(made):
    (line,) = read_json(made / "report.json")["left_out"]
    assert (line["method"], line["request"], line["status"], line["seeds"]) == (
        "boundary-shrink",
        "few",
        "skipped",
        [0, 1],
    )
    assert "boundary-shrink skipped (seed 0, 1): it is meant for class requests." in (made / "report.md").read_text()


def test_views_and_cards_are_written_and_self_contained(made):
    page = (made / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "http" not in page.replace("http-equiv", "")
    assert "| do-nothing |" in (made / "report.md").read_text()
    assert (made / "cards" / "two" / "finetune" / "card.html").is_file()
    assert 'href="cards/two/finetune/card.html"' in page


def test_outputs_are_those_that_the_audit_reads(made, cli, tmp_path):
    folder = made / "outputs" / "seed-0" / "few"
    original = load_outputs(folder / "original.npz")
    assert original.logits["forget"].shape == (8, 3)
    retrains = sorted((folder / "retrains").glob("*.npz"))
    assert len(retrains) == 5
    target = folder / "methods" / "finetune.npz"
    arguments = ["--original", folder / "original.npz", "--retrains", *retrains, "--out", tmp_path]
    done = cli("classifier", "audit", target, *arguments)
    assert done.code == 0, done.err
    assert (tmp_path / "card.html").is_file()


def test_a_card_names_models_that_saw_its_items_those_retrained_for_another_request_too(made, cli):
    assert cli("verify", made).code == 0
    listed = cli("forget-traces", made).out
    assert "models/seed-0/two/retrain-1 (" in listed
    assert "saw the retain items of two" in listed
    card = read_json(made / "cards" / "few" / "retrain" / "card.json")
    found = {line["path"] for line in card["artifacts"]["found"]}
    originals = {"models/seed-0/original", "outputs/seed-1/few/original.npz"}
    assert originals | {"models/seed-0/two/retrain-1", "outputs/seed-0/two/retrains/5.npz"} <= found
    assert not {path for path in found if "few/retrain" in path}


def test_a_second_call_makes_nothing_anew_and_gives_the_same_numbers(made, config, cli):
    before, weights = read_json(made / "report.json"), made / "models" / "seed-0" / "original" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    done = cli("classifier", "compare", config, "--only", ONLY, "--out", made)
    assert done.code == 0
    assert done.out.count(": kept") == 30
    after = read_json(made / "report.json")
    assert after["rows"] == before["rows"]
    assert weights.stat().st_mtime_ns == written


def test_digests_of_the_first_version_are_replaced_by_keyed_ones_and_what_was_made_is_kept(made, config, cli, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    settings = load_config(config)
    dataset = load_dataset(settings.data)
    first = [Experiment(settings, dataset, seed, torch.device("cpu"), folder, first=0) for seed in (0, 1)]
    splits = [(one, one.split(name)) for one in first for name in ("few", "two")]
    old = {one.digest(split): unkeyed_digest(split.forget.indices) for one, split in splits}
    for path in folder.rglob("*.json"):
        text = path.read_text()
        for keyed, unkeyed in old.items():
            text = text.replace(keyed, unkeyed)
        path.write_text(text)
    done = cli("classifier", "compare", config, "--only", ONLY, "--out", folder)
    assert done.code == 0, done.err
    assert done.out.count(": kept") == 30
    texts = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert [unkeyed for unkeyed in old.values() if unkeyed in texts] == []
    assert all(keyed in texts for keyed in old)


def test_a_method_with_other_settings_is_run_again_and_the_others_kept(made, config, cli):
    before = read_json(made / "report.json")["rows"]
    done = cli(
        "classifier",
        "compare",
        config,
        "--only",
        "finetune",
        "--requests",
        "few",
        "--out",
        made,
        "--set",
        "methods.finetune.lr=0.5",
    )
    assert done.code == 0
    assert "finetune: kept" not in done.out
    after = read_json(made / "report.json")["rows"]
    assert [r for r in after if r["method"] != "finetune"] == [r for r in before if r["method"] != "finetune"]
    assert [r["request"] for r in after if r["method"] == "finetune"] == ["few"]
    cli("classifier", "compare", config, "--only", "finetune", "--out", made)


def test_a_metric_of_logits_is_added_without_running_methods_again(made, config, cli):
    record = made / "records" / "seed-0" / "few" / "methods" / "retrain.json"
    seconds = read_json(record)["seconds"]
    done = cli("classifier", "compare", config, "--only", "retrain", "--out", made, "--metrics", "calibration")
    assert done.code == 0
    assert read_json(record)["seconds"] == seconds
    assert {"accuracy", "calibration"} <= set(read_json(record)["metrics"])


def test_metrics_that_train_models_of_their_own_say_so_first_and_keep_them(config, cli, tmp_path):
    options = ["--requests", "few", "--only", "do-nothing,finetune", "--out", tmp_path / "run", "--set", "seeds=1"]
    options += ["--set", "options.u-lira.pairs=2", "--metrics", "accuracy,u-lira"]
    done = cli("classifier", "compare", config, *options)
    assert done.code == 0, done.err
    said = "u-lira: 4 models to train and 4 to unlearn for each of 2 methods and for the band"
    assert done.out.index(said) < done.out.index("do-nothing")
    rows = read_json(tmp_path / "run" / "report.json")["rows"]
    assert [row["metrics"]["u_lira_auc"]["value"] is not None for row in rows] == [True, True]
    assert all(model["metrics"]["u_lira_auc"] is not None for row in rows for model in row["retrain_band"])
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "shadows").iterdir()}
    assert len(files) == 3 * 4
    assert cli("classifier", "compare", config, *options).out.count("kept") == 8
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "shadows").iterdir()} == files


def test_another_experiment_in_the_folder_is_refused(made, config, cli):
    done = cli("classifier", "compare", config, "--out", made, "--set", "training.lr=0.2")
    assert done.code == 2
    assert "holds an experiment with other settings (training.lr: 0.1 -> 0.2); give another --out" in done.err


def test_a_method_that_fails_does_not_stop_the_others(config, cli, tmp_path):
    only = ["--only", "do-nothing,finetune", "--requests", "few"]
    blown = settings(["methods.finetune.lr=1e30", "seeds=1"])
    done = cli("classifier", "compare", config, *only, *blown, "--out", tmp_path / "run")
    assert done.code == 1
    assert "one model failed, and the same command tries again: seed 0, few: finetune" in done.err
    report = read_json(tmp_path / "run" / "report.json")
    assert [row["method"] for row in report["rows"]] == ["do-nothing"]
    assert report["left_out"][0]["status"] == "failed"
    assert "finite" in report["left_out"][0]["reason"]


def test_where_no_model_can_be_trained_each_is_tried_once_and_the_command_says_why(config, cli, tmp_path):
    only = ["--only", "do-nothing,finetune", "--requests", "few"]
    blown = settings(["training.lr=1e30", "seeds=1"])
    done = cli("classifier", "compare", config, *only, *blown, "--out", tmp_path / "run")
    assert done.code == 1
    assert done.err.startswith("msgm: 13 models failed, and the same command tries again: seed 0: original: training")
    assert done.err.count("\n") == 1
    lines = [line.split(": training, step")[0] for line in done.out.splitlines() if "non-finite" in line]
    assert len(lines) == len(set(lines)) == 1 + 5 + 5 + 2  # the original, retrained models, and rows without them
    assert read_json(tmp_path / "run" / "report.json")["rows"] == []


def test_retrained_models_that_failed_are_left_out_of_the_band(config, cli, monkeypatch, tmp_path):
    def retrain(self, folder, request, number):
        if number == 2:
            raise RunError("the loss is not finite.")
        return made(self, folder, request, number)

    made = Experiment.retrain
    monkeypatch.setattr(Experiment, "retrain", retrain)
    line = ["--only", "do-nothing", "--requests", "few", *settings(["seeds=1"]), "--out", tmp_path / "run"]
    assert cli("classifier", "compare", config, *line).code == 1
    monkeypatch.undo()
    done = cli("classifier", "compare", config, *line)
    assert done.code == 0, done.err
    assert done.out.count("training retrained model") == 1
    (row,) = read_json(tmp_path / "run" / "report.json")["rows"]
    assert len(row["retrain_band"]) == 5


BROKEN = """
from dataclasses import dataclass
from msgm.classifier.methods import METHODS
from msgm.classifier.methods.base import Card, Method

@METHODS.register("broken")
@dataclass(frozen=True)
class Broken(Method):
    card = Card("none", "none", ("retain",), "edit")
    def _forget(self, model, split, settings, ledger):
        raise KeyError("no such layer\\nsecond line")
"""


def test_a_plugin_that_raises_is_left_out_with_its_error_and_tried_again(config, cli, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    plugin = settings([f"plugins=[{tmp_path / 'broken.py'}]", "seeds=1"])
    try:
        line = ["--only", "broken,do-nothing", "--requests", "few", *plugin, "--out", tmp_path / "run"]
        for _ in range(2):
            done = cli("classifier", "compare", config, *line)
            assert done.code == 1, done.err
            assert "broken: broken failed: KeyError" in done.out
        report = read_json(tmp_path / "run" / "report.json")
        assert [row["method"] for row in report["rows"]] == ["do-nothing"]
        (left,) = report["left_out"]
        assert (left["method"], left["status"]) == ("broken", "failed")
        assert left["reason"].startswith("broken failed: KeyError: 'no such layer")
        assert cli("classifier", "train", config, *plugin, "--out", tmp_path / "o").code == 0
        unlearn = ["--from", tmp_path / "o", "--method", "broken", "--request", "few", "--out", tmp_path / "u"]
        done = cli("classifier", "unlearn", config, *unlearn, *plugin)
        assert done.code == 1
        assert done.err.startswith("msgm: broken failed: KeyError")
        assert done.err.count("\n") == 1
    finally:
        METHODS.entries.pop("broken", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted("stopped", 143)])
def test_a_stopped_method_stops_the_run(config, monkeypatch, tmp_path, error):
    def stop(*_):
        raise error

    monkeypatch.setattr(METHODS.entries["do-nothing"], "_forget", stop)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        CLASSIFIERS.compare(load_config(config, ["seeds=1"]), tmp_path / "run", only=["do-nothing"], requests=["few"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--only", "finetun"], ["--only: unknown method 'finetun'", "Did you mean 'finetune'?"]),
        (["--requests", "many"], ["--requests: unknown request 'many'", "few, two"]),
        (settings(["retrains=0"]), ["retrains must be at least 1, got 0"]),
        (settings(["data.label=null", "data.drop=[label]"]), ["table data have no class labels"]),
        (settings(["requests.two.labels=[0,1]"]), ["items of 1 class only"]),
        (settings(["requests.two.labels=[0,1,2]"]), ["selects all 150 items"]),
        (settings(["requests.few.random=91"]), ["leave none to retain"]),
        (settings(["requests.few.random=5000"]), ["5000 of 91 training items"]),
        (settings(["requests.two.labels=[7]"]), ["requests.two.labels: unknown label '7'"]),
        (settings(["requests.few={group: {patient: 17}}"]), ["requests.few"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(config, cli, tmp_path, arguments, parts):
    done = cli("classifier", "compare", config, *arguments, "--out", tmp_path / "run")
    assert done.code == 2
    assert all(part in done.err for part in parts), done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [1, 4])
def test_fewer_than_five_retrained_models_give_numbers_without_verdicts(config, tmp_path, count):
    chosen = {"only": ["do-nothing", "retrain"], "requests": ["few"]}
    run = CLASSIFIERS.compare(load_config(config, ["seeds=1", f"retrains={count}"]), tmp_path / "run", **chosen)
    rows = read_json(run.report, dict)["rows"]
    assert [len(row["retrain_band"]) for row in rows] == [count, count]
    assert {entry["inside"] for row in rows for entry in row["metrics"].values()} == {None}
    assert f"{count} of at least 5 retrained models" in (run.path / "report.md").read_text()


def test_a_network_whose_output_size_differs_is_refused(config, cli, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net(shape, classes):\n    return nn.Linear(shape[0], 7)\n"
    )
    other = tmp_path / "c.yaml"
    network = f"{{name: module, function: '{tmp_path / 'net.py'}:net'}}"
    other.write_text(config.read_text().replace("{name: mlp, hidden: [5]}", network))
    done = cli("classifier", "compare", other, "--out", tmp_path / "run")
    assert done.code == 2
    assert "puts out (7,) numbers an item; the data have 3 classes" in done.err


def test_train_and_unlearn_keep_models_and_outputs(config, cli, tmp_path):
    assert cli("classifier", "train", config, "--out", tmp_path / "o").code == 0
    original = load_outputs(tmp_path / "o" / "outputs" / "few" / "original.npz")
    unlearn = ["classifier", "unlearn", config, "--from", tmp_path / "o", "--method", "finetune"]
    assert "--request: say which; the config has few, two" in cli(*unlearn).err
    done = cli(*unlearn, "--request", "few", "--out", tmp_path / "u")
    assert done.code == 0, done.err
    outputs = {path.stem: load_outputs(path) for path in (tmp_path / "u" / "outputs" / "few").glob("*.npz")}
    assert np.array_equal(outputs["original"].logits["test"], original.logits["test"])
    assert not np.array_equal(outputs["finetune"].logits["test"], original.logits["test"])
    manifest = json.loads((tmp_path / "u" / "manifest.json").read_text())
    assert manifest["model_stored"] is True
    assert manifest["cost"]["seconds"] > 0
    assert manifest["method"]["lr"] == pytest.approx(0.1 * manifest["method"]["lr_share"])
    assert "not stored" not in done.out
    assert manifest["device"] == "cpu"
    assert "test (classes to retain)" not in done.out
    by_class = cli(*unlearn, "--request", "two", "--out", tmp_path / "two")
    kept = load_outputs(tmp_path / "two" / "outputs" / "two" / "finetune.npz")
    right = kept.right("test")[kept.labels["test"] != 2].mean()
    assert by_class.out.splitlines()[0].endswith(f" -> {100 * right:.1f}%")
    assert "test (classes to retain)" in by_class.out
    weights = (tmp_path / "o" / "model" / "model.safetensors").read_bytes()
    over = cli(*unlearn, "--request", "few", "--out", tmp_path / "o")
    assert over.code == 2
    assert "holds a trained original" in over.err
    assert (tmp_path / "o" / "model" / "model.safetensors").read_bytes() == weights
    ensemble = cli(*unlearn[:-1], "sisa", "--request", "few", "--out", tmp_path / "u", "--set", "methods.sisa.shards=2")
    assert ensemble.code == 0, ensemble.err
    assert ensemble.out.splitlines()[-1] == f"wrote {tmp_path / 'u'}"
    assert json.loads((tmp_path / "u" / "manifest.json").read_text())["model_stored"] is True
    assert not (tmp_path / "u" / "model" / "model.safetensors").exists()
    assert len(list((tmp_path / "u" / "model" / "shards").glob("*.safetensors"))) == 2
    wrong = cli(*unlearn, "--request", "few", "--out", tmp_path / "v", "--set", "training.epochs=4")
    assert wrong.code == 2
    assert "was trained with other settings (training.epochs: 3 -> 4)" in wrong.err
    assert "holds no trained classifier" in cli(*unlearn[:4], tmp_path, *unlearn[5:], "--request", "few").err


def test_a_file_of_weights_is_unlearned_like_the_run_that_it_came_from(config, cli, tmp_path):
    assert cli("classifier", "train", config, "--out", tmp_path / "o").code == 0
    weights = tmp_path / "o" / "model" / "model.safetensors"
    request = ["--method", "finetune", "--request", "few"]
    for name, source in (("run", tmp_path / "o"), ("file", weights)):
        done = cli("classifier", "unlearn", config, "--from", source, *request, "--out", tmp_path / name)
        assert done.code == 0, done.err
        assert "accuracy before and after" in done.out
        assert ("unseen only if the model was trained on the config's training part" in done.out) == (name == "file")
    made = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "file")]
    assert made[0] == made[1]
    wrong = ["--set", "network.hidden=[6]", "--out", tmp_path / "x"]
    assert (
        "model.safetensors holds weights of another network"
        in cli("classifier", "unlearn", config, "--from", weights, *request, *wrong).err
    )


def test_cards_of_methods_and_metrics_are_printed(cli):
    done = cli("classifier", "methods", "retrain", "do-nothing")
    assert done.code == 0
    assert "family: exact" in done.out
    assert "rmia_auc: " in cli("classifier", "metrics", "rmia").out
    assert "unknown metric 'rmi'" in cli("classifier", "metrics", "rmi").err


def test_views_are_rebuilt_from_the_report(made, cli):
    (made / "report.md").unlink()
    done = cli("report", made)
    assert done.code == 0, done.err
    assert "band of retrained" in done.out
    assert (made / "report.md").is_file()
