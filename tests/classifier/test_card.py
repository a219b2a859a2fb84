import json
import re
from dataclasses import asdict

import numpy as np
import pytest

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS
from msgm.cards.views import card_html, card_markdown
from msgm.cards.words import WRONG_REFERENCE
from msgm.classifier.card import WORDS
from msgm.classifier.ladder import LADDER, SIDES
from msgm.classifier.metrics import METRICS
from msgm.classifier.report import VIEWS
from msgm.reading import read_json
from msgm.runs import Run
from msgm.solves import Solve
from msgm.study.card import make_card
from msgm.study.judging import judge, means

ATTACKS = ("membership", "rmia", "relearning", "probe")
OF_CLASSES = {"test_accuracy_retained", "test_accuracy_forgotten", "probe_class_auc"}
SEEDS = (0, 1)
NUMBERS = {
    name: number for metric in METRICS.entries.values() if not metric.costly for name, number in metric.numbers.items()
}


def tree(seed, shift=0.0, spread=0.01) -> dict:
    """A model's numbers: .5 and normal noise, moved towards what models that know the items show by ``shift``."""
    noise = np.random.default_rng(seed).normal(size=len(NUMBERS))
    found = {}
    for (name, number), z in zip(NUMBERS.items(), noise, strict=True):
        side = LADDER.leaking_side(name, number.better)
        found[name] = 0.5 + spread * float(z) + {"above": shift, "below": -shift}.get(side, 0.0)
    return found | dict.fromkeys(OF_CLASSES)


def make_row(method, request="random", shift=0.0, spread=0.0, retrains=6, family="edit", **numbers) -> dict:
    band = [{"retrain": k, "of": 1, "metrics": tree(k + 1)} for k in range(retrains)]
    parts = [{"seed": seed, "metrics": tree(seed + 77, shift, spread) | numbers, "seconds": 1.0} for seed in SEEDS]
    row = {
        "method": method,
        "request": request,
        "seconds": 1.0,
        "retrain_seconds": 4.0,
        "preparation_seconds": 0.5,
        "storage_bytes": 2**20,
        "examples": 900,
        "settings": {"alpha": 0.5},
        "card": f"formula: the {method} step <b>\nsource: somewhere\nneeds: retain, forget\ndeviations: none",
        "family": family,
        "retrain_band": band,
        "artefacts": {},
        "per_seed": parts,
    }
    return resummed(row)


def resummed(row) -> dict:
    """The row with its summary computed again from its models."""
    summary = means([part["metrics"] for part in row["per_seed"]])
    row["metrics"] = {name: entry | asdict(NUMBERS[name]) for name, entry in summary.items()}
    return row


def make_report(**options) -> dict:
    """Controls hold; salun is like a retrained model in every number."""
    rows = [
        make_row("do-nothing", shift=0.3, family="none", **options),
        make_row("retrain", family="exact", **options),
        make_row("salun", **options),
    ]
    request = {
        "text": "removal of 50 training items",
        "goal": "removal",
        "target": "observed",
        "scope": "instances",
        "n": 50,
        "forget_digest": "fff",
        "near_duplicates": None,
    }
    return {
        "kind": "classifier",
        "title": "a & b",
        "data": {"name": "digits", "digest": "ddd", "n": {"retain": 5}},
        "network": {"name": "mlp"},
        "training": {"epochs": 3},
        "seeds": list(SEEDS),
        "requests": {"random": request},
        "protocol": {"band": "of retrained models", "rmia_auc": NUMBERS["rmia_auc"].text},
        "rows": rows,
    }


@pytest.fixture
def report() -> dict:
    return make_report()


def named(report, method) -> dict:
    return next(row for row in report["rows"] if row["method"] == method)


def made(report, method="salun") -> dict:
    judged = judge(report, LADDER)
    return make_card(judged, named(judged, method), WORDS)


def claim(report, level, method="salun") -> dict:
    return next(c for c in made(report, method)["claims"] if c["level"] == level)


def change(report, method="salun", **numbers) -> None:
    """Give a row other numbers in every seed."""
    row = named(report, method)
    for part in row["per_seed"]:
        part["metrics"] |= numbers
    resummed(row)


# Levels


def test_a_model_like_retrained_ones_reaches_c3(report):
    assert [claim(report, level)["verdict"] for level in ("C1", "C2", "C3", "C4", "C5")] == [PASS] * 3 + [FAIL] * 2
    assert made(report)["level"] == "C3"


def test_do_nothing_shows_nothing(report):
    tree = made(report, "do-nothing")
    assert (tree["level"], tree["statement"]) == ("C0", "Nothing is shown.")


@pytest.mark.parametrize(
    ("name", "below"), [("forget_accuracy", PASS), ("mia_loss_auc", FAIL), ("mia_confidence_auc", FAIL)]
)
def test_c1_is_broken_above_the_band_and_by_attacks_below_it(report, name, below):
    change(report, **{name: 0.9})
    assert claim(report, "C1")["verdict"] == FAIL
    change(report, **{name: 0.1})
    assert claim(report, "C1")["verdict"] == below
    assert claim(report, "C3")["verdict"] != PASS


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.46, PASS), (0.44, FAIL)])
def test_c1_allows_five_points_of_test_accuracy(report, accuracy, verdict):
    change(report, test_accuracy=accuracy)
    assert claim(report, "C1")["verdict"] == verdict


def test_c1_of_a_class_reads_the_classes_to_retain_and_no_simple_attack(report):
    report["requests"]["random"]["scope"] = "class"
    for row in report["rows"]:
        for model in [*row["retrain_band"], *row["per_seed"]]:
            model["metrics"]["test_accuracy_retained"] = model["metrics"]["test_accuracy"]
        resummed(row)
    change(report, mia_loss_auc=0.9)
    assert claim(report, "C1")["verdict"] == PASS
    change(report, test_accuracy_retained=0.4)
    assert claim(report, "C1")["verdict"] == FAIL


def test_c1_is_broken_by_the_rule_that_flags_the_original(report):
    change(report, fr_fixed=0.4, fr_adaptive=0.4, fup=0.4)
    failed = [c["name"] for c in claim(report, "C1")["checks"] if c["holds"] is False]
    assert failed == ["not flagged"]


def test_c1_is_unknown_without_its_numbers(report):
    for row in report["rows"]:
        for model in [*row["retrain_band"], *row["per_seed"]]:
            model["metrics"].pop("forget_accuracy")
        resummed(row)
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE


@pytest.mark.parametrize(
    ("name", "leaking", "other"),
    [
        ("rmia_auc", 0.9, 0.1),
        ("mia_entropy_auc", 0.9, 0.1),
        ("mia_entropy_efficacy", 0.1, 0.9),
        ("relearn_steps", 0.1, 0.9),
        ("rmia_tpr_at_1_fpr", 0.9, 0.1),
        ("rmia_low_tpr_at_1_fpr", 0.1, 0.9),
        ("probe_membership_auc", 0.9, 0.1),
    ],
)
def test_c2_is_broken_by_one_attack_on_either_side_and_says_which(report, name, leaking, other):
    sides = {"member than models": leaking, "non-member than models that never saw it: that gives it away": other}
    for words, value in sides.items():
        change(report, **{name: value})
        found = claim(report, "C2")
        assert found["verdict"] == FAIL
        (evidence,) = [c["evidence"] for c in found["checks"] if c["holds"] is False]
        assert name in evidence
        assert f"looks more like a {words}" in evidence
        assert made(report)["level"] == "C1"


@pytest.mark.parametrize("attack", ATTACKS)
def test_c2_needs_every_attack(report, attack):
    for name in METRICS.entries[attack].numbers:
        for part in named(report, "salun")["per_seed"]:
            part["metrics"].pop(name)
    resummed(named(report, "salun"))
    assert any(line.startswith(f"{attack}: ") for line in made(report)["not_tested"])
    if attack != "membership":
        assert claim(report, "C2")["verdict"] == INCONCLUSIVE
        assert made(report)["level"] == "C1"


def test_from_logits_alone_c2_is_about_attacks_on_outputs(report):
    change(report, relearn_steps=None, probe_membership_auc=None, relearn_steps_random=None)
    assert claim(report, "C2")["verdict"] == INCONCLUSIVE
    report["outputs_only"] = True
    assert claim(report, "C2")["verdict"] == PASS
    assert "from outputs alone" in made(report)["statement"]


def test_c3_is_broken_by_one_number_in_its_mean_over_seeds(report):
    row = named(report, "salun")
    row["per_seed"][1]["metrics"]["js_forget"] = 1.1
    resummed(row)
    found = claim(report, "C3")
    assert found["verdict"] == FAIL
    assert "1 of " in found["reasons"][0]
    assert re.search(r"held out, \d+ of 6 have all numbers inside", found["reasons"][0])


def test_c4_is_an_exact_method_with_its_record(report):
    tree = made(report, "retrain")
    assert (tree["level"], claim(report, "C4", "retrain")["verdict"]) == ("C4", PASS)
    report["requests"]["random"]["forget_digest"] = None
    assert claim(report, "C4", "retrain")["verdict"] == INCONCLUSIVE


def test_c4_is_no_answer_to_a_concept(report):
    report["requests"]["random"]["target"] = "concept"
    assert claim(report, "C4", "retrain")["verdict"] == FAIL
    assert claim(report, "C4", "retrain")["claimed"]


def test_c5_is_what_the_method_certifies(report):
    row = named(report, "salun")
    row["artefacts"] = {"epsilon": 0.4, "delta": 1e-4, "proved": True, "covers": "the head"}
    tree = made(report)
    assert tree["level"] == "C5"
    assert "epsilon 0.4 and delta 0.0001" in tree["statement"]
    assert "the head" in tree["statement"]


def test_c5_holds_for_the_weakest_seed_alone(report):
    row = named(report, "salun")
    row["per_seed"][0]["artefacts"] = {"epsilon": 0.4, "delta": 1e-4, "proved": True}
    row["per_seed"][1]["artefacts"] = {"epsilon": 1.4, "delta": 1e-4, "proved": False}
    found = claim(report, "C5")
    assert (found["verdict"], found["claimed"]) == (FAIL, True)
    assert "epsilon 1.4" in found["reasons"][0]


def test_claims_of_no_level_are_not_claimed(report):
    text = card_markdown(made(report), {})
    assert "| C4 exact by algorithm | not claimed |" in text
    assert "| C5 proven bound | not claimed |" in text


# Controls


def test_an_original_that_is_not_flagged_leaves_everything_open(report):
    report["rows"][0] = make_row("do-nothing", shift=0.0)
    tree = made(report)
    assert [c["verdict"] for c in tree["controls"]] == [FAIL, PASS]
    assert [claim(report, level)["verdict"] for level in ("C1", "C2", "C3")] == [INCONCLUSIVE] * 3
    assert tree["level"] == "C0"
    assert made(report, "retrain")["level"] == "C4"


def test_retrained_models_that_fall_out_of_their_own_band_leave_everything_open(report):
    """Three of the six know a third of the items' numbers each, as models do that were not retrained alike."""
    for row in report["rows"]:
        for model in (m for m in row["retrain_band"] if m["retrain"] < 3):
            shifted = tree(0, shift=0.2)
            model["metrics"] |= {name: shifted[name] for k, name in enumerate(NUMBERS) if k % 3 == model["retrain"]}
        resummed(row)
    negative = made(report)["controls"][1]
    assert (negative["verdict"], negative["evidence"].split(",")[0]) == (FAIL, "3 of 6 flagged")
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE


def test_a_missing_original_is_said(report):
    report["rows"] = report["rows"][1:]
    assert made(report)["controls"][0]["verdict"] == NOT_TESTED
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE
    assert all(line["original"] is None for lines in made(report)["numbers"].values() for line in lines)


def test_four_retrained_models_are_no_band():
    report = make_report(retrains=4)
    tree = made(report)
    assert tree["level"] == "C0"
    assert [c["verdict"] for c in tree["controls"]] == [NOT_TESTED] * 2
    assert any("4 of at least 5" in line for line in tree["not_tested"])
    assert all(line["band"] is None for lines in tree["numbers"].values() for line in lines)


def test_numbers_that_never_differ_do_not_count(report):
    before = LADDER.counted(report, named(report, "salun"))
    for row in report["rows"]:
        for model in [*row["retrain_band"], *row["per_seed"]]:
            model["metrics"]["oracle_tpr"] = 0.9
        resummed(row)
    assert set(before) - set(LADDER.counted(report, named(report, "salun"))) == {"oracle_tpr"}


def test_sides():
    assert LADDER.leaking_side("mia_loss_auc_gap", "lower") is None
    assert LADDER.leaking_side("mia_loss_auc", "band") == "above"
    assert LADDER.leaking_side("rmia_tpr_at_1_fpr", "band") == "above"
    assert LADDER.leaking_side("rmia_low_tpr_at_1_fpr", "band") == "below"
    assert LADDER.leaking_side("my_number", "higher") == "below"
    assert LADDER.leaking_side("my_number", "band") is None
    known = [name for metric in METRICS.entries.values() for name in metric.numbers]
    for pattern, _ in SIDES:
        assert any(re.search(pattern, name) for name in known)


# What a retrained model is no reference for


def test_for_a_concept_retrained_models_are_the_wrong_reference(report):
    report["requests"]["random"] |= {"target": "concept", "goal": "suppression"}
    tree = made(report)
    assert tree["level"] == "C1"
    assert claim(report, "C2")["reasons"][0].startswith(WRONG_REFERENCE)
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE
    assert all(WRONG_REFERENCE in tree["columns"][key] for key in ("band", "inside"))
    assert all(WRONG_REFERENCE in line["note"] for line in tree["numbers"]["privacy"])
    assert f'class="value grey">inside the band ({WRONG_REFERENCE})</th>' in card_html(tree, {})
    change(report, rmia_auc=0.9)
    assert claim(report, "C2")["verdict"] == FAIL


# What is shown


def test_null_is_not_tested(report):
    lines = {line["number"]: line for line in made(report)["numbers"]["utility"]}
    assert lines["test_accuracy_retained"]["this"] is None
    text = card_markdown(made(report), {})
    assert re.search(r"\| accuracy \| test_accuracy_retained \| NOT TESTED \| NOT TESTED \| NOT TESTED", text)
    assert "- near duplicates searched: NOT TESTED" in text
    assert "- lira: " in text


def test_numbers_stand_beside_original_and_band(report):
    line = next(line for line in made(report)["numbers"]["privacy"] if line["number"] == "rmia_auc")
    assert line["original"].startswith("0.8")
    assert re.fullmatch(r"0\.\d+ \[0\.4\d*, 0\.5\d*\]", line["band"])
    assert line["inside"] == "yes"
    assert 0.01 < float(line["noticed"]) < 0.3
    assert NUMBERS["rmia_auc"].text in line["note"]
    assert "rmia_auc" not in made(report)["protocol"]


def test_costs_stand_beside_retrainings(report):
    method = made(report)["method"]
    assert method["seconds_over_retraining"] == 0.25
    assert method["formula"] == "the salun step <b>"
    assert "1.00 MB between requests" in made(report)["artifacts"]["note"]


@pytest.mark.parametrize(("models", "stated"), [(None, False), (63.0, False), (64.0, True)])
def test_no_epsilon_is_stated_from_fewer_than_64_models(report, models, stated):
    row = named(report, "salun")
    numbers = METRICS.entries["forgetting-quality"].numbers
    value = {"low": None, "high": None, "seeds": 1}
    for name, found in {"forgetting_epsilon": 3.0, "forgetting_quality_models": models}.items():
        row["metrics"][name] = value | {"value": found} | asdict(numbers[name])
    line = next(line for line in made(report)["numbers"]["forgetting"] if line["number"] == "forgetting_epsilon")
    assert (line["this"] == "3") is stated
    assert ("no epsilon is stated" in line["note"]) is not stated
    assert any("Any epsilon" in text for text in made(report)["cannot_say"]) is not stated


def test_near_duplicates_that_stay_are_said(report):
    found = {"method": "pixels", "found": 6, "retained": 4, "included": False}
    report["requests"]["random"]["near_duplicates"] = found
    tree = made(report)
    assert tree["request"]["near_duplicates_searched"] == found
    assert any("4 were found" in line for line in tree["cannot_say"])
    assert not any(line.startswith("near-duplicates") for line in tree["not_tested"])


def test_items_without_controls_are_said(report):
    said = "Whether 3 of the 50 items to forget are given away by attacks on membership"
    assert not any(line.startswith(said) for line in made(report)["cannot_say"])
    report["requests"]["random"]["without_controls"] = 3
    assert any(line.startswith(said) for line in made(report)["cannot_say"])


def test_a_method_like_do_nothing_is_said(report):
    assert not any("do-nothing" in line for line in made(report)["cannot_say"])
    change(report, **{k: tree(77, 0.3, 0.0)[k] for k in ("forget_accuracy", "mia_loss_auc")})
    assert any("do-nothing" in line for line in made(report)["cannot_say"])


# Words


def texts(report, method):
    tree = made(report, method)
    return [json.dumps(tree), card_markdown(tree, {}), card_html(tree, {})]


@pytest.mark.parametrize("method", ["do-nothing", "salun", "retrain"])
def test_what_users_wrote_stands_at_every_level(report, method):
    words = "deleted, removed, CERTIFIED and GDPR-compliant"
    report["title"] = report["requests"]["random"]["text"] = words
    for text in texts(report, method):
        assert text.count(words) >= 2


def test_a_solver_that_did_not_converge_is_said_on_the_card(report):
    assert "solver" not in made(report)["method"]
    named(report, "salun")["solve"] = Solve(2.7, 1e-3, 20).facts()
    tree = made(report)
    assert tree["method"]["solver"].startswith("not converged: relative residual 2.7")
    assert any("the solver is not converged" in line for line in tree["cannot_say"])


# Files


def test_every_row_has_its_card(tmp_path, report):
    report = judge(report, LADDER)
    VIEWS.write_cards(Run(tmp_path), report)
    row = next(row for row in report["rows"] if (row["request"], row["method"]) == ("random", "salun"))
    assert VIEWS.link(row) == "cards/random/salun/card"
    for row in report["rows"]:
        folder = tmp_path / "cards" / "random" / row["method"]
        assert read_json(folder / "card.json") == json.loads(json.dumps(make_card(report, row, WORDS)))
        page = (folder / "card.html").read_text()
        assert "a &amp; b" in page
        assert not re.search(r"https?://|<script|\{\{|None", page)
        assert (folder / "card.md").read_text().startswith(f"# a & b: {row['method']}, random")


def test_a_model_beyond_the_other_side_of_the_band_is_said_to_overshoot(report):
    assert "overshooting" not in made(report)["statement"]
    change(report, forget_accuracy=0.1)
    found = made(report)
    assert found["level"] in ("C1", "C2")
    assert "distinguishable from retrained models by overshooting" in found["statement"]
    assert "forget_accuracy 0.1; retrained models 0.497" in found["statement"]


def test_the_request_says_how_many_of_the_selected_items_were_trained_on(report):
    assert made(report)["request"]["items"] == 50
    report["requests"]["random"]["selected"] = 130
    expected = "130 selected, 50 in training; held-out ones were never learned"
    assert made(report)["request"]["items"] == expected


def test_intervals_are_shown_within_the_bounds_of_their_numbers(report):
    for seed, part in enumerate(named(report, "salun")["per_seed"]):
        part["metrics"]["forget_accuracy"] = 1.0 - 0.1 * seed
    for k, model in enumerate(named(report, "salun")["retrain_band"]):
        model["metrics"]["forget_accuracy"] = 0.9 + 0.1 * (k % 2)
    resummed(named(report, "salun"))
    (line,) = [n for n in made(report)["numbers"]["forgetting"] if n["number"] == "forget_accuracy"]
    assert line["this"] == "0.95 [0.315, 1]"
    assert line["band"].endswith(", 1]")
