"""Comparisons through the command line, on a few users and items."""

import json
import re
from shutil import copytree

import pytest

from msgm.reading import read_json
from msgm.recommender.card import WORDS
from msgm.recommender.ladder import LADDER
from msgm.recommender.models import MODELS
from msgm.recommender.report import VIEWS
from msgm.solves import Solve
from msgm.study.card import make_card
from msgm.study.judging import share_of_retraining
from tests.conftest import settings
from tests.helpers import NASTY, as_name, blocks

ONLY = "do-nothing,retrain,native,matrix-correction,sisa"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "c.yaml"
    path.write_text(
        """
name: tiny
data: {name: synthetic, users: 60, items: 40, interactions: 900, least: 5}
models: {ease: {regularisation: 20.0}, item-knn: {}}
methods: {sisa: {shards: 3}}
requests:
  few: {random_users: 5}
  fake: {spam: 6, methods: [native]}
  stream: {stream: 4, models: [ease]}
"""
    )
    return path


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["recommender", "compare", str(config), "--only", ONLY, "--out", str(out)]) == 0
    return out


def rows_of(folder):
    return {(row["model"], row["request"], row["method"]): row for row in read_json(folder / "report.json")["rows"]}


def test_the_report_has_a_row_a_model_request_and_method(made):
    report, rows = read_json(made / "report.json"), rows_of(made)
    every, few = ONLY.split(","), ["do-nothing", "retrain", "native"]
    wanted = {(m, "few", x) for m in ("ease", "item-knn") for x in every}
    wanted |= {(m, "fake", x) for m in ("ease", "item-knn") for x in few} | {("ease", "stream", x) for x in every}
    assert set(rows) == wanted
    assert (report["kind"], report["seeds"], report["data"]["users"]) == ("recommender", [0, 1], 60)
    assert report["requests"]["few"]["users"] == 5
    assert report["requests"]["stream"]["requests"] == 4
    for row in rows.values():
        assert row["seconds"] >= 0
        number = row["metrics"]["ndcg"]
        assert {"value", "low", "high", "band", "text", "section", "better"} <= set(number)
        assert len(row["per_seed"]) == 2
    assert rows["ease", "few", "retrain"]["exactness"] == "bit-exact"
    assert rows["ease", "few", "native"]["exactness"] == "exact up to rounding"
    assert rows["ease", "few", "do-nothing"]["exactness"] == "none"
    assert rows["ease", "few", "sisa"]["preparation_seconds"] > 0


def test_exact_rows_have_the_numbers_of_the_retrained_models_and_doing_nothing_has_not(made):
    for key, row in rows_of(made).items():
        if key[2] == "native":
            assert row["metrics"]["ndcg"]["value"] == pytest.approx(row["metrics"]["ndcg"]["band"]["mean"], abs=1e-9)
            assert row["metrics"]["score_distance"]["value"] < 1e-9
        if key[2] == "do-nothing":
            assert row["metrics"]["score_distance"]["value"] > 1e-3


def test_forgetting_planted_profiles_undoes_the_promotion(made):
    exposure = {key[2]: row["metrics"]["promoted_exposure"]["value"] for key, row in rows_of(made).items() if key[:2] == ("ease", "fake")}  # fmt: skip # noqa: E501
    assert exposure["do-nothing"] > exposure["native"] == exposure["retrain"]


def test_a_stream_is_answered_one_by_one_and_its_latencies_are_kept(made):
    rows = rows_of(made)
    native, sisa = rows["ease", "stream", "native"], rows["ease", "stream", "sisa"]
    assert len(native["latencies"]) == len(sisa["latencies"]) == 4
    assert native["facts"]["answered"] == "one by one"
    assert native["facts"]["latency_median"] <= native["facts"]["latency_p95"]
    assert rows["ease", "stream", "retrain"]["facts"]["answered"] == "at once"
    assert sisa["exactness"] == "bit-exact"


def test_views_and_cards_are_written_and_self_contained(made):
    page = (made / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "http" not in page.replace("http-equiv", "")
    assert "| ease | do-nothing |" in (made / "report.md").read_text()
    assert 'href="cards/ease/few/native/card.html"' in page
    assert (made / "cards" / "ease" / "few" / "native" / "card.html").is_file()


def test_tables_have_intervals_and_banners_name_the_fastest_exact_answer(made):
    text, page = (made / "report.md").read_text(), (made / "report.html").read_text()
    row = next(line for line in text.split("\n") if line.startswith("| ease | do-nothing |"))
    assert re.search(r"\| 0\.\d{3} ± 0\.\d{3}(\\\*)? \|", row), row
    band = next(line for line in text.split("\n") if line.startswith("| ease | band of retrained |"))
    assert re.search(r"\| 0\.\d{3}\.\.0\.\d{3} \|", band), band
    assert "bit-exact (of its shards)" in text
    told = r"^- fake: 2 of 2 answers exact; the fastest takes \S+% of a refit's time: native on \S+, \S.*\.$"
    assert re.search(told, text, re.M)
    assert "other settings" not in text
    assert 'class="outside">0.' in page


def renamed(report, text):
    """The report with a title, a model, a method, a request and a note that hold this text."""
    name = json.dumps(as_name(text))
    report = json.loads(json.dumps(report).replace('"ease"', name).replace('"native"', name))
    report |= {"title": text, "protocol": report["protocol"] | {text: text}}
    left = {"request": "few", "method": text, "model": text, "status": text, "reason": text}
    report["requests"]["few"]["text"] = text
    return report | {"left_out": [left]}


def test_texts_of_users_change_nothing_around_them(made):
    report = read_json(made / "report.json")
    assert blocks(VIEWS.markdown(renamed(report, NASTY))) == blocks(VIEWS.markdown(renamed(report, "x")))
    assert r"\$\frac" in VIEWS.markdown(renamed(report, r"$\frac$ *"))
    changed = renamed(report, r"$\frac$ *")
    page = VIEWS.html(changed, {VIEWS.link(row): make_card(changed, row, WORDS) for row in changed["rows"]})
    assert 'class="outside">0.' in page
    assert r'class="outside">$' not in page


def test_a_solver_that_did_not_converge_is_said_in_the_table(made):
    report = read_json(made / "report.json")
    assert {row["converged"] for row in report["rows"]} == {None}
    assert "not converged" not in VIEWS.markdown(report)
    report["rows"][0]["solve"] = Solve(2.7, 1e-3, 20).facts()
    text = VIEWS.markdown(report)
    assert ", not converged |" in text
    assert "not converged: relative residual 2.7" in text


@pytest.mark.parametrize(("answered", "share"), [("one by one", 0.05), ("at once", 5.0), (None, 5.0)])
def test_the_seconds_of_a_stream_are_shared_among_its_requests(answered, share):
    report = {"requests": {"s": {"requests": 100}}}
    row = {"request": "s", "seconds": 10.0, "refit_seconds": 2.0, "facts": {"answered": answered}}
    assert share_of_retraining(report, row, LADDER) == pytest.approx(share)
    assert share_of_retraining(report, row | {"refit_seconds": None}, LADDER) is None


def test_a_second_call_runs_nothing_and_gives_the_same_rows(made, config, cli, monkeypatch):
    before = rows_of(made)
    monkeypatch.setattr(MODELS.entries["ease"], "fit", None)
    done = cli("recommender", "compare", config, "--only", ONLY, "--out", made)
    assert done.code == 0, done.err
    assert done.out.count(": kept") == len(before)
    assert rows_of(made) == before


def test_a_method_with_other_settings_is_run_again_and_the_others_kept(made, config, cli):
    before = rows_of(made)
    part = ["--only", "sisa", "--models", "ease", "--requests", "few"]
    done = cli("recommender", "compare", config, *part, "--out", made, *settings(["methods.sisa.shards=2"]))
    assert done.code == 0, done.err
    after = rows_of(made)
    changed = {key for key in after if after[key] != before[key]}
    assert ("ease", "few", "sisa") in changed
    assert {key[2] for key in changed} == {"sisa"}
    cli("recommender", "compare", config, "--only", "sisa", "--out", made)


def test_a_cell_that_fails_is_a_line_with_the_reason_and_the_others_go_on(config, cli, tmp_path):
    arguments = ["--only", "native,sisa", "--requests", "few", "--out", tmp_path / "run"]
    models = ["models.mf={}", "models.ease.max_items=3"]
    done = cli("recommender", "compare", config, *arguments, *settings(models))
    assert done.code == 0, done.err
    report = read_json(tmp_path / "run" / "report.json")
    assert {row["model"] for row in report["rows"]} == {"item-knn"}
    reasons = {line["model"]: line["reason"] for line in report["left_out"]}
    assert "every value is 1" in reasons["mf"]
    assert "max_items allows 3" in reasons["ease"]
    assert "every value is 1" in (tmp_path / "run" / "report.md").read_text()


def test_records_of_other_settings_do_not_stand_beside_one_another(made, config, cli, tmp_path):
    """Of other seeds, metrics or models they are left out; of a method alone they are shown as they were made."""
    folder = tmp_path / "copy"
    copytree(made, folder)
    part = ["--only", "native", "--models", "ease", "--requests", "few", "--out", folder]
    done = cli("recommender", "compare", config, *part, *settings(["methods.sisa.shards=2"]))
    assert done.code == 0, done.err
    assert rows_of(folder)["ease", "few", "sisa"]["settings"]["shards"] == 3
    ran = [("ease", "few", "native")]
    for change in ("seeds=3", "metrics=[ranking]"):
        done = cli("recommender", "compare", config, *part, *settings([change]))
        assert done.code == 0, done.err
        assert list(rows_of(folder)) == ran
        assert f"{read_json(folder / 'report.json')['other_settings']} rows of other settings left out." in done.out
    done = cli("recommender", "compare", config, *part, *settings(["models.ease.regularisation=30"]))
    assert done.code == 0, done.err
    assert [key for key in rows_of(folder) if key[0] == "ease"] == ran
    assert ("item-knn", "few", "sisa") in rows_of(folder)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--only", "sis"], ["--only: unknown method 'sis'", "Did you mean 'sisa'?"]),
        (["--models", "easy"], ["--models: unknown model 'easy'"]),
        (["--requests", "many"], ["--requests: unknown request 'many'", "few, fake, stream"]),
        (settings(["models=null"]), ["models"]),
        (settings(["requests.few.random_users=60"]), ["60 of 60 users leave none"]),
        (settings(["data.users=1"]), ["data.users must be at least 2"]),
        (settings(["split.test=0"]), ["no test cell"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(config, cli, tmp_path, arguments, parts):
    done = cli("recommender", "compare", config, *arguments, "--out", tmp_path / "run")
    assert done.code == 2
    assert all(part in done.err for part in parts), done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_another_experiment_in_the_folder_is_refused(made, config, cli):
    done = cli("recommender", "compare", config, "--out", made, "--seed", 5)
    assert done.code == 2
    assert "holds an experiment with other settings (seed: 0 -> 5); give another --out" in done.err


def test_views_are_rebuilt_from_the_report(made, cli):
    (made / "report.md").unlink()
    done = cli("report", made)
    assert done.code == 0, done.err
    assert "completeness" in done.out or "AUC" in done.out
    assert (made / "report.md").is_file()
