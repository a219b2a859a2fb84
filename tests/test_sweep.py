import json
from dataclasses import dataclass

import pytest

from msgm.cli import main
from msgm.config import load_config
from msgm.errors import UserError
from msgm.objectives import OBJECTIVES, Card, Mixed, mean_square
from msgm.sweep import swept, with_start, with_stored_sweeps, with_sweeps
from tests.conftest import DIGITS, settings

REFERENCES = ["do-nothing", "unseen-scratch", "unseen"]
COMPARISON = [
    "network.channels=[8]",
    "training.steps=2",
    "training.warmup=0",
    "training.trackers=[]",
    "finetune={steps: 1, lr: 1e-3}",
    "rows.obtuse.training.steps=1",
    "evaluation.samples=10",
    "evaluation.judge.epochs=1",
    "evaluation.judge.width=8",
    "evaluation.likelihood.steps=2",
    "evaluation.nll_items=2",
    "sampling.steps=2",
]


def sweep(text, only=None, overrides=()):
    return with_sweeps(load_config(None, list(overrides)), [text], only)


def refused(text, only=None) -> str:
    with pytest.raises(UserError) as error:
        sweep(text, only)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_row_with_the_setting_is_run_once_for_every_value():
    config, names = sweep("objective.alpha=0.7,.90")
    rows = [f"{row}@alpha={value}" for row in ("orthogonal", "obtuse", "redirect") for value in ("0.7", "0.9")]
    assert names == [*REFERENCES, *rows]
    for name in rows:
        row, _, value = swept(name)
        assert config.rows[name].objective == config.rows[row].objective | {"alpha": float(value)}
        assert config.rows[name].start == "finetune"
        assert config.rows[name].optional


def test_only_names_the_rows_to_sweep_also_optional_ones():
    names = sweep("objective.alpha=0.7", ["erasediff-weighted", "obtuse"])[1]
    assert names == [*REFERENCES, "erasediff-weighted@alpha=0.7", "obtuse@alpha=0.7"]


def test_alpha_1_is_the_row_unseen_where_both_are_trained_alike():
    assert sweep("objective.alpha=0.9,1", ["obtuse"])[1] == [*REFERENCES, "obtuse@alpha=0.9"]
    longer = sweep("objective.alpha=1", ["obtuse"], ["rows.obtuse.training.steps=9"])[1]
    assert longer == [*REFERENCES, "obtuse@alpha=1.0"]


def test_settings_of_training_are_swept_too():
    config, names = sweep("training.steps=3,4", ["obtuse"])
    assert names == [*REFERENCES, "obtuse@steps=3", "obtuse@steps=4"]
    assert [config.row_training(config.rows[name]).steps for name in names[3:]] == [3, 4]


def test_sweeps_are_one_setting_each():
    names = with_sweeps(load_config(), ["objective.alpha=0.7", "objective.every=1,4"], ["obtuse"])[1]
    assert names == [*REFERENCES, "obtuse@alpha=0.7", "obtuse@every=1", "obtuse@every=4"]


@pytest.mark.parametrize(
    ("text", "row", "values"),
    [
        ("objective.mask.keep=.3,0.5", "salun", [0.3, 0.5]),
        ("objective.mask.by=fisher", "salun", ["fisher"]),
        ("objective.mask.threshold=2", "sfr-on", [2.0]),
        ("objective.anchor.weight=10,1e5", "selective-amnesia", [10.0, 1e5]),
        ("objective.combine.ratio=.2", "siss", [0.2]),
        ("objective.combine=agem,cone", "erasediff-pcgrad", ["agem", "cone"]),
        ("edit.share=.02", "prune", [0.02]),
        ("edit.choose=random", "prune", ["random"]),
    ],
)
def test_settings_of_masks_anchors_combinations_and_edits_are_swept(text, row, values):
    own = ["rows.prune={start: edit, edit: {name: prune}, optional: true}"]
    config, names = sweep(text, [row], own)
    section, _, key = text.partition("=")[0].partition(".")
    part, dot, name = key.partition(".")
    assert names == [*REFERENCES, *(f"{row}@{key}={value}" for value in values)]
    before = getattr(config.rows[row], section)
    for value, made in zip(values, names[3:], strict=True):
        after = getattr(config.rows[made], section)
        assert after == before | {part: before[part] | {name: value} if dot else value}
        assert swept(made) == (row, key, str(value))


def test_a_part_s_setting_without_an_effect_on_the_row_is_not_swept():
    assert "has no effect on row 'sfr-on'" in refused("objective.mask.keep=.3", ["sfr-on"])
    assert "has no effect on row 'redirect'" in refused("objective.mask.keep=.3", ["redirect"])


def test_a_value_may_be_null():
    config, names = sweep("objective.floor=null,1")
    assert names == [*REFERENCES, "obtuse@floor=null", "obtuse@floor=1.0"]
    assert config.rows["obtuse@floor=null"].objective["floor"] is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("objective.alhpa=1", ["objective.alhpa", "Did you mean 'alpha'?"]),
        ("training.step=1", ["training.step", "Did you mean 'steps'?"]),
        ("objective.mask.kep=.3", ["objective.mask.kep", "Did you mean 'mask.keep'?"]),
        ("objective.msk.keep=.3", ["objective.msk.keep", "Did you mean 'mask.keep'?"]),
        ("objective.mask=.3", ["objective.mask", "no row has it"]),
        ("objective.anchor.weigth=.3", ["Did you mean 'anchor.weight'?"]),
        ("objectiv.alpha=1", ["objectiv.alpha=1", "Did you mean 'objective'?"]),
        ("objective.alpha", ["objective.SETTING=V1,V2"]),
        ("objective.alpha=.7,", ["objective.SETTING=V1,V2"]),
        ("alpha=.7", ["objective.SETTING=V1,V2"]),
        ("objective.alpha=2", ["objective.alpha", "[0, 1]", "2.0"]),
        ("objective.alpha=many", ["objective.alpha", "many"]),
        ("training.steps=0", ["training.steps", "at least 1"]),
        ("training.trackers=a", ["training.trackers"]),
        ("objective.teacher_steps=0", ["teacher_steps"]),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_sentence(text, parts):
    for part in parts:
        assert part in refused(text)


@pytest.mark.parametrize(
    ("only", "part"),
    [
        ("redirekt", "Did you mean 'redirect'?"),
        ("unseen", "has no effect on row 'unseen'"),
        ("erasediff", "has no effect on row 'erasediff'"),
        ("do-nothing", "has no effect on row 'do-nothing'"),
    ],
)
def test_rows_without_the_setting_are_refused(only, part):
    assert part in refused("objective.alpha=.7", [only])


def test_a_value_that_cannot_name_a_folder_is_refused():
    known = dict(OBJECTIVES.entries)

    @OBJECTIVES.register("filed")
    @dataclass
    class Filed(Mixed):
        file: str = "a"
        card = Card("", "", "")

        def forget_loss(self, predicted, forget):
            return mean_square(predicted)

    try:
        with pytest.raises(UserError, match="cannot name a folder"):
            sweep("objective.file=../a", None, ["rows.mine.objective.name=filed"])
    finally:
        OBJECTIVES.entries.clear()
        OBJECTIVES.entries.update(known)


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal@home", "a=b"])
def test_other_names_are_no_swept_rows(name):
    assert swept(name) is None


def test_swept_rows_survive_the_config_file_and_are_taken_over(tmp_path):
    config, _ = sweep("objective.alpha=0.7", ["obtuse"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml").rows == config.rows
    assert with_stored_sweeps(load_config(), config.to_dict()).rows == config.rows
    assert with_stored_sweeps(load_config(), None).rows == load_config().rows


def test_start_scratch_moves_the_rows_and_leaves_one_unseen(capsys):
    config = load_config(None, ["rows.obtuse.training.steps=7"])
    moved = with_start(config, "scratch")
    assert list(moved.rows) == [name for name in config.rows if name != "unseen"]
    starts = {name: row.start for name, row in moved.rows.items()}
    assert starts["do-nothing"] == "none"
    assert {starts[name] for name in ("unseen-scratch", "orthogonal", "obtuse", "redirect")} == {"scratch"}
    assert moved.rows["obtuse"].training == {}
    printed = capsys.readouterr().out
    assert "row unseen is unseen-scratch" in printed
    assert "{'steps': 7}" in printed


def test_start_finetune_leaves_the_retrained_reference():
    config = load_config(None, ["rows.obtuse.start=scratch"])
    moved = with_start(config, "finetune")
    assert moved.rows["obtuse"].start == "finetune"
    assert moved.rows["unseen-scratch"].start == "scratch"
    assert moved.rows["unseen"].start == "finetune"


@pytest.mark.parametrize(
    ("name", "start", "steps"), [("mnist/ve", "scratch", 100000), ("cifar10/vp", "finetune", 80000)]
)
def test_the_papers_configs_hold_the_rows_of_its_tables(name, start, steps):
    config = load_config(DIGITS.parent.parent / f"{name}.yaml")
    for row in (config.rows[name] for name in ("orthogonal", "obtuse", "erasediff-weighted")):
        assert (row.start, config.row_training(row).steps, row.optional) == (start, steps, False)
        assert (row.objective["alpha"], row.objective["every"]) == (0.99, 4)


def test_the_small_mnist_config_fine_tunes():
    rows = load_config(DIGITS.parent.parent / "mnist/ve_small.yaml").rows
    assert {row.start for row in rows.values() if row.objective["name"] in ("orthogonal", "obtuse")} == {"finetune"}


@pytest.fixture(scope="module")
def swept_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "run"
    assert compare(out, "--sweep", "objective.alpha=0.9,0.5,1", "--only", "obtuse") == 0
    return out


def compare(out, *more):
    return main(["compare", str(DIGITS), *settings(COMPARISON), "--device", "cpu", "--out", str(out), *more])


def test_a_sweep_is_run_tabled_and_drawn(swept_folder):
    report = json.loads((swept_folder / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == [*REFERENCES, "obtuse@alpha=0.9", "obtuse@alpha=0.5"]
    (table,) = report["paper"]
    assert table["title"] == "Sweep of alpha: obtuse (layout of the paper's Table 7)"
    assert table["columns"] == ["alpha", "row", "closed-set UR %", "NLL D_g", "NLL D_f"]
    assert [cells[0] for cells in table["rows"]] == ["0.5", "0.9", "1.0", "do-nothing", "unseen-scratch"]
    assert table["rows"][2][1] == "unseen"
    assert (swept_folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert 'alt="Measures against the swept settings."' in (swept_folder / "report.html").read_text()
    assert table["title"] in (swept_folder / "report.md").read_text()


def test_a_later_call_keeps_the_swept_rows_and_another_start_is_refused(swept_folder, capsys):
    assert compare(swept_folder, "--only", "do-nothing") == 0
    assert "Sweep of alpha: obtuse" in capsys.readouterr().out
    assert compare(swept_folder, "--start", "scratch") == 2
    assert "start: finetune -> scratch" in capsys.readouterr().err


def test_rows_are_run_from_random_weights(tmp_path):
    assert compare(tmp_path, "--start", "scratch", "--only", "do-nothing,orthogonal") == 0
    manifest = json.loads((tmp_path / "rows/orthogonal/manifest.json").read_text())
    assert (manifest["start"], manifest["source"]) == ("scratch", None)
