"""Cards: what counts at which level, the controls, and what is shown."""

import json
import re

import numpy as np
import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS
from msgm.cards.views import card_html, card_markdown
from msgm.cards.words import WRONG_REFERENCE
from msgm.reading import read_json
from msgm.recommender.card import WORDS
from msgm.recommender.ladder import LADDER, SIDES
from msgm.recommender.measuring import row_numbers
from msgm.recommender.metrics import METRICS
from msgm.solves import Solve
from msgm.study.card import make_card, write_card
from msgm.study.judging import judge
from msgm.study.measuring import measure, measure_retrains
from tests.recommender.metrics.worlds import trained_case

NAMES = ("ranking", "rating", "completeness", "membership", "distance", "lists", "fairness", "backdoor")
METERS = [METRICS.build({"name": name}) for name in NAMES]
NUMBERS = {name: number for metric in METERS for name, number in metric.numbers.items()}
NONE = {"rmse": None, "promoted_exposure": None, "promoted_repair": None, "lists_with_forgotten_items": None}
SEEDS = (0, 1)


def tree(seed, shift=0.0, spread=0.01, served=0.0):
    """A model's numbers: .5 and normal noise, moved towards what models that know the cells show by ``shift``."""
    noise = np.random.default_rng(seed).normal(size=len(NUMBERS))
    found = {}
    for (name, number), z in zip(NUMBERS.items(), noise, strict=True):
        side = LADDER.leaking_side(name, number.better) if number.section in ("forgetting", "privacy") else None
        found[name] = 0.5 + spread * float(z) + {"above": shift, "below": -shift}.get(side, 0.0)
    return found | NONE | {"forgotten_users_served": served}


def make_row(method, shift=0.0, served=0.0, retrains=6, exactness="approximate"):
    bands = [[tree(k + 1) for k in range(retrains)] for _ in SEEDS]
    row = {
        "model": "als",
        "method": method,
        "request": "random",
        "exactness": exactness,
        "seconds": 4.0 if method == "retrain" else 1.0,
        "refit_seconds": 4.0,
        "preparation_seconds": 0.5,
        "touched": 12,
        "storage_bytes": 2**20,
        "card": f"formula: the {method} step <b>\nsource: somewhere\nneeds: forget\ndeviations: none\ndefaults: k 2",
        "facts": {"sweeps": 1},
    }
    return row | row_numbers(SEEDS, [tree(seed + 77, shift, 0, served) for seed in SEEDS], bands, METERS)


@pytest.fixture
def report():
    """Controls hold; scif is like a retrained model in every number."""
    return make_report()


def make_report(**options):
    return {
        "kind": "recommender",
        "title": "a & b",
        "data": {"name": "synthetic", "digest": "ddd", "users": 300, "items": 120, "interactions": 9000},
        "seeds": list(SEEDS),
        "requests": {
            "random": {
                "text": "removal of 40 users",
                "goal": "removal",
                "target": "observed",
                "users": 40,
                "items": 0,
                "cells": 900,
            }
        },
        "protocol": {"band": "of retrained models", "ndcg": "shown with the numbers"},
        "rows": [
            make_row("do-nothing", shift=0.3, served=1.0, exactness="none", **options),
            make_row("retrain", exactness="bit-exact", **options),
            make_row("scif", **options),
        ],
    }


def named(report, method):
    return next(row for row in report["rows"] if row["method"] == method)


def made(report, method="scif"):
    judged = judge(report, LADDER)
    return make_card(judged, named(judged, method), WORDS)


def claim(report, level, method="scif"):
    return next(c for c in made(report, method)["claims"] if c["level"] == level)


def change(report, method="scif", **numbers):
    """Give a row other numbers in every seed."""
    row = named(report, method)
    bands = [[m["metrics"] for m in row["retrain_band"]] for _ in SEEDS]
    row |= row_numbers(SEEDS, [part["metrics"] | numbers for part in row["per_seed"]], bands, METERS)


# Levels


def test_a_model_like_retrained_ones_reaches_c3(report):
    assert [claim(report, level)["verdict"] for level in ("C1", "C2", "C3", "C4", "C5")] == [PASS] * 3 + [FAIL] * 2
    assert made(report)["level"] == "C3"
    assert "6 retrained models and 2 seeds" in made(report)["statement"]


def test_do_nothing_shows_nothing(report):
    tree = made(report, "do-nothing")
    assert (tree["level"], tree["statement"]) == ("C0", "Nothing is shown.")


@pytest.mark.parametrize("auc", [0.9, 0.1])
def test_c1_is_broken_on_either_side_of_the_band(report, auc):
    change(report, completeness_auc=auc)
    assert claim(report, "C1")["verdict"] == FAIL


@pytest.mark.parametrize("name", ["forgotten_users_served", "lists_with_forgotten_items"])
def test_one_forgotten_thing_that_is_served_breaks_c1_and_c4(report, name):
    change(report, **{name: 0.001})
    assert claim(report, "C1")["verdict"] == FAIL
    change(report, "retrain", **{name: 0.001})
    assert claim(report, "C4", "retrain")["verdict"] == FAIL


@pytest.mark.parametrize(("ndcg", "verdict"), [(0.48, PASS), (0.46, FAIL), (0.9, PASS)])
def test_c1_allows_five_percent_of_ndcg(report, ndcg, verdict):
    change(report, ndcg=ndcg)
    assert claim(report, "C1")["verdict"] == verdict


@pytest.mark.parametrize(("rmse", "verdict"), [(0.52, PASS), (0.54, FAIL), (0.1, PASS)])
def test_models_of_ratings_are_judged_by_rmse(report, rmse, verdict):
    for row in report["rows"]:
        for model in row["retrain_band"]:
            model["metrics"]["rmse"] = 0.5
    change(report, rmse=rmse, ndcg=0.1)
    assert claim(report, "C1")["verdict"] == verdict


def test_c1_is_unknown_where_the_model_cannot_be_asked(report):
    change(report, completeness_auc=None)
    found = claim(report, "C1")
    assert found["verdict"] == INCONCLUSIVE
    assert "NOT TESTED: completeness_auc" in found["reasons"][0]


@pytest.mark.parametrize("name", [name for name in NUMBERS if name.startswith("membership")])
def test_c2_is_broken_by_one_attack_on_either_side_and_says_which(report, name):
    for value, words in ((0.9, "a member than models"), (0.1, "a non-member than models that never saw it: that")):
        change(report, **{name: value})
        assert claim(report, "C2")["verdict"] == FAIL
        assert any(f"looks more like {words}" in reason for reason in claim(report, "C2")["reasons"])


def test_c2_is_unknown_without_attacks(report):
    change(report, **{name: None for name in NUMBERS if name.startswith("membership")})
    assert claim(report, "C2")["verdict"] == INCONCLUSIVE
    assert any(line.startswith("membership: ") for line in made(report)["not_tested"])


def test_c3_is_broken_by_one_number(report):
    change(report, rbo_distance=0.9)
    found = claim(report, "C3")
    assert found["verdict"] == FAIL
    assert re.search(r"1 of \d+ outside.*held out, \d+ of 6 have all numbers inside", found["reasons"][0])


def test_rounding_is_within_a_band_without_width(report):
    for row in report["rows"]:
        for model in row["retrain_band"]:
            model["metrics"]["rbo_distance"] = 0.0
    for value, verdict in ((0.004, PASS), (0.006, FAIL)):
        change(report, rbo_distance=value)
        assert claim(report, "C3")["verdict"] == verdict


def test_every_claim_from_tests_needs_five_retrained_models():
    for retrains, level in ((2, "C0"), (4, "C0"), (5, "C3")):
        report = make_report(retrains=retrains)
        assert made(report)["level"] == level
        assert any(f"{retrains} of at least 5" in x for x in made(report)["not_tested"]) == (retrains < 5)


@pytest.mark.parametrize("exactness", ["bit-exact", "exact up to rounding"])
def test_c4_is_an_exact_answer_with_its_record(report, exactness):
    row = named(report, "scif")
    row["exactness"] = exactness
    tree = made(report)
    assert (tree["level"], claim(report, "C4")["verdict"]) == ("C4", PASS)
    assert exactness in tree["statement"]
    row["touched"] = None
    assert claim(report, "C4")["verdict"] == INCONCLUSIVE


@pytest.mark.parametrize("exactness", ["exact at convergence", "approximate", "none"])
def test_c4_is_not_claimed_by_others(report, exactness):
    named(report, "scif")["exactness"] = exactness
    found = claim(report, "C4")
    assert (found["verdict"], found["claimed"]) == (FAIL, False)
    assert "| C4 exact by algorithm | not claimed |" in card_markdown(made(report), {})


def test_c4_is_no_answer_to_an_attribute(report):
    report["requests"]["random"]["target"] = "latent"
    assert claim(report, "C4", "retrain")["verdict"] == FAIL


# Controls


def test_an_original_that_is_not_flagged_leaves_everything_open(report):
    report["rows"][0] = make_row("do-nothing")
    assert [c["verdict"] for c in made(report)["controls"]] == [FAIL, PASS]
    assert [claim(report, level)["verdict"] for level in ("C1", "C2", "C3")] == [INCONCLUSIVE] * 3
    assert made(report, "retrain")["level"] == "C4"


def test_retrained_models_that_fall_out_of_their_own_band_leave_everything_open(report):
    """Each of six knows what other numbers ask for, as models do that were not retrained alike."""
    names = [name for name, number in NUMBERS.items() if LADDER.leaking_side(name, number.better) == "above"]
    names = [n for n in names if NUMBERS[n].section in ("forgetting", "privacy") and n not in NONE]
    for row in report["rows"]:
        for model in row["retrain_band"]:
            model["metrics"] |= {name: 0.9 for k, name in enumerate(names) if k // 2 + 1 == model["retrain"]}
    assert made(report)["controls"][1]["verdict"] == FAIL
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE


def test_a_missing_original_is_said(report):
    report["rows"] = report["rows"][1:]
    assert made(report)["controls"][0]["verdict"] == NOT_TESTED
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE
    assert all(line["original"] is None for lines in made(report)["numbers"].values() for line in lines)


def test_the_original_is_that_of_the_same_model(report):
    named(report, "do-nothing")["model"] = "ease"
    assert made(report)["controls"][0]["verdict"] == NOT_TESTED


def test_numbers_that_never_differ_do_not_count(report):
    before = LADDER.counted(report, named(report, "scif"))
    for row in report["rows"]:
        for model in [*row["retrain_band"], *row["per_seed"]]:
            model["metrics"]["completeness_auc"] = 0.5
    assert set(before) - set(LADDER.counted(report, named(report, "scif"))) == {"completeness_auc"}


def test_sides():
    assert LADDER.leaking_side("completeness_auc", "band") == "above"
    assert LADDER.leaking_side("score_distance_units", "lower") is None
    assert LADDER.leaking_side("promoted_repair", "band") == "below"
    assert LADDER.leaking_side("my_number", "lower") == "above"
    assert LADDER.leaking_side("my_number", "band") is None
    for pattern, _ in SIDES:
        assert any(re.search(pattern, name) for name in NUMBERS)


# What is shown


def test_for_an_attribute_retrained_models_are_the_wrong_reference(report):
    report["requests"]["random"] |= {"target": "latent", "goal": "suppression"}
    tree = made(report)
    assert tree["level"] == "C1"
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE
    assert all(WRONG_REFERENCE in tree["columns"][key] for key in ("band", "inside"))
    assert all(WRONG_REFERENCE in line["note"] for line in tree["numbers"]["privacy"])


def test_numbers_stand_beside_original_and_band(report):
    line = next(line for line in made(report)["numbers"]["forgetting"] if line["number"] == "completeness_auc")
    assert line["test"] == "completeness"
    assert line["original"].startswith("0.8")
    assert re.fullmatch(r"0\.\d+ \[0\.4\d*, 0\.5\d*\]", line["band"])
    assert line["inside"] == "yes"
    assert 0.01 < float(line["noticed"]) < 0.3
    assert "ndcg" not in made(report)["protocol"]


def test_costs_stand_beside_retrainings(report):
    method = made(report)["method"]
    assert method["seconds_over_retraining"] == 0.25
    assert (method["formula"], method["exactness"], method["facts"]) == (
        "the scif step <b>",
        "approximate",
        {"sweeps": 1},
    )
    assert "1.00 MB between requests" in made(report)["artifacts"]["note"]


def test_a_method_like_do_nothing_is_said(report):
    before = {name: tree(77, 0.3, 0.0)[name] for name in ("completeness_auc", "ndcg")}
    assert not any("do-nothing" in line for line in made(report)["cannot_say"])
    change(report, **before)
    assert any("do-nothing" in line for line in made(report)["cannot_say"])


@pytest.mark.parametrize("method", ["scif", "retrain"])
def test_what_users_wrote_stands_at_every_level(report, method):
    report["title"] = "GDPR compliant"
    named(report, method)["facts"] = {"removed": 1, "Removed": 2}
    made_card = made(report, method)
    assert (made_card["title"], made_card["method"]["facts"]) == ("GDPR compliant", {"removed": 1, "Removed": 2})


def test_a_row_that_was_not_measured_shows_nothing(report):
    row = named(report, "scif")
    row |= {"metrics": {}, "per_seed": [], "retrain_band": [], "exactness": None, "touched": None, "seconds": None}
    tree = made(report)
    assert tree["level"] == "C0"
    assert tree["reference"]["oracle_kind"] == "none"
    card_markdown(tree, {})


def test_html_is_escaped_and_files_are_written(report, tmp_path):
    assert "the scif step &lt;b&gt;" in card_html(made(report), {})
    judged = judge(report, LADDER)
    write_card(tmp_path / "card", judged, named(judged, "scif"), WORDS)
    assert read_json(tmp_path / "card" / "card.json") == json.loads(json.dumps(made(report)))
    assert {path.name for path in (tmp_path / "card").iterdir()} == {"card.json", "card.md", "card.html"}


def test_on_a_trained_model_the_original_is_flagged_and_a_held_out_retrained_model_is_not(report):
    case = trained_case("als", "cells", retrains=6, factors=16)
    meters = [METRICS.build({"name": name}) for name in ("ranking", "completeness", "membership", "lists")]
    band = [measure_retrains(case, meters)]
    rows = []
    for method, numbers in (("do-nothing", measure(case, meters)), ("other", band[0][0])):
        rows.append(make_row(method) | row_numbers([0], [numbers], [band[0][1:]], meters))
    report["rows"] = rows
    assert [c["verdict"] for c in made(report, "other")["controls"]] == [PASS, PASS]
    assert [claim(report, level, "do-nothing")["verdict"] for level in ("C1", "C2")] == [FAIL, FAIL]
    assert [claim(report, level, "other")["verdict"] for level in ("C1", "C2")] == [PASS, PASS]


def test_a_solver_that_did_not_converge_is_said_on_the_card(report):
    assert "solver" not in made(report)["method"]
    named(report, "scif")["solve"] = Solve(2.7, 1e-4, 100).facts()
    tree = made(report)
    assert tree["method"]["solver"].startswith("not converged: relative residual 2.7")
    assert any("the solver is not converged" in line for line in tree["cannot_say"])
    assert "solver: not converged" in card_markdown(tree, {})
    named(report, "scif")["solve"] = Solve(1e-5, 1e-4, 100).facts()
    assert not any("solver" in line for line in made(report)["cannot_say"])
