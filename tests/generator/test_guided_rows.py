"""Comparisons, sweeps and tuning of rows whose samples are guided and whose weights stay."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import msgm
from msgm.config import load_config
from msgm.diffusion import ScoreModel
from msgm.diffusion.guidance import Guided, load_guided, read_guidance
from msgm.errors import UserError
from msgm.generator.tuning import GeneratorTuning
from msgm.runs import Run
from msgm.study.tuning import tune
from msgm.sweep import with_start, with_sweeps
from tests.conftest import DIGITS, settings
from tests.generator.test_tuning import SMALL

ROWS = [
    "rows.shielded={start: guide, guidance: {name: spell, radius: 2000}}",
    "rows.filtered={start: guide, guidance: {name: reject, steps: 20, threshold: 0.001}}",
    "rows.followed={start: guide, guidance: {name: dng, steps: 2}, training: {lr: 1.0e-3}}",
    "rows.classified={start: guide, guidance: {name: classifier, steps: 20, scale: 2}}",
]
NAMES = ["shielded", "filtered", "followed", "classified"]
ATTACKED = [
    "evaluation.metrics=[ur,nll,quantisation,partial-noise]",
    "evaluation.options={quantisation: {bits: [8], samples: 8}, partial-noise: {levels: [1.0], items: 4}}",
]


def arguments(out, *more):
    given = ("--only", ",".join(["do-nothing", *NAMES]), "--device", "cpu", "--out", out)
    return ["compare", DIGITS, *settings([*SMALL, *ROWS, *ATTACKED, *more]), *given]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("guided") / "run"
    assert main([str(argument) for argument in arguments(out)]) == 0
    return out


def rows_of(run):
    return {row["name"]: row for row in json.loads((run / "report.json").read_text())["rows"]}


def weights(folder):
    return (folder / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_the_weights_are_those_of_the_base_to_the_bit(made):
    rows = rows_of(made)
    assert len({weights(made / "rows" / name) for name in ["do-nothing", *NAMES]}) == 1
    assert len({row["provenance"]["model_digest"] for row in rows.values()}) == 1
    assert {rows[name]["start"] for name in NAMES} == {"guide"}
    assert {(rows[name]["steps"], rows[name]["weights"]) for name in NAMES} == {(0, "untouched")}
    assert (rows["shielded"]["objective"], rows["shielded"]["lr"], rows["followed"]["lr"]) == ("spell", None, 1e-3)
    assert rows["followed"]["settings"]["steps"] == 2
    assert rows["followed"]["found"] == {"share": pytest.approx(247 / 1257)}


def test_no_request_is_added_to_the_history(made):
    chains = [
        json.loads((made / "rows" / name / "model" / "chain.json").read_text()) for name in ("do-nothing", *NAMES)
    ]
    assert [chain["requests"] for chain in chains] == [[]] * 5


def test_samples_are_guided_and_attacks_on_the_weights_are_the_base_models(made):
    rows = rows_of(made)
    base = rows["do-nothing"]
    for name in NAMES:
        attacked = dict(rows[name]["quantisation"])
        assert attacked.pop("of") == "the weights, without the guidance of their samples"
        assert attacked == base["quantisation"]
    assert "of" not in base["quantisation"]
    views = [load_guided(made / "rows" / name / "model").sample(24, steps=4) for name in rows]
    assert len({tuple(samples.flatten().tolist()) for samples in views}) == 5
    assert "of" not in rows["shielded"]["partial_noise"]
    assert rows["filtered"]["partial_noise"] == base["partial_noise"]


def test_a_likelihood_is_measured_where_the_guidance_is_a_field_of_eps(made):
    rows = rows_of(made)
    assert rows["classified"]["nll"]["forget"]["mean"] != rows["do-nothing"]["nll"]["forget"]["mean"]
    assert "NLL forget" in rows["shielded"]["metrics"]
    for name, reason in (("filtered", "reject: samples are drawn anew"), ("followed", "dng: its weight depends on")):
        assert rows[name]["nll"]["not_tested"].startswith(reason)
        assert "NLL forget" not in rows[name]["metrics"]
    page = (made / "report.md").read_text()
    assert "Weights untouched: outputs were suppressed, nothing was removed: shielded, filtered" in page
    assert "No likelihood of dng" in page


def test_the_card_says_that_nothing_was_removed(made):
    card = json.loads((made / "rows" / "shielded" / "card.json").read_text())
    method = card["method"]
    assert (method["family"], method["steps"], method["objective"]) == ("guidance of samples", 0, "spell")
    assert method["touches"] == "weights untouched: outputs were suppressed, nothing was removed"
    assert method["formula"].startswith("D + sum_k")
    assert method["model_digest"] == card["header"]["base_digest"]
    (line,) = [line for line in card["cannot_say"] if "who holds them has the base model" in line]
    assert "weights untouched" in line
    assert any("nll: how likely real items are" in line for line in card["not_tested"]) is False
    other = json.loads((made / "rows" / "filtered" / "card.json").read_text())
    assert any("samples are drawn anew" in line for line in other["not_tested"])


@pytest.mark.parametrize("name", NAMES)
def test_a_rows_guidance_is_read_back_as_it_was(made, name):
    folder = made / "rows" / name / "model"
    view = load_guided(folder)
    assert isinstance(view, Guided)
    assert type(ScoreModel.load(folder)) is ScoreModel
    again = read_guidance(folder.parent / "guidance", view.base)
    assert again.effective() == view.guidance.effective()
    found = view.guidance.state()
    assert found
    assert all(torch.equal(tensor, again.state()[key]) for key, tensor in found.items())


def test_a_run_is_sampled_as_it_was_measured(cli, made, tmp_path):
    given = ("-n", 12, "--steps", 3, "--device", "cpu")
    for name in ("classified", "do-nothing"):
        outcome = cli("sample", made / "rows" / name, *given, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
    first, other = (np.load(tmp_path / name / "samples.npz")["samples"] for name in ("classified", "do-nothing"))
    assert (first != other).any()
    told = cli("sample", made / "rows" / "do-nothing", *given, "--out", tmp_path / "classified")
    assert "holds other samples (guidance" in told.err
    read = msgm.ScoreModel.from_pretrained(made / "rows" / "shielded")
    assert torch.equal(read.sample(3, steps=3), load_guided(made / "rows" / "shielded" / "model").sample(3, steps=3))


def test_the_same_command_keeps_what_is_there_and_verify_finds_it_whole(cli, made, tmp_path):
    outcome = cli(*arguments(made))
    assert outcome.code == 0, outcome.err
    assert "shielded: kept" in outcome.out
    copied = tmp_path / "copy"
    shutil.copytree(made, copied)
    assert cli("verify", copied).code == 0
    (copied / "rows" / "shielded" / "guidance" / "found.safetensors").write_bytes(b"other")
    assert cli("verify", copied).code != 0
    listed = cli("forget-traces", made / "rows" / "shielded")
    assert "what guides samples" in listed.out


def test_a_guided_run_is_measured_alone_too(cli, made, tmp_path):
    given = ("--metrics", "ur", "--out", tmp_path / "out", "--device", "cpu")
    outcome = cli("evaluate", made / "rows" / "shielded", *given)
    assert outcome.code == 0, outcome.err
    (row,) = rows_of(tmp_path / "out").values()
    assert (row["start"], row["objective"], row["steps"]) == ("guide", "spell", 0)
    assert row["unlearning_ratio"] == rows_of(made)["shielded"]["unlearning_ratio"]


def test_nothing_is_trained_from_a_guided_view(cli, made, tmp_path):
    given = (*settings([*SMALL, "objective.name=unseen"]), "--device", "cpu", "--out", tmp_path / "out")
    outcome = cli("unlearn", DIGITS, "--from", made / "rows" / "shielded", *given)
    assert outcome.code == 2
    assert "only the samples are guided; start from that model" in outcome.err
    view = load_guided(made / "rows" / "shielded" / "model")
    with pytest.raises(UserError, match=r"give model\.base"):
        msgm.fit(view, "digits", steps=1)
    (made / "rows" / "shielded" / "guidance").rename(tmp_path / "away")
    try:
        assert type(load_guided(made / "rows" / "shielded" / "model")) is ScoreModel
    finally:
        (tmp_path / "away").rename(made / "rows" / "shielded" / "guidance")


def test_a_configs_rows_survive_being_written():
    config = load_config(DIGITS, ROWS)
    assert load_config(yaml.safe_load(config.to_yaml())).to_dict() == config.to_dict()
    assert config.rows["shielded"].objective == {}


SPELL = "rows.mine={start: guide, guidance: {name: spell}"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rows.mine={start: guide}"], "rows.mine: start: guide needs the setting guidance"),
        (["rows.mine={start: edit, edit: {name: prune}, guidance: {name: spell}}"], "no other start has one"),
        (["rows.mine={start: guide, guidance: {name: spel}}"], "did you mean 'spell'"),
        (["rows.mine={start: guide, guidance: {name: spell, radus: 1}}"], "guidance.radus"),
        ([SPELL + ", objective: {name: unseen}}"], "start: guide makes no steps, so it has no objective"),
        ([SPELL + ", training: {lr: 0.1}}"], "training.lr: guidance 'spell' trains no weights"),
        (["rows.mine={start: guide, guidance: {name: dng}, training: {steps: 9}}"], "its own guidance.steps"),
        (["rows.mine={start: guide, guidance: {name: dng, label: 3}}"], "guidance.label must name a class"),
        (["rows.mine={start: guide, guidance: {name: classifier-free}}"], "set network.classes"),
        (
            [
                "rows.mine={start: guide, guidance: {name: classifier-free}}",
                "network.classes=10",
                "sampling.guidance=2",
            ],
            "sampling.guidance: these samples have classifier-free guidance already",
        ),
        (
            ["rows.mine={start: guide, guidance: {name: dng}}", "sampling.sampler=pf-ode-adaptive"],
            "sampling.sampler: guidance 'dng' follows a path level by level",
        ),
    ],
)
def test_a_faulty_guidance_is_refused_in_one_sentence(overrides, told):
    with pytest.raises(UserError, match="(?i)" + told):
        load_config(DIGITS, overrides)


def test_guidance_is_no_training(cli, tmp_path):
    for command in (["train"], ["unlearn", "--from", tmp_path / "none"]):
        outcome = cli(*command, DIGITS, "--set", "guidance.name=spell", "--out", tmp_path / "out")
        assert "so nothing is trained or unlearnt" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_names_the_rows(cli):
    outcome = cli("compare", DIGITS, *settings([*SMALL, *ROWS]), "--only", "do-nothing,shielded", "--dry-run")
    assert "rows with guidance leave the weights as they are, make no step and are left out: shielded" in outcome.out


def test_a_guidances_setting_is_swept():
    config, names = with_sweeps(load_config(DIGITS, ROWS), ["guidance.scale=1,4"], ["classified"])
    assert names[-2:] == ["classified@scale=1.0", "classified@scale=4.0"]
    assert config.rows["classified@scale=4.0"].guidance["scale"] == 4
    with pytest.raises(UserError, match="has no effect on row 'shielded'"):
        with_sweeps(load_config(DIGITS, ROWS), ["training.lr=0.1"], ["shielded"])
    assert with_start(load_config(DIGITS, ROWS), "scratch").rows["shielded"].start == "guide"


def test_a_guidances_settings_are_tuned(tmp_path):
    pytest.importorskip("optuna")
    config = load_config(DIGITS, [*SMALL, *ROWS])
    tunable = GeneratorTuning(config, Run(tmp_path), None, "cpu")
    assert set(tunable.rows()["classified"].space) == {"guidance.scale"}
    assert set(tunable.rows()["shielded"].space) == {"guidance.radius"}
    assert not {"filtered", "followed"} & tunable.rows().keys()
    found = tune(tunable, Run(tmp_path), config.name, 0, 1, ["classified"], "objective")
    assert found["budget"] == "4 steps; guidance makes none"
