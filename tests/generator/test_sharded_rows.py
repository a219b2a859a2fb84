"""Rows of a comparison whose model is sharded: what they delete, what they cost, and the only row that says removal."""

import json

import pytest

from msgm.chain import read_chain
from msgm.cli import main
from msgm.config import load_config
from msgm.data import load_dataset
from msgm.diffusion import ScoreModel, Sharded
from msgm.errors import UserError
from msgm.evaluation.deletion import duty
from msgm.evaluation.report import verdict
from msgm.training.run import split_data
from tests.conftest import DIGITS, settings
from tests.generator.test_tuning import SMALL

ITEMS = [3, 14, 15]
ROWS = [
    "rows.sharded={start: shards, shards: {count: 4, mixture: drawn}}",
    "rows.shielded={start: guide, guidance: {name: spell, radius: 2000}}",
]
REQUEST = [
    f"request={{labels: [], indices: {ITEMS}, goal: removal, target: observed}}",
    "evaluation.metrics=[ur,nll]",
    "evaluation.nll_items=3",
]
NAMES = ["do-nothing", "unseen-scratch", "unseen", "sharded", "shielded"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "run"
    given = settings([*[o for o in SMALL if not o.startswith("request")], *ROWS, *REQUEST])
    arguments = ["compare", str(DIGITS), *given, "--only", ",".join(NAMES), "--device", "cpu", "--out", str(out)]
    assert main(arguments) == 0
    return out


def rows_of(run):
    return {row["name"]: row for row in json.loads((run / "report.json").read_text())["rows"]}


def card(run, name):
    return json.loads((run / "rows" / name / "card.json").read_text())


def test_the_hit_shards_alone_were_trained_again(made):
    row, log = rows_of(made)["sharded"], made / "rows" / "sharded" / "shards"
    deletion = row["deletion"]
    assert deletion["shards"] == 4
    assert 1 <= len(deletion["hit"]) <= 3
    assert (row["steps"], row["drawn"]) == (
        5 * len(deletion["hit"]),
        {"retain": 5 * len(deletion["hit"]) * 16, "forget": 0},
    )
    assert deletion["share"] == len(deletion["hit"]) / 4
    assert deletion["expected_hit"] == pytest.approx(4 * (1 - 0.75**3))
    assert sum(deletion["sizes"].values()) == json.loads((log / "../manifest.json").read_text())["items"]["retain"]
    assert len(list(log.glob("shard-*"))) == 4
    assert (row["preparation_seconds"] > 0, row["storage_bytes"] > 4 * 4 * 1000) == (True, True)


def test_the_model_is_a_mixture_whose_history_has_the_request(made):
    folder = made / "rows" / "sharded" / "model"
    model = ScoreModel.load(folder)
    assert isinstance(model, Sharded)
    assert (model.mixture, len(model.shards)) == ("drawn", 4)
    (entry,) = read_chain(folder).requests
    assert (entry.by, entry.positions.tolist()) == ("sharded", ITEMS)


def test_the_card_says_what_was_deleted_at_what_cost_and_what_quality_it_took(made):
    found = card(made, "sharded")
    method = found["method"]
    assert (method["family"], method["objective"]) == ("exact: sharded", "sharded")
    assert "of 4 shards held an item to forget (expected: 2.3)" in method["deletion"]
    assert "MB" in method["storage"]
    assert "1 - (1 - 1/K)^m" in method["expected_cost"]
    base, row = rows_of(made)["do-nothing"], rows_of(made)["sharded"]
    for part in (row, base):
        assert f"{part['nll']['retain']['mean']:.2f}" in method["quality"]
    assert found["level"] == "C4"


def test_the_sharded_row_alone_says_removal(made):
    duties = {name: card(made, name)["method"]["duty"] for name in NAMES}
    assert duties["sharded"].startswith("removal")
    others = {name: text for name, text in duties.items() if name != "sharded"}
    assert not any("removal" in text for text in others.values())
    assert {name for name, text in others.items() if text == "suppression at most"} == {"unseen", "shielded"}
    text = dict(verdict(json.loads((made / "report.json").read_text())))["Shown"]
    assert "Removal of the listed items, exact by algorithm: sharded." in text


def test_a_concept_is_not_removed_with_its_items():
    row = {"start": "shards", "objective": "sharded", "deletion": {"hit": [1]}}
    assert duty(row, observed=True).startswith("removal of the listed items")
    assert "removal" not in duty(row, observed=False)
    assert "removal" not in duty(row | {"deletion": None}, observed=True)


def test_samples_are_drawn_of_a_row(made, cli, tmp_path):
    assert cli("sample", made / "rows" / "sharded", "-n", "2", "--out", tmp_path / "samples").code == 0
    assert [*(tmp_path / "samples").iterdir()]


def test_a_further_item_is_deleted_by_command_line_and_reported(made, cli, tmp_path):
    row, out = made / "rows" / "sharded", tmp_path / "less"
    config = load_config(row / "config.yaml")
    item = int(split_data(config, load_dataset(config.data)).train.retain[0])
    given = ["--set", f"request.indices=[{item}]", "--device", "cpu", "--out", out]
    assert cli("unlearn", row / "config.yaml", "--from", row, *given).code == 0
    assert cli("evaluate", out, "--device", "cpu").code == 0
    (found,) = json.loads((out / "report.json").read_text())["rows"]
    assert (found["start"], len(found["deletion"]["hit"]), found["deletion"]["steps"]) == ("shards", 1, 5)
    assert "1 of 4 shards held an item to forget" in (out / "report.md").read_text()


def test_a_second_call_keeps_the_row(made):
    before = (made / "rows" / "sharded" / "manifest.json").read_bytes()
    given = settings([*[o for o in SMALL if not o.startswith("request")], *ROWS, *REQUEST])
    again = ["compare", str(DIGITS), *given, "--only", "do-nothing,sharded", "--device", "cpu", "--out", str(made)]
    assert main(again) == 0
    assert (made / "rows" / "sharded" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{start: shards}", "start: shards needs the setting shards"),
        ("{start: scratch, shards: {count: 3}, objective: {name: unseen}}", "no other start has one"),
        ("{start: shards, shards: {count: 0}}", "shards.count"),
        ("{start: shards, shards: {cuont: 3}}", "Did you mean 'count'"),
        ("{start: shards, shards: {mixture: mean}}", "mixture"),
        ("{start: shards, shards: {count: 3}, objective: {name: unseen}}", "leave it out"),
    ],
)
def test_settings_that_do_not_fit_are_refused(row, said):
    with pytest.raises(UserError, match=said):
        load_config(DIGITS, [f"rows.mine={row}"])


def test_a_path_by_posterior_needs_a_sampler_of_the_reverse_sde():
    for sampler in ("pf-ode-adaptive", "ddim", "heun"):
        with pytest.raises(UserError, match="rows.mine: sampling.sampler: .* a path of the reverse SDE"):
            load_config(DIGITS, ["rows.mine={start: shards, shards: {count: 2}}", f"sampling.sampler={sampler}"])
    given = ["rows.mine={start: shards, shards: {count: 2, mixture: drawn}}", "sampling.sampler=ddim"]
    assert "mine" in load_config(DIGITS, given).rows


def test_shards_are_refused_where_no_comparison_is(made, cli):
    found = cli(
        "unlearn",
        DIGITS,
        "--set",
        "objective.name=unseen",
        "--from",
        made / "rows" / "sharded",
        "--out",
        made.parent / "more",
    )
    assert found.code == 2
    assert "forget by deletion and are not fine-tuned" in found.err
