import copy
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from msgm.cards.claims import FAIL, INCONCLUSIVE, NOT_TESTED, PASS
from msgm.cards.views import card_html, card_markdown
from msgm.cards.words import NOT_RECORDED, WRONG_REFERENCE
from msgm.digests import positions_digest, unkeyed_digest
from msgm.evaluation.arrays import write_arrays
from msgm.evaluation.card import card
from msgm.evaluation.card_views import card_links, write_cards
from msgm.evaluation.figures import FIGURES, OTHERS, card_figures, row_styles
from msgm.evaluation.ladder import ATTACKS, LADDER, references, threshold
from msgm.evaluation.provenance import model_digest, provenance
from msgm.evaluation.rates import rate
from msgm.evaluation.report import to_markdown, verdict, write_views
from msgm.evaluation.rows import TESTS, judged, over_seeds
from msgm.folders import write_bytes, write_json
from msgm.pictures import to_png
from msgm.reading import read_json
from msgm.runs import Run

pytestmark = pytest.mark.usefixtures("rendered")

NAMES = ["do-nothing", "unseen-scratch", "redirect", "random-network"]
MADE = {
    "do-nothing": ("none", None),
    "unseen-scratch": ("scratch", "unseen"),
    "redirect": ("finetune", "redirect"),
    "random-network": ("random", None),
}
UR = {"do-nothing": 360, "unseen-scratch": 4, "redirect": 2, "random-network": 0}
JUNK = {"do-nothing": 200, "unseen-scratch": 160, "redirect": 80, "random-network": 2000}
LOG = {"status": "finished", "seed": 0, "device": "cpu", "forget_digest": "fff", "data_digest": "ddd"}
QUANTILES = {"0.01": 1.0, "0.05": 1.2, "0.25": 1.6, "0.5": 2.0, "0.75": 2.5, "0.95": 3.0}


def point(hits, junk=0, n=300, **where):
    return {**where, "unlearning_ratio": rate(hits, n), "junk_rate": rate(junk, n)}


def auc(value, half=0.05):
    inference = {"auc": {"value": value, "low": value - half, "high": value + half}}
    by_level = [{"level": level, **inference} for level in (0.5, 1.0)]
    return inference | {"true_positives": rate(3, 100), "members": 100, "others": 100, "by_level": by_level}


def attacked(relearnt=20, returned=10, changed=1, member=0.5) -> dict:
    """The numbers of all attacks, those that C2 reads given."""
    curve = [point(60 if step >= relearnt else 0, step=step) for step in (0, 5, 10, 20, 40)]
    forgotten = {"forgotten": rate(returned, 50), "kept": rate(5, 50), "junk": rate(0, 50)}
    level = {"level": 0.5, "forget": forgotten, "retain": forgotten}
    neighbours = {"samples": QUANTILES, "control": QUANTILES, "control_n": 9}
    neighbours["nearer"] = {"0.01": rate(1, 99), "0.05": rate(5, 99)}
    return {
        "relearning": {"items": 64, "samples": 300, "curve": curve},
        "resurgence": {"items": 99, "samples": 300, "curve": [point(0, step=0), point(changed, step=100)]},
        "partial_noise": {"items": 50, "levels": [level]},
        "weights_attack": {"samples": 300, "raw": point(changed), "averaged": point(changed)},
        "quantisation": {"samples": 300, "widths": [point(changed, bits=4)]},
        "membership": {"forget": auc(member), "retain": auc(0.5)},
        "course": {"samples": 300, "curve": [point(9, 3, step=100), point(2, 4, step=200)]},
        "neighbours": {"n": 300, "picture": "neighbours.png", "retain": neighbours, "forget": neighbours},
    }


def make_row(name, **attacks) -> dict:
    start, objective = MADE[name]
    trained, junk = objective is not None, rate(JUNK[name], 2000)
    part = {"mean": 2.5, "median": 2.25, "standard_error": 0.1, "n": 10}
    found = {
        "name": name,
        "objective": objective,
        "settings": {"alpha": 0.5} if trained else {},
        "card": f"formula: the {name} loss <b>\nsource: somewhere\ndata: retain\ndeviations: none" if trained else None,
        "start": start,
        "steps": 7 if trained else 0,
        "lr": 1e-3 if trained else None,
        "seconds": 12.0,
        "weights": "ema",
        "grid": f"rows/{name}/samples/final.png",
        "folder": f"rows/{name}",
        "model": f"rows/{name}/model",
        "provenance": {"model_digest": f"digest of {name}", **LOG},
        "unlearning_ratio": rate(UR[name], 2000),
        "unlearning_ratio_closed_set": rate(UR[name], 2000),
        "junk_rate": junk["value"],
        "copy_rate": 0.1,
        "intervals": {"junk_rate": [junk["low"], junk["high"]], "copy_rate": [0.0, 0.3]},
        "class_histogram": {"0": 10, "3": 9, "none": 1},
        "nll": {"unit": "bits/dim", "retain": part, "forget": part},
    }
    measured = {"ur": {}, "nll": {}, **{attack: {} for attack in [*ATTACKS, "course", "neighbours"]}}
    return found | attacked(**attacks) | {"measured": measured}


def make_report() -> dict:
    """A comparison about observed items, not judged yet: its controls hold, and its row redirect passes all tests."""
    rows = [make_row(name) for name in NAMES]
    rows[0] |= attacked(relearnt=0, returned=40, changed=60, member=0.7)
    return {
        "title": "a & b",
        "date": "2026-01-01T00:00:00+00:00",
        "seed": 0,
        "request": {
            "text": "removal of the observed given by labels 3",
            "goal": "removal",
            "target": "observed",
            "forget_digest": "fff",
        },
        "data": {"name": "digits", "digest": "ddd", "items": {"train": {"retain": 5, "forget": 2}}},
        "judge": {
            "forgotten": ["3"],
            "heldout_accuracy": 0.99,
            "heldout": rate(99, 100),
            "forget_recall": rate(30, 31),
        },
        "real": {"unlearning_ratio": rate(1, 400), "junk_rate": 0.01, "class_histogram": {"0": 9, "3": 1}},
        "base": {"seconds": 3.0, "source": None},
        "protocol": {"samples": "2000 samples"},
        "environment": {"versions": {"msgm": "0.1.0"}},
        "artifacts": [{"path": "rows/do-nothing/model", "what": "the base model", "megabytes": 1.5}],
        "paper": [],
        "rows": rows,
        "retrains": make_retrains(),
    }


def make_retrains() -> list[dict]:
    """Five retrained models that differ a little."""
    found = []
    for k in range(5):
        row = make_row("unseen-scratch", returned=8 + k, changed=k % 3, member=0.48 + 0.01 * k)
        set_rate(row, 2 + k)
        found.append(row | {"name": f"retrained-{k + 1}"})
    return found


@pytest.fixture
def report() -> dict:
    return make_report()


def named(report, name) -> dict:
    return next(row for row in report["rows"] if row["name"] == name)


def without(report, name) -> dict:
    return report | {"rows": [row for row in report["rows"] if row["name"] != name]}


def made(report, name="redirect") -> dict:
    now = judged(report, LADDER)
    return card(now, named(now, name))


def limit(report, name="redirect"):
    now = judged(report, LADDER)
    return threshold(now, named(now, name))


def claim(report, level, name="redirect") -> dict:
    return next(c for c in made(report, name)["claims"] if c["level"] == level)


def set_rate(row, hits, junk=None):
    row["unlearning_ratio"] = rate(hits, 2000)
    if junk is not None:
        found = rate(junk, 2000)
        row["junk_rate"], row["intervals"]["junk_rate"] = found["value"], [found["low"], found["high"]]


def control(report, name) -> dict:
    return next(c for c in made(report)["controls"] if name in c["name"])


@pytest.mark.parametrize(("junk", "verdict"), [(20, PASS), (900, FAIL)])
def test_a_retrained_model_that_makes_junk_fails_its_control(report, junk, verdict):
    """Its unlearning ratio alone would pass: junk shows no forgotten content."""
    set_rate(named(report, "unseen-scratch"), 0, junk)
    assert control(report, "a retrained model")["verdict"] == verdict


def make_folder(path, report) -> Run:
    """A compare folder with the report, its sample grids, likelihoods and neighbours."""
    found, picture = Run(path), to_png(torch.zeros(4, 1, 8, 8), 17)
    draws = np.random.default_rng(0)
    for row in report["rows"]:
        for place in (row["grid"], f"{row['folder']}/neighbours.png"):
            write_bytes(found.path / place, picture)
        arrays = {"retain": draws.normal(2, 1, (20, 2)), "forget": draws.normal(4, 1, (9, 2))}
        write_arrays(found.path / row["folder"] / "nll.npz", arrays)
    write_json(found.report, judged(report, LADDER))
    return found


@pytest.fixture
def run(tmp_path, report) -> Run:
    return make_folder(tmp_path, report)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Run:
    """The folder of a report with all its views."""
    report = judged(make_report(), LADDER)
    found = make_folder(tmp_path_factory.mktemp("written"), report)
    write_views(found, report)
    return found


# C1


@pytest.mark.parametrize(("hits", "passed"), [(4, PASS), (9, PASS), (12, FAIL), (300, FAIL)])
def test_c1_holds_up_to_the_upper_end_of_a_band(report, hits, passed):
    """Five models with 2 to 6 of 2000: mean 0.2%, sd .079%, so that 3.041 sd and one sample are 0.49%."""
    set_rate(named(report, "redirect"), hits)
    assert claim(report, "C1")["verdict"] == passed
    assert made(report)["level"] >= ("C1" if passed == PASS else "C0")
    assert limit(report).value == pytest.approx(0.0049, abs=1e-4)


@pytest.mark.parametrize("count", [0, 4])
def test_c1_of_observed_items_has_no_verdict_without_a_band(report, count):
    report["retrains"] = make_retrains()[:count]
    assert limit(report) is None
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE
    assert made(report)["level"] == "C0"
    assert any(f"{count} models were retrained for a band, of at least 5" in r for r in claim(report, "C1")["reasons"])


@pytest.mark.parametrize(("hits", "passed"), [(0, PASS), (25, INCONCLUSIVE), (300, FAIL)])
@pytest.mark.parametrize("count", [0, 5])
def test_the_threshold_is_the_floor_where_retrained_models_do_not_define_it(report, count, hits, passed):
    report["request"]["target"], report["retrains"] = "concept", make_retrains()[:count]
    set_rate(named(report, "redirect"), hits)
    assert limit(report).value == report["real"]["unlearning_ratio"]["high"]
    assert claim(report, "C1")["verdict"] == passed


@pytest.mark.parametrize(("junk", "passed"), [(265, PASS), (275, INCONCLUSIVE), (350, FAIL)])
def test_c1_allows_junk_up_to_the_bases_rate_and_a_margin(report, junk, passed):
    set_rate(named(report, "redirect"), 0, junk)
    assert claim(report, "C1")["verdict"] == passed


def test_c1_needs_the_ratio(report):
    del named(report, "redirect")["measured"]["ur"]
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE
    assert made(report)["statement"] == "Nothing is shown."


def test_do_nothing_and_a_random_network_show_nothing(report):
    for name in ("do-nothing", "random-network"):
        assert claim(report, "C1", name)["verdict"] == FAIL
        assert made(report, name)["level"] == "C0"


# C2


@pytest.mark.parametrize(
    ("attack", "changed", "side"),
    [
        ("relearning", {"relearnt": 10}, "above (it looks more like a member"),
        ("relearning", {"relearnt": 1000}, "below (it looks more like a non-member"),
        ("partial-noise", {"returned": 40}, "above (it looks more like a member"),
        ("membership", {"member": 0.65}, "above (it looks more like a member"),
        ("membership", {"member": 0.35}, "below (it looks more like a non-member"),
        ("weights", {"changed": 20}, "above (it looks more like a member"),
        ("quantisation", {"changed": 20}, "above (it looks more like a member"),
        ("resurgence", {"changed": 20}, "above (it looks more like a member"),
    ],
)
def test_c2_fails_by_an_attack_that_tells_the_model_from_retrained_ones(report, attack, changed, side):
    assert claim(report, "C2")["verdict"] == PASS
    key = {"partial-noise": "partial_noise", "weights": "weights_attack"}.get(attack, attack)
    named(report, "redirect")[key] = attacked(**changed)[key]
    found = claim(report, "C2")
    assert found["verdict"] == FAIL
    assert [check["evidence"].count(side) > 0 for check in found["checks"] if check["holds"] is False] == [True]
    assert made(report)["level"] == "C1"


def test_every_retrained_model_held_out_passes_c2(report):
    """So does one more of the same kind, as a row; only its junk differs from the base's."""
    for number in range(5):
        others = [row for k, row in enumerate(make_retrains()) if k != number]
        further = make_retrains()[number] | {"name": "redirect", "start": "finetune", "objective": "redirect"}
        rows = [further if row["name"] == "redirect" else row for row in report["rows"]]
        report = report | {"rows": rows, "retrains": [*others, others[0] | {"name": "retrained-6"}]}
        assert claim(report, "C2")["verdict"] == PASS


def test_too_few_retrained_models_give_no_verdict_on_an_attack(report):
    """An unlearning ratio of 50% beside 0%, each of 10 samples, once passed."""
    row = named(report, "redirect")
    row["resurgence"] = {"items": 9, "samples": 10, "curve": [point(0, n=10, step=0), point(5, n=10, step=100)]}
    assert claim(report, "C2")["verdict"] == FAIL
    for count in (0, 4):
        few = report | {"retrains": make_retrains()[:count]}
        assert claim(few, "C2")["verdict"] == INCONCLUSIVE
        evidence = " ".join(check["evidence"] for check in claim(few, "C2")["checks"])
        assert f"{count} models were retrained for a band, of at least 5, with resurgence" in evidence


def test_an_attack_that_does_not_tell_the_base_model_shows_nothing(report):
    """Relearning that brings nothing back, in any model, once counted as passed."""
    for row in (*report["rows"], *report["retrains"]):
        row["relearning"] = attacked(relearnt=1000)["relearning"]
    found = claim(report, "C2")
    assert found["verdict"] == PASS
    assert "nothing is shown by relearning" in found["checks"][-1]["evidence"]
    assert "5 of 6 attacks tell the original" in made(report)["statement"]


def test_where_no_attack_tells_the_base_model_nothing_is_bounded(report):
    row = named(report, "do-nothing")
    row |= attacked()
    found = claim(report, "C2")
    assert found["verdict"] == INCONCLUSIVE
    assert "none of 6; nothing is shown by relearning, resurgence" in found["checks"][-1]["evidence"]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", ["redirect", "retrained-1"])
def test_c2_is_inconclusive_without_an_attack_on_one_of_the_models(report, attack, name):
    del next(row for row in (*report["rows"], *report["retrains"]) if row["name"] == name)["measured"][attack]
    found = claim(report, "C2")
    assert found["verdict"] == INCONCLUSIVE
    assert any(attack in reason for reason in found["reasons"])


def test_an_attack_that_could_not_be_made_is_not_tested_with_its_reason(report):
    named(report, "redirect")["membership"] = {"not_tested": "no held-out item"}
    assert claim(report, "C2")["verdict"] == INCONCLUSIVE
    tree = made(report)
    assert any(line.startswith("membership") and "no held-out item" in line for line in tree["not_tested"])
    lines = [line for line in tree["numbers"]["privacy"] if line["test"] == "membership"]
    assert lines
    assert all(line["this"] is None and line["base"] for line in lines)


def test_a_diverged_membership_says_nothing(report):
    named(report, "redirect")["membership"]["forget"] = {"auc": None, "true_positives": None, "non_finite": 3}
    assert claim(report, "C2")["verdict"] == INCONCLUSIVE


def test_a_retrained_model_is_the_wrong_reference_for_a_concept(report):
    report["request"]["target"] = "concept"
    found = claim(report, "C2")
    assert found["verdict"] == INCONCLUSIVE
    assert sum(WRONG_REFERENCE in check["evidence"] for check in found["checks"]) == len(
        ATTACKS
    )  # one of them is power
    assert not any("membership" in check["name"] for check in found["checks"])
    assert [reason.split(":")[0] for reason in found["reasons"]] == [WRONG_REFERENCE]
    tree = made(report)
    assert tree["level"] == "C1"
    assert tree["reference"]["note"] == WRONG_REFERENCE
    assert {line["note"] for line in tree["numbers"]["privacy"] if line["test"] == "membership"} == {WRONG_REFERENCE}
    assert {line["note"] for line in tree["numbers"]["privacy"] if line["test"] != "membership"} == {None}
    assert any(WRONG_REFERENCE in line for line in tree["cannot_say"])
    assert f"retrained ({WRONG_REFERENCE})" in card_markdown(tree, {})
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE


def test_more_than_retrained_models_show_counts_for_a_concept_too_but_membership_and_less_do_not(report):
    report["request"]["target"] = "concept"
    named(report, "redirect").update(attacked(relearnt=1000, member=0.9))
    assert claim(report, "C2")["verdict"] == INCONCLUSIVE
    named(report, "redirect")["relearning"] = attacked(relearnt=5)["relearning"]
    assert claim(report, "C2")["verdict"] == FAIL


# C3 to C5


@pytest.mark.parametrize("count", [0, 4])
def test_four_retrained_models_are_no_band(report, count):
    report["retrains"] = make_retrains()[:count]
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE
    assert any(f"{count} of at least 5" in line for line in made(report)["not_tested"])
    assert made(report)["reference"]["numbers_judged_together"] == 0


def inside_band(report) -> dict:
    """Give redirect the rates of the retrained models, in which alone it differs."""
    set_rate(named(report, "redirect"), 4, JUNK["unseen-scratch"])
    named(report, "redirect")["unlearning_ratio_closed_set"] = rate(UR["unseen-scratch"], 2000)
    return report


def test_c3_passes_where_every_number_lies_inside_the_band(report):
    tree = made(inside_band(report))
    assert tree["level"] == "C3", claim(report, "C3")
    assert "lie inside the band of retrained models" in tree["statement"]
    assert "0 of 10 outside" in claim(report, "C3")["checks"][1]["evidence"]
    assert tree["reference"]["n_oracles"] == 5
    assert tree["reference"]["power_of_c3"].endswith("5 of 5 have all numbers inside")
    lines = {line["number"]: line for lines in tree["numbers"].values() for line in lines}
    assert lines["UR % [95% CI]"]["inside"] == "yes"
    assert lines["UR % while relearning"]["this"]
    assert not any("band of retrained models" in line for line in tree["not_tested"])


def test_a_card_of_several_seeds_shows_the_means_that_it_judges(report):
    rows = [row | {"seed": seed} for seed in (0, 1) for row in copy.deepcopy(report["rows"])]
    for row in rows:
        set_rate(row, 4 + 40 * row["seed"])
    tree = made(report | {"rows": over_seeds(rows, report), "seeds": [0, 1]})
    (line,) = (line for line in tree["numbers"]["forgetting"] if line["number"].startswith("UR % ["))
    assert line["this"].startswith("1.2 ")
    assert line["base"].startswith("1.2 ")
    assert line["retrain"].startswith("1.2 ")


def test_c3_fails_by_one_number_and_names_it(report):
    part = {"mean": 2.9, "median": 2.25, "standard_error": 0.1, "n": 10}
    named(inside_band(report), "redirect")["nll"]["forget"] = part
    found = claim(report, "C3")
    assert found["verdict"] == FAIL
    assert "1 of 11 outside (NLL forget above)" in found["checks"][1]["evidence"]
    assert made(report)["level"] == "C2"


def test_retrained_models_of_the_band_are_references_where_no_row_was_retrained(report):
    alone = without(inside_band(report), "unseen-scratch")
    assert [c["verdict"] for c in made(alone)["controls"]] == [PASS] * 5
    assert made(alone)["level"] == "C3"
    assert made(alone)["numbers"]["forgetting"][0]["retrain"] is not None


def test_c3_needs_c2_and_what_is_left_of_items_to_retain_is_a_matter_of_c3(report):
    row = named(inside_band(report), "redirect")
    row["membership"]["retain"] = auc(0.9)
    assert [claim(report, level)["verdict"] for level in ("C2", "C3")] == [PASS, FAIL]
    row["membership"]["retain"] = auc(0.5)
    row["quantisation"] = attacked(changed=20)["quantisation"]
    assert [claim(report, level)["verdict"] for level in ("C2", "C3")] == [FAIL, FAIL]


def test_a_retrained_model_unlike_the_others_is_named(report):
    part = {"mean": 2.9, "median": 2.25, "standard_error": 0.1, "n": 10}
    report["retrains"][2]["nll"] = {"unit": "bits/dim", "retain": part, "forget": part}
    row = named(judged(report, LADDER), "redirect")
    assert row["judged"]["held_out_outside"] == {"3": ["NLL retain", "NLL forget"]}
    assert made(report)["reference"]["power_of_c3"].endswith("4 of 5 have all numbers inside")


def test_c3_needs_every_number_of_the_band(report):
    named(inside_band(report), "redirect")["measured"].pop("nll")
    assert claim(report, "C3")["verdict"] == INCONCLUSIVE


def test_c4_is_a_model_retrained_without_observed_items_by_its_log(report):
    tree = made(report, "unseen-scratch")
    assert (tree["level"], claim(report, "C4", "unseen-scratch")["verdict"]) == ("C4", PASS)
    assert "were removed from the training data" in tree["statement"]
    assert claim(report, "C4")["verdict"] == FAIL


def test_c4_does_not_need_controls(report):
    alone = without(without(report, "do-nothing"), "random-network")
    assert made(alone, "unseen-scratch")["level"] == "C4"


@pytest.mark.parametrize("target", ["latent", "concept"])
def test_c4_is_for_observed_items_only(report, target):
    report["request"]["target"] = target
    assert claim(report, "C4", "unseen-scratch")["verdict"] == FAIL
    assert made(report, "unseen-scratch")["level"] != "C4"


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("forget_digest", "other", FAIL),
        ("data_digest", "other", FAIL),
        ("status", "running", FAIL),
        ("forget_digest", None, INCONCLUSIVE),
    ],
)
def test_c4_reads_the_log(report, key, value, verdict):
    named(report, "unseen-scratch")["provenance"][key] = value
    assert claim(report, "C4", "unseen-scratch")["verdict"] == verdict


def test_a_model_retrained_for_another_request_is_no_reference(report):
    report["retrains"] = []
    named(report, "unseen-scratch")["provenance"]["forget_digest"] = "other"
    assert references(judged(report, LADDER)).retrains == []
    assert control(report, "retrained")["verdict"] == NOT_TESTED


def test_a_proven_bound_is_never_claimed(report):
    for name in NAMES:
        assert claim(report, "C5", name)["verdict"] == FAIL


# Controls


def test_all_controls_hold_in_a_sound_report(report):
    assert [c["verdict"] for c in made(report)["controls"]] == [PASS] * 5


@pytest.mark.parametrize("name", ["do-nothing", "unseen-scratch"])
def test_a_missing_control_leaves_the_tests_inconclusive_and_says_what_to_do(report, name):
    report["request"]["target"], report["retrains"] = "concept", []
    found = claim(without(report, name), "C1")
    assert found["verdict"] == INCONCLUSIVE
    assert any("was not tested" in reason and "as a further RUN" in reason for reason in found["reasons"])


def test_a_network_of_random_weights_is_needed_for_attacks_only(report):
    alone = without(report, "random-network")
    assert claim(alone, "C1")["verdict"] == PASS
    assert claim(alone, "C2")["verdict"] == INCONCLUSIVE


def break_base(report):
    set_rate(named(report, "do-nothing"), 5)


def break_retrain(report):
    set_rate(named(report, "unseen-scratch"), 350)


def break_random(report):
    set_rate(named(report, "random-network"), 0, 210)


def break_recall(report):
    report["judge"]["forget_recall"] = rate(10, 31)


def break_floor(report):
    report["real"]["unlearning_ratio"] = rate(30, 400)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (break_base, "base"),
        (break_retrain, "retrained"),
        (break_random, "random"),
        (break_recall, "items to forget"),
        (break_floor, "items to retain"),
    ],
)
def test_a_control_that_fails_leaves_the_tests_inconclusive(report, fault, name):
    fault(report)
    assert control(report, name)["verdict"] == FAIL
    for level in ("C1", "C2", "C3"):
        found = claim(report, level)
        assert found["verdict"] == INCONCLUSIVE
        assert any("failed" in reason and name in reason for reason in found["reasons"])
    assert made(report)["level"] == "C0"


def test_a_judge_without_items_to_forget_is_not_tested(report):
    report["judge"]["forget_recall"] = None
    assert control(report, "items to forget")["verdict"] == NOT_TESTED
    assert claim(report, "C1")["verdict"] == INCONCLUSIVE


def test_a_single_model_is_inconclusive(report):
    alone = report | {"rows": [named(report, "redirect")], "base": None, "retrains": []}
    assert made(alone)["level"] == "C0"
    assert claim(alone, "C1")["verdict"] == INCONCLUSIVE
    assert any("closeness to a retrained model" in line for line in made(alone)["cannot_say"])


def test_a_base_trained_here_is_found_by_what_was_done_to_it(report):
    named(report, "do-nothing").update(name="digits-vp", start="scratch", objective="standard")
    assert references(judged(report, LADDER)).base["name"] == "digits-vp"


# What is not tested, and what cannot be said


@pytest.mark.parametrize("metric", TESTS)
def test_what_was_not_measured_is_named(report, metric):
    row = named(report, "redirect")
    row["measured"].pop(metric, None)
    tree = made(report)
    assert any(line.startswith(f"{metric}: ") for line in tree["not_tested"])
    page = card_html(tree, {})
    assert f"<li>{metric}: " in page
    assert f"- {metric}: " in card_markdown(tree, {})


def test_cells_without_numbers_say_so(report):
    row = named(report, "redirect")
    row["measured"] = {"nll": {}}
    text = card_markdown(made(report), {})
    assert re.search(r"\| ur \| UR % \[95% CI\] \| NOT TESTED \| 18.0 ", text)
    for cells in (line for line in text.split("\n") if line.startswith("|")):
        assert "| |" not in cells.removesuffix("|  |")


def test_an_empty_row_still_has_a_card(report):
    for row in report["rows"]:
        row["measured"] = {}
    tree = made(report)
    assert tree["level"] == "C0"
    assert "## Utility\n\nNOT TESTED" in card_markdown(tree, {})


def test_what_nobody_recorded_is_named(report):
    row = named(report, "redirect")
    del row["provenance"], report["date"], report["artifacts"]
    text = card_markdown(made(report), {})
    for line in ("date", "model digest", "device", "energy", "tuning oracle access"):
        assert f"- {line}: {NOT_RECORDED}" in text
    assert "- near duplicates searched: NOT TESTED" in text


@pytest.mark.parametrize(("goal", "word"), [("removal", "Removal"), ("suppression", "Suppression")])
def test_what_the_goal_leaves_open_is_said(report, goal, word):
    report["request"]["goal"] = goal
    assert any(line.startswith(f"{word} was asked for") for line in made(report)["cannot_say"])


def test_the_five_lines_always_stand(report):
    for name in NAMES:
        text = " ".join(made(report, name)["cannot_say"])
        for words in ("other copies", "derived again", "supplying it", "stronger", "in law"):
            assert words in text


# Words


@pytest.mark.parametrize("target", ["observed", "concept"])
def test_what_users_wrote_stands_at_every_level(report, target):
    words = "deleted, Removed, GDPR-compliant, CERTIFIED and deleted_users.txt given by A"
    report = copy.deepcopy(report)
    report["title"] = words
    report["request"] |= {"text": f"removal of the {target} given by file {words}", "target": target}
    report["protocol"] |= {words: words, "removed": "one", "Removed": "two"}
    named(report, "random-network")["name"] = "removed-network"
    for row in report["rows"]:
        tree = made(report, row["name"])
        assert (tree["title"], tree["name"]) == (words, row["name"])
        assert tree["request"]["selection"] == f"file {words}"
        assert tree["protocol"] == report["protocol"]
        assert card_markdown(tree, {}).count(words) >= 4
        assert card_html(tree, {}).count(words) >= 4


def test_a_request_in_other_words_has_no_selection(report):
    report["request"]["text"] = "what was given by hand"
    assert made(report)["request"]["selection"] is None


# Facts and numbers


def test_the_header_says_which_seeds_and_which_base_model(report):
    report = judged(report, LADDER)
    for seeds, text in (([], "0"), ([4, 5], "4, 5")):
        header = card(report | {"seeds": seeds}, named(report, "redirect"))["header"]
        assert (header["seeds"], header["base_digest"]) == (text, "digest of do-nothing")
    assert made(without(report, "do-nothing"))["header"]["base_digest"] is None


@pytest.mark.parametrize(
    ("target", "scope"), [("observed", "instances"), ("latent", "attribute"), ("concept", "class or concept")]
)
def test_the_scope_of_a_request(report, target, scope):
    report["request"]["target"] = target
    assert made(report)["request"]["scope"] == scope


@pytest.mark.parametrize(
    ("facts", "family"),
    [
        ({"start": "none", "objective": None, "name": "do-nothing"}, "none: the base model"),
        ({"start": "none", "objective": None}, "unknown: made elsewhere"),
        ({"start": "random", "objective": None}, "none: random weights"),
        ({"start": "scratch", "objective": "unseen"}, "exact: retrained"),
        ({"start": "scratch", "objective": "standard"}, "none: trained on all data"),
        (
            {"start": "scratch", "objective": "redirect"},
            "trained from random weights on the items to forget too",
        ),
        ({"start": "finetune", "objective": "unseen"}, "approximate update"),
    ],
)
def test_the_family_of_a_method(report, facts, family):
    named(report, "redirect").update(facts)
    report = judged(report, LADDER)
    assert card(report, report["rows"][NAMES.index("redirect")])["method"]["family"] == family


@pytest.mark.parametrize(
    ("text", "steps", "needs", "touches"),
    [
        ("data: retain", 7, [True, False], "all weights"),
        ("data: forget and retain", 7, [True, False], "all weights"),
        ("data: all", 7, [True, False], "all weights"),
        ("data: forget", 7, [False, False], "all weights"),
        ("formula: unknown", 7, [None, None], "all weights"),
        (None, 0, [None, None], "nothing"),
    ],
)
def test_what_a_method_needs_and_touches(report, text, steps, needs, touches):
    named(report, "redirect").update(card=text, steps=steps)
    method = made(report)["method"]
    assert [method["needs_retain_data"], method["needs_nonmember_data"]] == needs
    assert (method["touches"], method["model_digest"]) == (touches, "digest of redirect")
    assert "from_cache" not in method


def test_a_model_from_the_cache_says_when_it_was_trained(report):
    named(report, "redirect")["provenance"]["cached"] = {"trained": "2026-01-01"}
    assert made(report)["method"]["from_cache"] == "trained 2026-01-01"


def lines_of(tree) -> dict:
    """Every line of a card's numbers, with its section, by the number's name."""
    return {line["number"]: line | {"section": section} for section, lines in tree["numbers"].items() for line in lines}


@pytest.mark.parametrize(
    ("number", "section", "better"),
    [
        ("UR % [95% CI]", "forgetting", "lower"),
        ("junk %", "utility", "lower"),
        ("copy %", "privacy", "lower"),
        ("NLL retain", "utility", "lower"),
        ("relearning steps to half the base's UR", "residue", "higher"),
        ("UR % while relearning", "residue", ""),
    ],
)
def test_a_number_stands_in_its_section_beside_those_of_other_models(report, number, section, better):
    tree = made(report)
    line = lines_of(tree)[number]
    assert (line["section"], line["better"], line["note"]) == (section, better, None)
    assert list(tree["columns"]) == ["this", "base", "retrain", "random", "band", "inside", "noticed"]
    assert line["this"] is not None
    assert line.keys() >= tree["columns"].keys()


def test_a_card_shows_numbers_that_only_other_rows_have(report):
    named(report, "redirect")["measured"] = {"ur": {}}
    lines = lines_of(made(report))
    assert (lines["NLL retain"]["this"], lines["NLL retain"]["base"]) == (None, "2.50 (2.25)")
    assert "NLL forget" in lines
    assert "UR % while relearning" not in lines


def test_without_a_band_its_columns_are_left_out(report):
    report["retrains"] = []
    tree = made(report)
    assert set(tree["columns"]) == {"this", "base", "retrain", "random"}
    assert not {"band", "inside", "noticed"} & set(lines_of(tree)["UR % [95% CI]"])


def test_a_retrained_row_stands_beside_another_retrained_model(report):
    line = lines_of(made(report, "unseen-scratch"))["UR % [95% CI]"]
    assert (line["this"][:3], line["retrain"][:3]) == ("0.2", "0.1")
    report["retrains"] = []
    assert lines_of(made(report, "unseen-scratch"))["UR % [95% CI]"]["retrain"] is None


def test_a_reason_stands_where_an_attack_was_asked_for_and_could_not_be_made(report):
    row = named(report, "redirect")
    row["weights_attack"] = {"not_tested": "no checkpoint"}
    del row["measured"]["quantisation"]
    lines = [line for line in made(report)["not_tested"] if line.startswith(("weights:", "quantisation:"))]
    assert lines == [
        f"weights: {TESTS['weights'][1]} (no checkpoint)",
        f"quantisation: {TESTS['quantisation'][1]}",
    ]


def test_a_statement_says_no_more_than_was_reached(report):
    band = "By the judge's unlearning ratio, samples are no longer distinguishable from those of retrained models: UR "
    attacks, inside = "No attack listed below tells the model", "All 10 numbers that are judged lie inside"
    bounded = made(report)["statement"]
    assert bounded.startswith(f"{band}0.1% over 1 seed, where at most 0.5% is allowed (upper end of the band of 5 ")
    assert (attacks in bounded, inside in bounded) == (True, False)
    whole = made(inside_band(report))["statement"]
    assert (attacks in whole, inside in whole) == (True, True)
    named(report, "redirect").update(attacked(changed=20))
    assert attacks not in made(report)["statement"]
    report["request"]["target"] = "concept"
    assert "no longer distinguishable from real items to retain: 0.2% [" in made(report)["statement"]


@pytest.mark.parametrize(("count", "row"), [(0, True), (4, True), (5, True), (0, False)])
def test_how_many_retrained_models_a_card_is_read_against(report, count, row):
    report["retrains"] = make_retrains()[:count]
    tree = made(report if row else without(report, "unseen-scratch"))
    oracles = count or int(row)
    assert (tree["reference"]["n_oracles"], tree["reference"]["oracle_kind"]) == (
        oracles,
        "retrain" if oracles else "none",
    )
    assert any("What spread retrained models have" in line for line in tree["cannot_say"]) is (0 < oracles < 5)


@pytest.mark.parametrize("metric", ["nll", "ur"])
def test_what_a_metric_does_not_show_is_said_where_it_was_measured(report, metric):
    words = {"nll": "likelihood is no sampling", "ur": "junk shows no content either"}[metric]
    assert any(words in line for line in made(report)["cannot_say"])
    del named(report, "redirect")["measured"][metric]
    assert not any(words in line for line in made(report)["cannot_say"])


@pytest.mark.parametrize(
    ("name", "hits", "unjudged", "alike"),
    [
        ("redirect", 350, None, True),
        ("redirect", 200, None, False),  # wholly below the base's 360 of 2000
        ("redirect", 600, None, False),  # wholly above
        ("redirect", 350, "redirect", False),
        ("redirect", 350, "do-nothing", False),
        ("do-nothing", 360, None, False),  # it is the base model
    ],
)
def test_a_method_is_like_do_nothing_where_the_intervals_meet(report, name, hits, unjudged, alike):
    set_rate(named(report, name), hits)
    if unjudged:
        del named(report, unjudged)["measured"]["ur"]
    assert any("do-nothing scores like it" in line for line in made(report, name)["cannot_say"]) is alike


def test_a_diverged_number_has_an_empty_cell(report):
    diverged = {"mean": None, "median": None, "standard_error": None, "n": 9, "non_finite": 2}
    named(report, "redirect")["class_histogram"] = {"0": 0, "3": 0, "none": 9}
    named(report, "redirect")["nll"]["forget"] = diverged
    lines = lines_of(made(report))
    assert (lines["NLL forget"]["this"], lines["class distance %"]["this"]) == ("diverged on 2", None)


def test_pictures_are_shown_by_their_pixels_and_plots_as_such(report):
    looks = {name: figure["look"] for name, figure in made(report)["figures"].items()}
    assert (looks.pop("samples"), looks.pop("neighbours"), {*looks.values()}) == ("pixels", "wide", {"plot"})


# Views and figures


def test_every_card_has_its_figures_as_pngs(written):
    for name in NAMES:
        pictures = list((written.path / "rows" / name / "figures").glob("*.png"))
        assert {path.stem for path in pictures} == set(FIGURES)
        assert all(Image.open(path).format == "PNG" for path in pictures)


def test_figures_without_data_are_left_out_and_named(run, report):
    row = named(report, "redirect")
    row["measured"] = {"ur": {}}
    (run.path / row["grid"]).unlink()
    assert card_figures(run, judged(report, LADDER), row) == {}
    text = card_markdown(made(report), {})
    assert text.count("- figure: ") == len(FIGURES)


def test_likelihoods_that_diverged_or_were_not_kept_are_not_drawn(run, report):
    row = named(report, "redirect")
    write_arrays(run.path / row["folder"] / "nll.npz", {"retain": np.full((3, 1), np.nan), "forget": np.ones((3, 1))})
    assert "likelihoods" not in card_figures(run, judged(report, LADDER), row)
    (run.path / row["folder"] / "nll.npz").unlink()
    assert "likelihoods" not in card_figures(run, judged(report, LADDER), row)


def test_rows_keep_their_colour_and_differ(report):
    styles = row_styles(judged(report, LADDER))
    assert len({tuple(style.items()) for style in styles.values()}) == len(NAMES)
    assert row_styles(judged(without(report, "random-network"), LADDER))["redirect"] == styles["redirect"]
    many = [make_row("redirect") | {"name": f"row {k}"} for k in range(3 * len(OTHERS))]
    found = row_styles(judged(report | {"rows": many, "retrains": []}, LADDER))
    assert len({tuple(style.items()) for style in found.values()}) == len(many)


def test_cards_are_self_contained_and_escaped(written, report):
    folder = written.path / "rows/redirect"
    page, text = ((folder / f"card.{kind}").read_text() for kind in ("html", "md"))
    assert "a &amp; b" in page
    assert "the redirect loss &lt;b&gt;" in page
    assert not re.search(r"https?://|<script|<link|\{\{|None", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    links = re.findall(r"\]\((figures/[a-z]+\.png)\)", text)
    assert len(links) == len(FIGURES)
    assert all((folder / link).is_file() for link in links)
    assert read_json(folder / "card.json") == json.loads(json.dumps(made(report)))


def test_cards_are_rebuilt_from_the_report(run, report):
    report["rows"] = [named(report, "redirect")]
    files = [run.path / "rows/redirect" / f"card.{kind}" for kind in ("json", "md", "html")]
    write_cards(run, judged(report, LADDER))
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    write_cards(run, json.loads(json.dumps(judged(report, LADDER))))
    assert [path.read_bytes() for path in files] == before


def test_the_report_links_every_card_and_compares_the_rows(written):
    html, markdown = ((written.path / f"report.{kind}").read_text() for kind in ("html", "md"))
    for name in NAMES:
        assert f'href="rows/{name}/card.html"' in html
        assert f"](rows/{name}/card.md)" in markdown
        assert (written.path / f"rows/{name}/card.html").is_file()
    assert "Relearning: UR after steps" in html


def test_cards_of_evaluated_runs_stand_beside_the_report(report):
    report["base"] = None
    assert card_links(report)["redirect"] == "redirect-card"
    named(report, "redirect")["model"] = "model"
    assert card_links(report)["redirect"] == "card"


def test_names_with_dots_and_blanks_keep_their_cards_apart(run, report):
    rows = [named(report, "redirect") | {"name": name} for name in ("alpha .7", "alpha .9")]
    report |= {"base": None, "rows": rows}
    for row in rows:
        row["measured"] = {}
    write_cards(run, judged(report, LADDER))
    for name in ("alpha .7", "alpha .9"):
        assert read_json(run.path / f"{name}-card.json")["name"] == name
        link = f"{name.replace(' ', '%20')}-figures/samples.png"
        assert f"]({link})" in (run.path / f"{name}-card.md").read_text()
        assert (run.path / f"{name}-figures/samples.png").is_file()


def test_the_report_says_which_attacks_were_not_made(report):
    assert "not tested here" not in dict(verdict(judged(report, LADDER)))["Cannot be said"]
    assert "attacks" in dict(verdict(judged(report, LADDER)))["Shown"]
    for row in report["rows"]:
        row["measured"] = {"ur": {}, "nll": {}, "relearning": {}}
    said = dict(verdict(judged(report, LADDER)))["Cannot be said"]
    assert "partial-noise, weights, quantisation, membership were not tested here" in said
    assert "relearning" not in said


# Provenance

FORGET = np.array([3, 1, 4])


def test_hidden_files_change_no_digest(tmp_path):
    write_bytes(tmp_path / "unet" / "weights.safetensors", b"x")
    digest = model_digest(tmp_path)
    for name in ("unet/._weights.safetensors", ".cache/weights.safetensors", "__MACOSX/unet/weights.safetensors"):
        write_bytes(tmp_path / name, b"y")
    assert model_digest(tmp_path) == digest


def test_digests_and_logs_come_from_the_folders(tmp_path):
    run = Run(tmp_path)
    for name in ("do-nothing", "unseen-scratch"):
        write_bytes(run.path / f"rows/{name}/model/unet/weights.safetensors", name.encode())
        write_json(run.path / f"rows/{name}/manifest.json", LOG)
    rows = [make_row(name) for name in ("do-nothing", "unseen-scratch")]
    found = [provenance(run, row, FORGET) for row in rows]
    assert found[0]["model_digest"] != found[1]["model_digest"] == model_digest(run.path / rows[1]["model"])
    assert found[0]["device"] == "cpu"


def test_a_logged_digest_is_told_by_the_key_of_its_own_folder(tmp_path):
    run, row = Run(tmp_path), make_row("unseen-scratch")
    made = tmp_path / "rows/unseen-scratch"
    logged = {
        "keyed": positions_digest(made, FORGET),
        "first version": unkeyed_digest(FORGET),
        "others": positions_digest(made, FORGET + 1),
        "none": None,
    }
    found = {}
    for name, digest in logged.items():
        write_json(made / "manifest.json", LOG | {"forget_digest": digest})
        found[name] = provenance(run, row, FORGET)["forget_digest"]
    ours = positions_digest(tmp_path, FORGET)
    assert found == {"keyed": ours, "first version": ours, "others": "other items", "none": None}
    write_json(made / "manifest.json", LOG | {"forget_digest": logged["keyed"]})
    (made / "key").unlink()
    assert provenance(run, row, FORGET)["forget_digest"] is None


def test_a_row_of_an_older_report_has_no_provenance(tmp_path):
    assert set(provenance(Run(tmp_path), {"name": "a"}, FORGET).values()) == {None}


FOUND = {"bandwidth": 0.25341, "kept_share": 0.5, "kept_shares": {"a.weight": 0.25, "b.weight": 0.75}}
FOUND_TEXT = "bandwidth 0.2534, 50.0% of the weights may change, from 25.0% of a.weight to 75.0% of b.weight"


def test_what_was_found_in_preparation_stands_on_the_card_and_in_the_report(report):
    row = named(report, "redirect")
    assert "found_in_preparation" not in made(report)["method"]
    assert "found in preparation" not in to_markdown(judged(report, LADDER))
    row["found"] = FOUND
    assert made(report)["method"]["found_in_preparation"] == FOUND_TEXT
    assert FOUND_TEXT in card_markdown(made(report), {}).replace("\\", "")
    assert FOUND_TEXT in card_html(made(report), {})
    assert f"found in preparation: {FOUND_TEXT}." in to_markdown(judged(report, LADDER)).replace("\\", "")
