"""Attribute comparisons through the command line, on a few users in whose tastes attributes are planted."""

import json

import numpy as np
import pytest

from msgm.folders import write_json
from msgm.reading import read_json
from msgm.recommender.config import load_experiment
from msgm.recommender.data import SOURCES
from msgm.recommender.erasure.assemble import _control, _judged, noise_of
from msgm.recommender.erasure.config import AttributeConfig
from msgm.recommender.erasure.erasures import CARDS
from msgm.recommender.erasure.report import _interval, summary, to_html, to_markdown
from msgm.recommender.metrics.attribute_attackers import ATTACKERS
from msgm.recommender.models import MODELS
from tests.conftest import ROOT, settings
from tests.helpers import NASTY, blocks

ERASURES = ["class-mean", "leace", "obfuscation"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "c.yaml"
    path.write_text(
        """
name: tiny
data: {name: synthetic, users: 120, items: 60, interactions: 2400, least: 5, correlation: 0.9}
attribute: gender
folds: 2
models:
  als: {factors: 6, sweeps: 5}
  mult-vae: {hidden: 16, latent: 6, epochs: 5}
erasures: {adversarial-mult-vae: {reversal: 2.0, head_hidden: 4}, distribution: null, rate-distortion: null}
"""
    )
    return path


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    from msgm.cli import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    only = ",".join([*ERASURES, "adversarial-mult-vae"])
    assert main(["recommender", "attributes", str(config), "--only", only, "--out", str(out)]) == 0
    return out


def rows_of(folder):
    return {(row["model"], row["method"]): row for row in read_json(folder / "report.json")["rows"]}


def test_the_report_has_the_controls_and_the_erasures_that_are_for_each_model(made):
    report, rows = read_json(made / "report.json"), rows_of(made)
    wanted = {("als", name) for name in ["before", "shuffled-labels", *ERASURES]}
    wanted |= {("mult-vae", name) for name in ["before", "shuffled-labels", "obfuscation", "adversarial-mult-vae"]}
    assert set(rows) == wanted
    assert (report["kind"], report["seeds"], report["surfaces"]) == (
        "recommender-attributes",
        [0, 1],
        ["embeddings", "scores"],
    )
    assert list(report["attributes"]) == ["gender"]
    assert sum(report["attributes"]["gender"]["values"].values()) == 120
    for row in rows.values():
        assert {"ndcg", "recall", "embeddings_leak", "scores_leak", "scores_bacc_gbdt", "chance"} <= set(row["metrics"])
        assert {"value", "low", "high", "text"} <= set(row["metrics"]["embeddings_leak"])
        assert row["metrics"]["chance"]["value"] == 0.5
        assert (len(row["per_seed"]), row["dropped"], row["attribute"]) == (2, 0, "gender")
        assert row["fit_seconds"] > 0
        assert row["reversible"] == (row["method"] in ("leace", "class-mean"))
        assert (row["seconds"] == 0) == (row["method"] in ("before", "shuffled-labels"))


def test_attackers_find_the_attribute_before_and_are_at_chance_on_permuted_values(made):
    report, rows = read_json(made / "report.json"), rows_of(made)
    (control,) = (each for each in report["controls"] if each["model"] == "als")
    assert control["sound"] == ["embeddings", "scores"]
    before, dealt = rows["als", "before"], rows["als", "shuffled-labels"]
    assert before["verdict"] == "found"
    assert before["metrics"]["embeddings_bacc_logistic"]["value"] > 0.75
    assert abs(dealt["metrics"]["embeddings_bacc_logistic"]["value"] - 0.5) < report["attributes"]["gender"]["noise"]
    assert before["metrics"]["ndcg"] == dealt["metrics"]["ndcg"]


def test_erasures_lower_what_linear_attackers_guess_and_change_the_model(made):
    rows = rows_of(made)
    before = rows["als", "before"]["metrics"]
    for name in ERASURES:
        found = rows["als", name]["metrics"]
        assert found["embeddings_bacc_logistic"]["value"] < before["embeddings_bacc_logistic"]["value"] - 0.05
        assert found["ndcg"]["value"] != before["ndcg"]["value"]
    assert rows["mult-vae", "adversarial-mult-vae"]["settings"] == {
        "reversal": 2.0,
        "heads": 3,
        "head_hidden": 4,
        "head_dropout": 0.3,
    }


def test_an_attribute_that_goes_with_nothing_is_inconclusive(config, cli, tmp_path):
    other = settings(["data.correlation=0", "surfaces=[embeddings]"])
    done = cli("recommender", "attributes", config, "--models", "als", "--only", "leace", "--out", tmp_path, *other)
    assert done.code == 0, done.err
    report = read_json(tmp_path / "report.json")
    assert {row["verdict"] for row in report["rows"]} == {"INCONCLUSIVE"}
    assert "gender in als: INCONCLUSIVE on embeddings" in done.out


@pytest.mark.parametrize(
    ("leak", "high", "verdict"),
    [(0.58, 0.59, "not found"), (0.58, 0.7, "cannot tell"), (0.62, 0.7, "found"), (0.58, None, "not found")],
)
def test_a_leak_whose_interval_reaches_what_is_found_cannot_be_told(leak, high, verdict):
    def row(method, leak, high):
        return {"model": "als", "attribute": "a", "method": method, "metrics": {"scores_leak": _number(leak, high)}}

    rows = [row("shuffled-labels", 0.5, 0.9), row("leace", leak, high)]
    controls = [{"model": "als", "attribute": "a", "sound": ["scores"]}]
    judged = _judged(rows, controls, {"a": {"noise": 0.1}})
    assert [each["verdict"] for each in judged] == ["not found", verdict]
    report = {"rows": judged, "surfaces": ["scores"], "controls": [controls[0] | {"evidence": "."}]}
    assert ("not found after leace" in summary(report)[0]) == (verdict == "not found")


def _number(value, high):
    return {"value": value, "low": None if high is None else 2 * value - high, "high": high}


def test_intervals_end_where_the_numbers_do_and_the_verdict_stands_beside_the_method(made):
    assert _interval(_number(0.9, 1.3)) == "0.900 [0.500, 1.000]"
    assert _interval(_number(0.1, 0.3)) == "0.100 [0.000, 0.300]"
    assert "| model | erasure | verdict |" in (made / "report.md").read_text()


def test_a_model_without_users_may_be_left_out(config, cli, tmp_path):
    given = [*settings(["models.ease={}", "surfaces=[embeddings]"]), "--models", "als", "--only", "leace"]
    done = cli("recommender", "attributes", config, *given, "--out", tmp_path)
    assert done.code == 0, done.err


def test_combined_takes_out_all_attributes_at_once(config, cli, tmp_path):
    other = settings(["attribute=null", "erasures.combined.erasure={name: class-mean}", "surfaces=[embeddings]"])
    done = cli("recommender", "attributes", config, "--models", "als", "--only", "combined", "--out", tmp_path, *other)
    assert done.code == 0, done.err
    rows = [row for row in read_json(tmp_path / "report.json")["rows"] if row["method"] == "combined"]
    assert [row["attribute"] for row in rows] == ["age", "gender"]
    assert all(row["erased"] == ["age", "gender"] for row in rows)
    assert [row["metrics"]["chance"]["value"] for row in rows] == pytest.approx([1 / 3, 1 / 2])


def test_a_second_call_runs_nothing_and_a_changed_erasure_alone_is_run_again(made, config, cli, monkeypatch):
    before = rows_of(made)
    part = ["--models", "als", "--out", made]
    done = cli("recommender", "attributes", config, "--only", "obfuscation", *part, "--set", "erasures.obfuscation.strength=0.1")  # fmt: skip # noqa: E501
    assert done.out.count(": kept") == 2, done.err
    after = rows_of(made)
    assert {key for key in after if after[key] != before[key]} == {("als", "obfuscation")}
    cli("recommender", "attributes", config, "--only", "obfuscation", *part)
    monkeypatch.setattr(MODELS.entries["als"], "fit", None)
    done = cli("recommender", "attributes", config, "--only", ",".join(ERASURES), *part)
    assert done.out.count(": kept") == 5, done.err


def test_views_are_self_contained_and_rebuilt_from_the_report(made, cli):
    (made / "report.md").unlink()
    (made / "report.html").unlink()
    done = cli("report", made)
    assert done.code == 0, done.err
    assert "gender in als: on embeddings, scores not found after" in done.out
    page = (made / "report.html").read_text()
    assert '<svg class="chart"' in page
    verdicts = page.split('<h2 id="choose"')[0]
    assert "als: leace" in verdicts
    assert "shuffled-labels" not in verdicts  # Not finding what is not there is no success.
    assert "http" not in page.replace("http-equiv", "")
    assert "| als | leace |" in (made / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (settings(["attribute=gendr"]), ["unknown attribute 'gendr'", "Did you mean 'gender'?"]),
        (settings(["models={ease: {}}"]), ["models.ease: ease has no user embeddings", "use als"]),
        (settings(["erasures.leac={}"]), ["erasures.leac: unknown erasure 'leac'", "Did you mean 'leace'?"]),
        (settings(["erasures.obfuscation.strength=-1"]), ["erasures.obfuscation", "strength must be a positive"]),
        (settings(["surfaces=[score]"]), ["surfaces: unknown surface 'score'", "Did you mean 'scores'?"]),
        (settings(["seeds=1"]), ["seeds must be at least 2, got 1"]),
        (settings(["folds=100"]), ["attribute 'gender'", "100 folds need 100"]),
        (["--only", "leac"], ["--only: unknown erasure 'leac'"]),
        (["--models", "alz"], ["--models: unknown model 'alz'"]),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(config, cli, tmp_path, arguments, parts):
    done = cli("recommender", "attributes", config, *arguments, "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert all(part in done.err for part in parts), done.err
    assert not (tmp_path / "run").exists()


ONE_VALUE = """
from dataclasses import dataclass, replace
import numpy as np
from msgm.recommender.data.base import SOURCES
from msgm.recommender.data.synthetic import Synthetic

@SOURCES.register("one-value")
@dataclass
class OneValue(Synthetic):
    def load(self):
        data = super().load()
        return replace(data, attributes={"gender": np.array(["F"] * len(data.users))} if self.seed else {})
"""


@pytest.mark.parametrize(
    ("seed", "sentence"),
    [(1, "attribute 'gender' has only the value 'F'"), (0, "data 'one-value' has no attribute of users to take out.")],
)
def test_data_without_two_values_are_refused(config, cli, tmp_path, monkeypatch, seed, sentence):
    monkeypatch.setattr(SOURCES, "entries", dict(SOURCES.entries))  # the plugin's source goes with this test
    (tmp_path / "source.py").write_text(ONE_VALUE)
    data = f"data={{name: one-value, users: 60, items: 40, interactions: 900, least: 5, correlation: 0, seed: {seed}}}"
    given = settings([f"plugins=[{tmp_path / 'source.py'}]", data])
    done = cli("recommender", "attributes", config, *given, "--out", tmp_path / "run")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert sentence in done.err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_kind_is_refused(config, cli, tmp_path):
    write_json(tmp_path / "manifest.json", {"kind": "recommender"})
    done = cli("recommender", "attributes", config, "--out", tmp_path)
    assert done.code == 2
    assert "holds a run of another kind" in done.err


def test_noise_is_three_deviations_of_blind_guesses():
    draws, sizes = np.random.default_rng(0), [40, 160]
    hits = np.stack([draws.binomial(size, 0.5, 20_000) / size for size in sizes])
    assert noise_of(sizes) == pytest.approx(3 * hits.mean(0).std(), rel=0.03)


@pytest.mark.parametrize("name", ["attributes", "attributes_ml100k"])
def test_shipped_configs_run_every_erasure(name):
    config = load_experiment(AttributeConfig, ROOT / "configs" / "recommender" / f"{name}.yaml")
    assert set(config.erasures) == set(CARDS)
    assert None not in config.erasures.values()
    assert (config.attribute, config.seeds) == ("gender", 2)


def test_cards_of_the_erasures_are_printed(cli):
    assert all(f"{name}\n" in cli("recommender", "erasures").out for name in CARDS)
    assert "Ganhor" in cli("recommender", "erasures", "adversarial-mult-vae").out
    done = cli("recommender", "erasures", "leac")
    assert (done.code, "Did you mean 'leace'?" in done.err) == (2, True)


def test_texts_of_users_change_nothing_around_them(made):
    report = read_json(made / "report.json")

    def renamed(text):
        name = json.dumps(text)
        found = json.loads(json.dumps(report).replace('"leace"', name).replace('"gender"', name))
        left = {"method": text, "model": text, "attribute": text, "status": text, "reason": text}
        return found | {"title": text, "left_out": [left], "protocol": {text: text}}

    assert blocks(to_markdown(renamed(NASTY))) == blocks(to_markdown(renamed("x")))
    assert r"$\frac$ _x" in to_html(renamed(r"$\frac$ _x"))


@pytest.mark.parametrize(("guess", "negative"), [(0.5, ["scores"]), (0.62, []), (0.38, []), (0.59, ["scores"])])
def test_permuted_values_are_guessed_near_chance_on_either_side(guess, negative):
    def row(method, leak, guesses):
        metrics = {"chance": {"value": 0.5}, "scores_leak": _number(leak, None)}
        metrics |= {f"scores_bacc_{name}": {"value": value} for name, value in zip(ATTACKERS, guesses, strict=True)}
        return {"model": "als", "attribute": "a", "method": method, "metrics": metrics}

    rows = [row("before", 0.9, [0.9] * 3), row("shuffled-labels", 0.5, [0.5, guess, 0.5])]
    found = _control(rows, "als", "a", 0.1, ["scores"])
    assert (found["positive"], found["negative"], found["sound"]) == (["scores"], negative, negative)
