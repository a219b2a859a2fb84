import sys
from dataclasses import asdict

import pytest

from msgm.config import Config, load_config
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES
from msgm.settings import differences


def refused(*overrides: str, path=None) -> str:
    """Return the sentence with which the settings are refused."""
    with pytest.raises(UserError) as error:
        load_config(path, list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def written(tmp_path):
    """Write a YAML file and return its path."""

    def write(text: str, name: str = "config.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("trainig.steps=3", ["trainig"]),
        ("training.step=3", ["training", "step"]),
        ("training.steps=many", ["training.steps", "many"]),
        ("training.ema=1.5", ["training.ema", "1.5"]),
        ("training.steps=0", ["training.steps", "at least 1"]),
        ("training.lr=-1", ["training.lr", "positive"]),
        ("training.lr=nan", ["training.lr", "expected a number", "nan"]),
        ("training.clip=nan", ["training.clip", "expected a number", "nan"]),
        ("training.forget_batch_size=-4", ["training.forget_batch_size", "at least 1", "-4"]),
        ("finetune.forget_batch_size=0", ["finetune.forget_batch_size", "at least 1"]),
        ("training.beta1=1", ["training.beta1", "[0, 1)", "1.0"]),
        ("training.beta2=-0.1", ["training.beta2", "[0, 1)", "-0.1"]),
        ("training.warmup=-1", ["training.warmup", "at least 0"]),
        ("sampling.batch_size=0", ["sampling.batch_size", "at least 1"]),
        ("evaluation.judge.epochs=0", ["evaluation.judge.epochs", "at least 1"]),
        ("evaluation.judge.width=0", ["evaluation.judge.width", "at least 1"]),
        ("evaluation.judge.batch_size=-1", ["evaluation.judge.batch_size", "at least 1", "-1"]),
        ("evaluation.judge.lr=nan", ["evaluation.judge.lr", "expected a number", "nan"]),
        ("data.resident_mb=-1", ["data.resident_mb", "at least 0"]),
        ("data.workers=-1", ["data.workers", "at least 0"]),
        ("data.split_seed=-1", ["data.split_seed", "at least 0"]),
        ("network.channels=[]", ["network.channels", "at least one"]),
        ("network.channels=[8,0]", ["network.channels", "at least 1", "[8, 0]"]),
        ("network.layers=0", ["network.layers", "at least 1"]),
        ("network.groups=0", ["network.groups", "at least 1"]),
        ("network.groups=-1", ["network.groups", "at least 1", "-1"]),
        ("network.head_dim=0", ["network.head_dim", "at least 1"]),
        ("network.dropout=1", ["network.dropout", "[0, 1)", "1.0"]),
        ("network={name: mlp, width: 0}", ["network.width", "at least 1"]),
        ("network={name: mlp, depth: 0}", ["network.depth", "at least 1"]),
        ("network={name: mlp, frequencies: 0}", ["network.frequencies", "at least 1"]),
        (
            "network={name: mlp, channels: [8]}",
            ["network.channels", "belongs to network 'text-unet' and 'unet'", "width, depth"],
        ),
        ("objective={name: obtuse, floor: -1}", ["objective.floor", "at least 0", "-1"]),
        ("objective={name: obtuse, floor: nan}", ["objective.floor", "nan"]),
        ("objective={name: orthogonal, teacher_steps: 0}", ["objective.teacher_steps", "at least 1"]),
        ("objective={name: obtuse, bank: 9}", ["objective.bank", "belongs to objective 'redirect'"]),
        ("training.precision=fp16", ["training.precision", "fp16"]),
        ("seed=one", ["seed", "one"]),
        ("request.goal=forget", ["request.goal", "forget"]),
        ("evaluation.samples=0", ["evaluation.samples", "at least 1"]),
        ("evaluation.likelihood.steps=0", ["evaluation.likelihood.steps"]),
        ("data.name=digts", ["data.name", "digts", "Did you mean 'digits'?"]),
        ("data.sise=3", ["data", "sise"]),
        ("data.validation=much", ["data.validation", "much"]),
        ("process.name=vpp", ["process.name", "Did you mean 'vp'?"]),
        ("process.beta=3", ["process", "beta"]),
        ("network.name=unets", ["network.name", "Did you mean 'unet'?"]),
        ("network.channels=wide", ["network.channels", "expected a list"]),
        ("objective.name=obtus", ["objective.name", "Did you mean 'obtuse'?"]),
        ("objective.alpha=.5", ["objective", "alpha"]),
        ("finetune.step=3", ["finetune", "step"]),
        ("finetune.lr=0", ["finetune.lr", "positive"]),
        ("rows.mine.start=sideways", ["rows.mine.start", "sideways"]),
        ("rows.mine.objective.name=redirekt", ["rows.mine", "Did you mean 'redirect'?"]),
        ("rows.redirect.objective.alpha=2", ["rows.redirect", "alpha"]),
        ("rows.redirect.training.step=2", ["rows.redirect", "step"]),
        ("plugins=[nowhere.py]", ["nowhere.py"]),
        ("training.steps", ["training.steps", "expected key.sub=value"]),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence_that_names_it(override, parts):
    message = refused(override)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("override", ["network.channels=[8", "training.steps={", "a.=3", "=3", "request.labels=]"])
def test_an_override_that_cannot_be_read_is_refused(override):
    refused(override)


def test_a_bad_setting_in_a_file_is_refused(written):
    assert "stepz" in refused(path=written("training: {stepz: 3}"))


def test_a_missing_file_is_refused_with_its_name(tmp_path):
    assert "nowhere.yaml" in refused(path=tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["training: {steps: 3", "a: b: c", "\ttraining: 1", "x: [1, 2\ny: 3"])
def test_a_malformed_file_is_refused_with_its_name(written, text):
    assert "config.yaml is no valid YAML" in refused(path=written(text))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", "3\n"])
def test_a_file_that_holds_no_settings_is_refused(written, text):
    message = refused(path=written(text))
    assert "config.yaml" in message or text.strip() in message


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "config.yaml" in refused(path=tmp_path / "config.yaml")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    assert str(tmp_path) in refused(path=tmp_path)


def test_an_empty_file_gives_the_defaults(written):
    assert load_config(written("")).to_dict() == load_config().to_dict()


def test_extends_starts_from_the_named_file(written):
    written("name: parent\ntraining: {steps: 11, batch_size: 7}\n", "parent.yaml")
    config = load_config(written("extends: parent.yaml\ntraining: {steps: 12}\n"))
    assert (config.name, config.training.steps, config.training.batch_size) == ("parent", 12, 7)


def test_extends_goes_through_several_files_relative_to_each(written, tmp_path):
    (tmp_path / "base").mkdir()
    written("seed: 1\nname: a\n", "base/a.yaml")
    written("extends: a.yaml\nname: b\n", "base/b.yaml")
    config = load_config(written("extends: base/b.yaml\n"))
    assert (config.seed, config.name) == (1, "b")


def test_a_missing_parent_is_refused(written):
    assert "parent.yaml" in refused(path=written("extends: parent.yaml\n"))


def test_files_that_extend_each_other_are_refused(written):
    written("extends: config.yaml\n", "other.yaml")
    assert "extends" in refused(path=written("extends: other.yaml\n"))


def test_overrides_beat_files_and_later_ones_beat_earlier_ones(written):
    path = written("training: {steps: 11, lr: 0.5}\n")
    config = load_config(path, ["training.steps=12", "training.steps=13"])
    assert (config.training.steps, config.training.lr) == (13, 0.5)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001"])
def test_a_number_in_scientific_notation_is_a_number(written, text):
    assert load_config(None, [f"training.lr={text}"]).training.lr == 1e-4
    assert load_config(written(f"training: {{lr: {text}}}\n")).training.lr == 1e-4
    assert load_config(written(f"objective: {{name: redirect, alpha: {text}}}\n")).objective["alpha"] == 1e-4


def test_resolved_settings_are_read_back_as_they_were(written):
    overrides = ["request.labels=[3,cat]", "training.lr=1e-5", "process.name=ddpm", "finetune.clip=null"]
    overrides += ["objective.name=obtuse", "objective.floor=null", "rows.redirect.training.steps=9"]
    config = load_config(None, overrides)
    again = load_config(written(config.to_yaml()))
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert differences(config.to_dict(), again.to_dict()) == []


def test_the_settings_of_a_row_alone_are_read_back_as_they_were(written):
    config = load_config(None, ["request.labels=[3]"])
    row = config.for_row(config.rows["redirect"])
    again = load_config(written(row.to_yaml()))
    assert again == row
    assert again.rows == {}
    assert again.to_yaml() == row.to_yaml()


def test_a_file_with_empty_rows_keeps_those_of_the_file_it_extends(written):
    written("rows: {mine: {objective: {name: unseen}}}\n", "parent.yaml")
    rows = load_config(written("extends: parent.yaml\nrows: {}\n")).rows
    assert {"do-nothing", "redirect", "mine"} <= rows.keys()


def test_defaults_of_a_part_are_filled_in():
    assert load_config(None, ["objective.name=redirect"]).objective["alpha"] == 0.5
    assert load_config(None, ["data.name=gaussians", "data.count=10"]).data["draw_seed"] == 0


def test_rows_are_merged_over_the_default_ones():
    config = load_config(None, ["rows.mine.objective.name=unseen", "rows.orthogonal.objective.alpha=0.5"])
    assert {"do-nothing", "redirect", "mine"} <= config.rows.keys()
    assert config.rows["orthogonal"].objective["alpha"] == 0.5
    assert config.rows["orthogonal"].objective["every"] == load_config().rows["orthogonal"].objective["every"]


def test_rows_take_finetune_over_training_and_their_own_over_both():
    overrides = ["training.steps=9", "training.lr=.1", "finetune.lr=.2", "rows.redirect.training.ema=.5"]
    config = load_config(None, overrides)
    finetuned, scratch = (config.row_training(config.rows[name]) for name in ("redirect", "unseen-scratch"))
    assert (finetuned.steps, finetuned.lr, finetuned.ema) == (9, 0.2, 0.5)
    assert (scratch.steps, scratch.lr, scratch.ema) == (9, 0.1, 0.999)


def test_two_configs_share_no_rows():
    load_config(None, ["rows.obtuse.objective.alpha=0.5"])
    assert load_config().rows["obtuse"].objective["alpha"] == 0.99
    assert Config().rows["obtuse"] is not Config().rows["obtuse"]


def test_settings_that_an_earlier_version_lacked_are_no_difference_while_they_change_nothing():
    new = {"data": {"name": "folder", "background": "white", "frame": 0}, "request": {"labels": [1], "files": []}}
    old = {"data": {"name": "folder"}, "request": {"labels": [1]}}
    old |= {"network": {"name": "unet"}, "training": {"steps": 1}}
    new |= {"network": {"name": "unet", "classes": 0}, "training": {"steps": 1, "cond_drop": 0.1}, "edit": {}}
    assert differences(old, new) == []
    new["data"]["frame"], new["request"]["files"] = 1, ["a.png"]
    assert differences(old, new) == ["data.frame: None -> 1", "request.files: None -> ['a.png']"]


def test_differences_name_the_whole_key():
    old, new = ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4})
    assert differences(old, new) == ["a.c: 2 -> 5", "d: 3 -> None", "e: None -> 4"]


PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
from msgm.objectives import OBJECTIVES, Card, Objective

@OBJECTIVES.register("from-a-plugin")
@dataclass
class Mine(Objective):
    strength: float = 2.0
    data = "all"
    card = Card("none", "none", "none")
    def terms(self, predict, retain, forget):
        return {}
"""


@pytest.fixture
def _no_lasting_plugins():
    known = dict(OBJECTIVES.entries)
    yield
    OBJECTIVES.entries.clear()
    OBJECTIVES.entries.update(known)


@pytest.mark.usefixtures("_no_lasting_plugins")
def test_a_plugin_adds_an_objective_with_settings_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    plugin = f"plugins=[{tmp_path / 'mine.py'}]"
    config = load_config(None, [plugin, "objective.name=from-a-plugin"])
    assert config.objective == {"name": "from-a-plugin", "strength": 2.0}
    assert "strenght" in refused(plugin, "objective.name=from-a-plugin", "objective.strenght=1")


def test_a_plugin_with_an_error_in_it_is_refused_with_its_name(tmp_path):
    (tmp_path / "mine.py").write_text("def broken(:\n")
    assert "mine.py" in refused(f"plugins=[{tmp_path / 'mine.py'}]")


@pytest.mark.usefixtures("_no_lasting_plugins")
def test_a_plugin_is_imported_once(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    overrides = [f"plugins=[{tmp_path / 'mine.py'}]", "objective.name=from-a-plugin"]
    config = load_config(None, overrides)
    registered = OBJECTIVES.entries["from-a-plugin"]
    config.for_row(config.rows["redirect"])
    load_config(None, overrides)
    assert OBJECTIVES.entries["from-a-plugin"] is registered


@pytest.mark.usefixtures("_no_lasting_plugins")
def test_two_plugins_may_have_the_same_file_name(tmp_path):
    paths = [tmp_path / folder / "mine.py" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(PLUGIN.replace("from-a-plugin", f"from-{path.parent.name}"))
    load_config(None, [f"plugins=[{paths[0]},{paths[1]}]"])
    modules = [sys.modules[OBJECTIVES.entries[name].__module__] for name in ("from-one", "from-two")]
    assert [module.__file__ for module in modules] == [str(path) for path in paths]


@pytest.mark.usefixtures("_no_lasting_plugins")
def test_a_stored_plugin_is_found_from_another_folder(written, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["plugins=[mine.py]"])
    monkeypatch.chdir("elsewhere")
    assert load_config(written(config.to_yaml())) == config


def test_a_plugin_that_failed_is_tried_again(tmp_path):
    plugin = f"plugins=[{tmp_path / 'mine.py'}]"
    (tmp_path / "mine.py").write_text("import no_such_module\n")
    assert "no_such_module" in refused(plugin)
    (tmp_path / "mine.py").write_text("done = True\n")
    load_config(None, [plugin])


def test_settings_are_plain_data():
    assert asdict(load_config()) == load_config().to_dict()


def test_a_setting_of_an_earlier_version_that_decides_nothing_is_read_over():
    config = load_config(
        {"training": {"channels_last": False}, "rows": {"redirect": {"training": {"channels_last": True}}}}
    )
    assert config == load_config({"rows": {"redirect": {}}})
    stored = {"training": {"channels_last": False, "steps": 1}}
    assert differences(stored, {"training": {"steps": 1}}) == []
    assert differences(stored, {"training": {"steps": 2}}) == ["training.steps: 1 -> 2"]
