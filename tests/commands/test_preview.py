"""``msgm data CONFIG``: what is printed of each kind of config."""

import json

import numpy as np
import pytest
from PIL import Image

from msgm.chain import Chain, Entry
from msgm.config import load_config
from msgm.data import load_dataset
from msgm.requests import ForgetRequest
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """40 noise pictures in two classes; dog/copy.png is dog/05.png again; a stray one, a hidden one and a text."""
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / name / f"{number:02}.png")
    (root / "dog" / "copy.png").write_bytes((root / "dog" / "05.png").read_bytes())
    (root / "cover.png").write_bytes((root / "cat" / "00.png").read_bytes())
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "05-checkpoint.png").write_bytes((root / "dog" / "05.png").read_bytes())
    (root / "dog" / "notes.txt").write_text("a dog")
    return root


def written(path, *lines):
    path.write_text("\n".join(lines))
    return path


def folder(root, *lines):
    return ["data:", "  name: folder", f"  root: {root}", "  size: 8", "  channels: 1", *lines]


def rows(out):
    """The cells of the printed table by their first one."""
    return {line.split()[0]: line.split()[1:] for line in out.split("\n") if line.startswith("  ") and ":" not in line}


def test_a_generators_request_by_files_is_listed(cli, pets, tmp_path):
    config = written(
        tmp_path / "a.yaml", *folder(pets, "  split_seed: 1"), "request:", "  files: [dog/05.png, cat/07.png]"
    )
    shown = cli("data", config)
    assert shown.code == 0
    assert "folder: 41 items of shape 1x8x8, 2 classes" in shown.out
    assert "request: suppression of the concept given by files dog/05.png, cat/07.png" in shown.out
    table = rows(shown.out)
    assert table["class"] == [
        "train",
        "retain",
        "train",
        "forget",
        *["validation", "retain", "validation", "forget"],
        *["test", "retain", "test", "forget"],
    ]
    counts = np.array([[int(cell) for cell in table[name]] for name in ("cat", "dog", "all")])
    assert counts.sum(1).tolist() == [20, 21, 41]
    assert (counts[0] + counts[1]).tolist() == counts[2].tolist()
    assert counts[2][1::2].sum() == 2
    assert "  25: dog/05.png, class dog\n" in shown.out
    assert "data: 1 left out, hidden: .ipynb_checkpoints" in shown.out
    assert "data: 1 left out, a picture beside the class folders: cover.png" in shown.out
    assert "data: 1 left out, a file ending in .txt: dog/notes.txt" in shown.out


def test_a_copy_that_would_stay_is_named(cli, pets, tmp_path):
    lines = [*folder(pets), "request:", "  files: [dog/05.png]"]
    out = cli("data", written(tmp_path / "a.yaml", *lines)).out
    assert "near-duplicates of these that would stay among the items to retain: " in out
    assert "  40: dog/copy.png, class dog, an exact copy of 25: dog/05.png, class dog\n" in out


def test_held_out_items_of_a_request_are_told_apart(cli, pets, tmp_path):
    config = written(tmp_path / "a.yaml", *folder(pets), "request:", "  labels: [dog]")
    out = cli("data", config).out
    trained, held = out.split("items to forget: ")[1].split("named by the request but never trained on: ")
    assert int(trained.split()[0]) + int(held.split()[0]) == 21


def test_the_list_is_cut_unless_all_is_asked_for(cli, pets, tmp_path):
    config = written(tmp_path / "a.yaml", *folder(pets), "request:", "  labels: [dog]")
    short, whole = cli("data", config).out, cli("data", config, "--list").out
    assert "more: see --list" in short
    assert "see --list" not in whole
    assert all(f"{20 + k}: dog/{k:02}.png, class dog" in whole for k in range(20))
    assert "  left out, hidden: .ipynb_checkpoints" in whole


def test_many_classes_are_cut_and_those_with_items_to_forget_come_first(cli, tmp_path):
    for number in range(30):
        for copy in range(4):
            path = tmp_path / "many" / f"c{number:02}" / f"{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 8 * number + copy).save(path)
    config = written(tmp_path / "a.yaml", *folder(tmp_path / "many"), "request:", "  labels: [c29]")
    out = cli("data", config).out
    assert next(iter([name for name in rows(out) if name.startswith("c")][1:])) == "c29"
    assert "and 10 more classes: see --list" in out
    assert "more classes" not in cli("data", config, "--list").out


def test_a_config_without_a_request_is_counted(cli, pets, tmp_path):
    out = cli("data", written(tmp_path / "a.yaml", *folder(pets))).out
    assert "no request: nothing would be forgotten" in out
    assert rows(out)["dog"] == ["21", "0"]


def test_a_request_that_names_nothing_known_ends_with_2(cli, pets, tmp_path):
    shown = cli("data", written(tmp_path / "a.yaml", *folder(pets), "request:", "  files: [05.png]"))
    assert shown.code == 2
    assert "request.files: no item is named '05.png'" in shown.err


def test_several_requests_of_a_classifier(cli, pets, tmp_path):
    lines = [*folder(pets), "requests:", "  one:", "    files: [dog/02.png, cat/03.png]", "  some:", "    random: 5"]
    shown = cli("data", written(tmp_path / "a.yaml", *lines), "--set", "seeds=2")
    assert shown.code == 0
    assert "split and random requests are those of seed 0, the first of 2" in shown.out
    one, some = shown.out.split("request some: suppression of 5 training items drawn at random")
    assert "request one: suppression of the concept given by files dog/02.png, cat/03.png" in one
    assert "training items to forget: 5" in some
    assert "train retain  train forget  test retain" in some
    only = cli("data", tmp_path / "a.yaml", "--requests", "some").out
    assert "request one" not in only
    assert only.endswith(some)
    unknown = cli("data", tmp_path / "a.yaml", "--requests", "sone")
    assert unknown.code == 2
    assert "--requests: unknown request 'sone'; known: one, some." in unknown.err


def test_a_generators_request_for_held_out_items_alone_is_shown_too(cli, pets, tmp_path):
    lines = [*folder(pets, "  split_seed: 2"), "request:", "  files: [dog/05.png]"]
    shown = cli("data", written(tmp_path / "a.yaml", *lines))
    assert shown.code == 2
    assert "never trained on: 1\n  25: dog/05.png, class dog" in shown.out
    assert "the request selects no training item" in shown.err


def test_a_request_for_held_out_items_alone_is_shown_before_it_is_refused(cli, pets, tmp_path):
    lines = [*folder(pets), "requests:", "  one:", "    files: [dog/01.png]"]
    shown = cli("data", written(tmp_path / "a.yaml", *lines))
    assert shown.code == 2
    assert "never trained on: 1\n  21: dog/01.png, class dog" in shown.out
    assert "requests.one: the request selects no training item" in shown.err


def test_the_requests_of_a_recommender(cli):
    shown = cli("data", ROOT / "configs" / "recommender" / "synthetic.yaml", "--requests", "random")
    assert shown.code == 0
    assert "synthetic: 600 users, 400 items, 24000 interactions" in shown.out
    assert rows(shown.out)["users"] == ["570", "30"]
    lines = [line.split() for line in shown.out.split("\n") if " interactions  " in line]
    assert sum(int(cell) for line in lines for cell in line[-2:]) == 24000
    assert "users to forget, 30:" in shown.out
    assert "and 20 more: see --list" in shown.out


def test_the_attributes_of_a_recommender(cli):
    out = cli("data", ROOT / "configs" / "recommender" / "attributes.yaml").out
    assert "attribute gender, to be taken out of the models of all users:" in out
    assert int(rows(out)["F"][0]) + int(rows(out)["M"][0]) == 300


def test_what_a_run_was_asked_before_is_left_out(cli, pets, tmp_path):
    config = written(tmp_path / "config.yaml", *folder(pets), "request:", "  labels: [dog]")
    dataset = load_dataset(load_config(config).data)
    before = ForgetRequest(files=["dog/01.png", "cat/02.png"])
    entry = Entry.of(before, dataset.forget_mask(before), "redirect")
    chain = Chain().extended(entry, dataset, {}, b"k" * 32)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "chain.json").write_text(json.dumps(chain.to_json()))
    whole, rest = cli("data", config, "--list").out, cli("data", tmp_path, "--trust", "--list").out
    assert "left out, since earlier requests of this model named them: 2 items" in rest
    assert "dog/01.png, class dog" in whole
    assert "dog/01.png, class dog" not in rest


def test_a_run_folder_is_read_by_its_own_config(cli, pets, tmp_path):
    written(tmp_path / "config.yaml", *folder(pets), "request:", "  labels: [dog]")
    assert cli("data", tmp_path, "--trust").out == cli("data", tmp_path / "config.yaml").out


def test_names_of_requests_are_not_for_generators(cli, pets, tmp_path):
    shown = cli("data", written(tmp_path / "a.yaml", *folder(pets)), "--requests", "one")
    assert shown.code == 2
    assert "--requests: a generator's config has one request" in shown.err
