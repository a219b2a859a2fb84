"""Lists, configs and the look at the machine, as a user calls them."""

import pytest
import yaml

from msgm import configs
from msgm.commands.lists import REGISTRIES, entries
from msgm.config import load_config


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", REGISTRIES)
def test_a_list_has_a_line_for_each_name_and_a_card_for_a_named_one(cli, what):
    listed = cli(what).out
    for entry in entries(what):
        assert any(line.split()[0] == entry.name for line in listed.splitlines() if line), entry.name
        assert not any(line.strip() == entry.name for line in listed.splitlines()), (
            f"{entry.name} says nothing of itself"
        )
    name = entries(what)[0].name
    card = cli(what, name)
    assert card.code == 0
    assert card.out.startswith(name)


@pytest.mark.parametrize("what", REGISTRIES)
def test_an_unknown_name_is_one_sentence_with_the_nearest(cli, what):
    name = entries(what)[0].name
    ended = cli(what, f"{name}x")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"Did you mean {name!r}?" in ended.err


def test_every_config_is_listed_with_its_domain(cli):
    rows = {line.split()[0]: line.split()[1] for line in cli("configs").out.splitlines()[1:]}
    assert set(rows) == set(configs.names())
    assert rows["digits/vp"] == "generator"
    assert rows["classifier/digits"] == "classifier"
    assert rows["recommender/ml100k"] == "recommender"
    assert rows["recommender/attributes"] == "attributes"


def test_a_config_is_printed_as_it_stands_or_whole(cli, empty):
    assert cli("config", "digits/vp").out == (configs.find("digits/vp")).read_text()
    whole = yaml.safe_load(cli("config", "digits/vp", "--whole", "--set", "training.steps=7").out)
    assert whole["training"]["steps"] == 7
    assert "clip" in whole["training"]
    assert yaml.safe_load(cli("config", "recommender/synthetic", "--whole").out)["seeds"]


@pytest.mark.parametrize("name", ["folder", "digits/vp", "mnist/ve", "recommender/synthetic"])
def test_init_writes_a_config_that_can_be_used_and_overwrites_none(cli, empty, name):
    made = cli("init", name)
    assert made.code == 0, made.err
    path = empty / f"{name.replace('/', '-')}.yaml"
    assert made.out == f"wrote {path.name}; msgm data {path.name} lists what would be forgotten\n"
    again = cli("init", name)
    assert (again.code, "exists already" in again.err) == (2, True)
    if not name.startswith("recommender"):
        assert load_config(path).to_dict() == load_config(configs.find(name)).to_dict()


def test_init_without_a_name_writes_the_template_for_own_images(cli, empty):
    assert cli("init").code == 0
    assert load_config(empty / "folder.yaml").data["name"] == "folder"


def test_an_unknown_config_is_one_sentence(cli, empty):
    ended = cli("init", "digits/vq")
    assert (ended.code, ended.err) == (2, "msgm: msgm configs lists no 'digits/vq'. Did you mean 'digits/vp'?\n")


def test_doctor_tells_versions_device_and_data(cli, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("MSGM_DATA", str(tmp_path))
    told = cli("doctor")
    assert told.code == 0
    for beginning in ("msgm ", "torch ", "device: ", "threads: ", f"data: {tmp_path} holds mnist"):
        assert any(line.startswith(beginning) for line in told.out.splitlines()), beginning
    monkeypatch.setenv("MSGM_DATA", str(tmp_path / "nothing"))
    monkeypatch.setattr("msgm.devices.slow_bf16", lambda device: "this CPU has no instructions for it")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    assert "! training.precision=bf16 is slow here: this CPU has no instructions for it" in cli("doctor").out
    assert f"! MSGM_DATA names {tmp_path / 'nothing'}, which is no folder" in cli("doctor").out
