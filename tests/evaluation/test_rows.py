"""A generator's numbers over seeds, judged beside the band of retrained models."""

import numpy as np
import pytest

from msgm.evaluation.band_table import band_table
from msgm.evaluation.found import found_text
from msgm.evaluation.ladder import LADDER, ratio_of
from msgm.evaluation.metrics.unlearning_ratio import histogram_distance
from msgm.evaluation.rates import rate
from msgm.evaluation.rows import headings_of, judged, number_of, over_seeds
from msgm.study.judging import NO_EFFECT

NAMES = ("UR %", "junk %", "NLL retain", "NLL forget")


def a_row(name, values, **facts):
    """A row of one tree of numbers a seed."""
    trees = [dict(zip(NAMES, each, strict=False)) for each in values]
    found = [{"seed": seed, "seconds": 2.0, "metrics": tree} for seed, tree in enumerate(trees)]
    return {
        "name": name,
        "start": "finetune",
        "objective": name,
        "seconds": 2.0,
        "measured": {},
        "per_seed": found,
    } | facts


def a_report(rows, models):
    retrains = [a_row(f"retrained-{k}", [model]) for k, model in enumerate(models, 1)]
    found = {"seed": 0, "seeds": [0, 1, 2], "rows": rows, "retrains": retrains, "request": {"target": "observed"}}
    found |= {"real": {}}
    return judged(found, LADDER)


def all_inside(report):
    """Whether the first row meets C3's own condition."""
    return LADDER.claims(report | REFERENCES, report["rows"][0])[2].checks[1].holds


REFERENCES = {"data": {"digest": None}, "judge": {"heldout_accuracy": 1, "forget_recall": None, "heldout": rate(9, 9)}}
REFERENCES |= {"real": {"unlearning_ratio": rate(0, 9)}}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_further_retrained_model_passes_c3_at_the_stated_rate(seeds):
    """Four independent numbers judged together: 1 - (1 - .05/4)^4 = .0491 fail."""
    draws, passed, trials = np.random.default_rng(0), 0, 2000
    for _ in range(trials):
        row = a_row("row", draws.normal(size=(seeds, 4)).tolist())
        (found,) = a_report([row], draws.normal(size=(5, 4)).tolist())["rows"]
        passed += all(entry["inside"] for entry in found["metrics"].values())
    assert passed / trials == pytest.approx(0.951, abs=0.015)


def test_the_mean_over_seeds_is_judged_and_has_its_interval():
    models = [[value] for value in (8.0, 9.0, 10.0, 11.0, 12.0)]
    row, above = a_report([a_row("row", [[12.0], [13.0], [14.0]]), a_row("above", [[13.3]] * 3)], models)["rows"]
    found = row["metrics"]["UR %"]
    assert (found["value"], found["seeds"], found["place"]) == (13.0, 3, "inside")
    # 2.7764 * sqrt(2.5 * (1/3 + 1/5))
    assert (found["band"]["low"], found["band"]["high"]) == pytest.approx((10 - 3.2054, 10 + 3.2054), abs=1e-3)
    assert found["high"] - found["value"] == pytest.approx(4.3027 / 3**0.5, abs=1e-3)
    assert above["metrics"]["UR %"]["place"] == "above"


@pytest.mark.parametrize(("metric", "pairs"), [("score-distance", True), ("sima", None)])
def test_means_over_pairs_of_models_have_a_wider_band(metric, pairs):
    """Its half width for one seed is t sd sqrt(1 + 1/5), times 4/3 for pairs."""
    numbers = {"compared": {"score distance forget": {"value": 0.0}}}
    numbers = numbers if pairs else {"forget": {"auc": {"value": 0.0}, "true_positives": None}}
    facts = {"measured": {metric: {}}, metric.replace("-", "_"): numbers}
    heading = "score distance forget" if pairs else "SimA AUC forget"
    made = [
        a_row(name, [[]], **facts) | {"per_seed": [{"seed": 0, "seconds": 1.0, "metrics": {heading: float(value)}}]}
        for value, name in enumerate(["row", *(f"retrained-{number}" for number in range(1, 6))])
    ]
    found = {"seed": 0, "seeds": [0], "rows": made[:1], "retrains": made[1:], "request": {"target": "observed"}}
    (row,) = judged(found | {"real": {}}, LADDER)["rows"]
    entry, half = row["metrics"][heading], 2.7764 * 2.5**0.5 * 1.2**0.5
    assert entry.get("pairs") is pairs
    assert entry["band"]["high"] - 3 == pytest.approx(half * (4 / 3 if pairs else 1), abs=1e-3)


def test_seeds_of_one_name_make_one_row():
    rows = [{"name": name, "seed": seed, "measured": {}} for seed in (0, 1) for name in ("a", "b")]
    found = over_seeds(rows, {})
    assert [(row["name"], [part["seed"] for part in row["per_seed"]]) for row in found] == [
        ("a", [0, 1]),
        ("b", [0, 1]),
    ]


def a_model(ratio, junk, seed, n=100, **facts):
    """What is measured of a model at one seed, with rates in hits of n samples."""
    found = {"name": "row", "seed": seed, "start": "finetune", "objective": "redirect", "seconds": 10.0 * (seed + 1)}
    found |= {"measured": {"ur": {}}, "unlearning_ratio": rate(ratio, n), "unlearning_ratio_closed_set": rate(ratio, n)}
    shares = {name: rate(hits, n) for name, hits in (("junk_rate", junk), ("copy_rate", 0))}
    found |= {name: share["value"] for name, share in shares.items()}
    return found | {"intervals": {name: [share["low"], share["high"]] for name, share in shares.items()}} | facts


def of_seeds(*models, base=None):
    """A judged report on a concept, of a row over seeds and of the base model."""
    request = {"target": "concept", "goal": "suppression"}
    report = {"seed": 0, "seeds": list(range(len(models))), "request": request, "real": REFERENCES["real"]}
    bases = [base | {"name": "do-nothing", "start": "none", "objective": "standard"}] if base else []
    return judged(report | {"rows": over_seeds([*models, *bases], report)}, LADDER) | REFERENCES


def test_c1_is_about_all_seeds():
    """The floor's upper end is 1 - 9 / (9 + z^2) = .299; a t-interval of three seeds has 4.303 sd / sqrt(3) a side."""
    base = a_model(50, 2, 0)
    good = of_seeds(*(a_model(1, 2, seed) for seed in range(3)), base=base)
    one_bad = of_seeds(a_model(1, 2, 0), a_model(1, 90, 1), a_model(1, 90, 2), base=base)
    above = of_seeds(a_model(1, 2, 0), *(a_model(90, 2, seed) for seed in (1, 2)), base=base)
    all_junk = of_seeds(a_model(1, 2, 0), *(a_model(1, 60 + seed, seed) for seed in range(1, 9)), base=base)
    checks = [[check.holds for check in LADDER.first(report, report["rows"][0])] for report in (good, one_bad, above)]
    assert checks == [[True, True], [True, None], [None, True]]
    assert LADDER.first(all_junk, all_junk["rows"][0])[1].holds is False


def test_the_interval_of_seeds_that_agree_is_wilsons_of_all_samples():
    report = of_seeds(*(a_model(0, 0, seed) for seed in range(3)))
    assert ratio_of(report["rows"][0]) == pytest.approx(rate(0, 300))
    spread = of_seeds(a_model(0, 0, 0), a_model(10, 0, 1), a_model(20, 0, 2))
    found = ratio_of(spread["rows"][0])
    assert (found["value"], found["low"], found["n"]) == (pytest.approx(0.1), 0.0, 300)
    assert found["high"] == pytest.approx(0.1 + 4.3027 * 0.1 / 3**0.5, abs=1e-4)


def test_a_row_has_the_mean_seconds_of_its_seeds_and_the_history_of_the_worst():
    def history(verdict):
        told = {"text": "x", "evidence": "y", "asked": True, "verdict": verdict}
        return {"requests": [], "unknown": None, "anew": [], "earlier": [told]}

    verdicts = ("PASS", "FAIL", "INCONCLUSIVE")
    report = of_seeds(*(a_model(1, 1, seed, history=history(verdict)) for seed, verdict in enumerate(verdicts)))
    (row,) = report["rows"]
    assert row["seconds"] == 20.0
    assert row["history"]["earlier"][0]["verdict"] == "FAIL"


def test_a_row_is_its_first_seed_and_keeps_what_is_known_of_every_one():
    rows = [
        {"name": "a", "start": "none", "measured": {}, "seed": k, "seconds": 2.0 + k, "cached": None}
        | {"folder": f"rows/a/seed-{k}", "model": f"rows/a/seed-{k}/model"}
        for k in (0, 1)
    ]
    (found,) = over_seeds(rows, {})
    kept = [{key: value for key, value in part.items() if key != "metrics"} for part in found.pop("per_seed")]
    assert found == rows[0]
    assert kept == [
        {key: value for key, value in row.items() if key not in ("name", "start", "measured")} for row in rows
    ]


@pytest.mark.parametrize("metric", ["that of a plugin", "ur"])
def test_a_metric_that_is_not_loaded_or_was_not_measured_has_no_numbers(metric):
    row = {"name": "a", "seed": 0, "measured": {"that of a plugin": {}}}
    assert headings_of(metric, row, {}) == []
    assert over_seeds([row], {})[0]["per_seed"][0]["metrics"] == {}


@pytest.mark.parametrize(
    ("metric", "heading", "section", "better", "bounds"),
    [
        ("ur", "UR %", "forgetting", "lower", (0.0, 100.0)),
        ("ur", "junk %", "utility", "lower", (0.0, 100.0)),
        ("ur", "copy %", "privacy", "lower", (0.0, 100.0)),
        ("ur", "class distance %", "forgetting", "band", (0.0, 100.0)),
        ("nll", "NLL forget", "forgetting", "band", None),
        ("nll", "NLL retain", "utility", "lower", None),
        ("vlb", "VLB retain", "utility", "lower", None),
        ("inpainting", "ACC D_f %", "forgetting", "lower", (0.0, 100.0)),
        ("inpainting", "ACC D_g %", "utility", "higher", (0.0, 100.0)),
        ("membership", "MIA AUC forget", "privacy", "band", (0.0, 1.0)),
        ("that of a plugin", "its number", "forgetting", "band", None),
    ],
)
def test_what_a_number_is(metric, heading, section, better, bounds):
    found = number_of(metric, heading)
    assert (found.section, found.better, found.bounds) == (section, better, bounds)


def test_what_one_of_the_seeds_was_not_measured_by_is_left_out():
    """Its samples were made with other options, say: there is no mean over seeds, and no reason to stop."""
    report = of_seeds(a_model(1, 1, 0), a_model(1, 1, 1, measured={}), base=a_model(50, 2, 0))
    row = report["rows"][0]
    assert (row["measured"], row["metrics"]) == ({}, {})
    assert [check.holds for check in LADDER.first(report, row)] == [None, None]


SAMPLED = {"measured": {"ur": {}}, "unlearning_ratio": {"n": 1000, "value": 0}, "junk_rate": 0, "copy_rate": 0}
SAMPLED |= {"unlearning_ratio_closed_set": {"value": 0}}


def test_a_number_is_what_its_metric_says():
    entry = a_report([a_row("row", [[0.1]], **SAMPLED)], [])["rows"][0]["metrics"]["UR %"]
    assert (entry["text"], entry["better"]) == ("how often samples show the content", "lower")


def test_one_sample_beyond_a_band_is_inside():
    """The retrained models make 0 to 1 samples of 1000 junk, and the band ends one further sample on."""
    report = a_report([a_row("row", [[0.1]], **SAMPLED)], [[0.0], [0.1], [0.0], [0.0], [0.0]])
    end = report["rows"][0]["metrics"]["UR %"]["band"]["high"]
    assert end == pytest.approx(0.02 + 2.7764 * 0.0447 * 1.2**0.5 + 0.1, abs=1e-3)
    rows = [a_row(name, [[value]], **SAMPLED) for name, value in (("inside", end - 1e-6), ("above", end + 1e-6))]
    found = judged(report | {"rows": rows}, LADDER)["rows"]
    assert [row["metrics"]["UR %"]["place"] for row in found] == ["inside", "above"]


def test_a_number_that_a_retrained_model_lacks_is_not_judged():
    models = [[1.0, 2.0], [1.1, 2.1], [1.2, None], [1.0, 2.0], [1.1, 2.2]]
    (row,) = a_report([a_row("row", [[1.0, 99.0]])], models)["rows"]
    assert (row["judged"]["numbers"], row["metrics"]["junk %"]["place"]) == (1, None)


def test_a_row_that_diverged_at_a_seed_is_not_inside():
    report = a_report([a_row("row", [[1.0], [None], [1.1]])], [[1.0], [1.1], [1.2], [0.9], [1.0]])
    entry = report["rows"][0]["metrics"]["UR %"]
    assert [entry[key] for key in ("value", "low", "high")] == [None] * 3
    assert (entry["place"], entry["inside"]) == ("no value", False)
    assert all_inside(report) is False


def test_held_out_models_are_judged_by_the_others():
    models = [[1.0], [1.1], [0.9], [1.05], [60.0]]
    (row,) = a_report([a_row("row", [[1.0]])], models)["rows"]
    assert row["judged"]["held_out_outside"] == {"5": ["UR %"]}
    assert (row["judged"]["held_out_inside"], row["judged"]["false_alarms"]) == (4, pytest.approx(0.05))
    (few,) = a_report([a_row("row", [[1.0]])], models[:4])["rows"]
    assert few["judged"]["numbers"] == 0


PLAIN = a_row("unseen", [[5.0, 1, 1, 3.0], [7.0, 1, 1, 3.2], [6.0, 1, 1, 3.1]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[5.5, 1, 1, 3.1], [6.6, 1, 1, 3.1], [6.1, 1, 1, 3.1]], NO_EFFECT),
        ([[0.2, 1, 1, 3.1], [0.1, 1, 1, 3.1], [0.3, 1, 1, 3.1]], None),
        ([[5.5, 1, 1, 6.0], [6.6, 1, 1, 6.3], [6.1, 1, 1, 6.1]], None),
        ([[5.0, 9, 9, 3.0], [7.0, 9, 9, 3.2], [6.0, 9, 9, 3.1]], NO_EFFECT),
        ([[5.5, 1, 1, 3.1]], None),
        ([[5.5, 1, 1, 3.1], [6.6, 1, 1, 3.1], [6.1, 1, 1, None]], None),
    ],
)
def test_a_row_like_plain_fine_tuning_has_no_effect(values, expected):
    row = a_row("redirect", values)
    others = [a_row(start, values, start=start) for start in ("scratch", "random", "none")]
    effects = [row["effect"] for row in a_report([PLAIN, row, *others], [])["rows"]]
    assert effects == [None, expected, None, None, None]


def test_the_table_says_where_each_number_lies_and_what_the_band_is_worth():
    models = [[1.0, 2.0], [1.1, 2.1], [1.2, 2.2], [1.0, 2.0], [1.1, 2.2]]
    rows = [a_row("unseen", [[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]]), a_row("redirect", [[0.0, 9.0]] * 3)]
    title, headings, lines, notes = band_table(a_report(rows, models))
    assert title == "Over 3 seeds, beside 5 retrained models"
    assert headings == ["row", "seeds", "seconds", "UR %", "junk %", "verdict"]
    assert lines[0] == ["unseen", "3", "2", "1.1 ± 0.2 in", "2.1 ± 0.2 in", "2 of 2 inside"]
    assert lines[1] == ["redirect", "3", "2", "0.0 ± 0.0 below", "9.0 ± 0.0 above", "0 of 2 inside"]
    assert [line[0] for line in lines[2:]] == [
        "retrained models, mean",
        "band, for a mean of 3 seeds",
        "smallest shift noticed",
    ]
    assert (lines[3][3], lines[4][3]) == ("0.9 to 1.3", "0.3")
    assert any("5 of 5 have all inside" in note and "at most 5%" in note for note in notes)
    assert not any(NO_EFFECT in note for note in notes)


def test_few_retrained_models_give_numbers_without_verdicts():
    title, _, lines, notes = band_table(a_report([a_row("unseen", [[1.0]] * 3)], [[1.0], [1.1]]))
    assert title == "Over 3 seeds, beside 2 retrained models"
    assert lines == [["unseen", "3", "2", "1.0 ± 0.0", ""], ["retrained models, mean", "2", "2", "1.1", ""]]
    assert any(note.startswith("2 of at least 5 retrained models") for note in notes)


def test_one_seed_without_retrained_models_has_no_such_table():
    assert band_table(a_report([a_row("unseen", [[1.0]])], []) | {"seeds": [0]}) is None


def test_an_earlier_reports_numbers_are_judged_in_the_same_way():
    """Its seeds had them under ``numbers``, and its request stood at the top."""
    models = [[1.0, 2.0], [1.1, 2.1], [1.2, 2.2], [1.0, 2.0], [1.1, 2.2]]
    rows = [a_row("unseen", [[1.0, 2.0], [1.1, 2.1]])]
    retrains = [a_row(f"retrained-{k}", [model]) for k, model in enumerate(models, 1)]
    old = {"seed": 0, "seeds": [0, 1], "rows": rows, "retrains": retrains, "request": {"target": "observed"}}
    for row in (*rows, *retrains):
        row["per_seed"] = [
            {"numbers" if key == "metrics" else key: value for key, value in part.items()} for part in row["per_seed"]
        ]
    (now,) = judged(old, LADDER)["rows"]
    (made,) = a_report([a_row("unseen", [[1.0, 2.0], [1.1, 2.1]])], models)["rows"]
    assert now["metrics"] == made["metrics"]


def test_class_distance_is_total_variation_without_junk():
    real = {"0": 5, "1": 5, "none": 9}
    assert histogram_distance({"0": 2, "1": 2, "none": 7}, real) == 0
    assert histogram_distance({"0": 4, "1": 0, "none": 0}, real) == 50
    assert histogram_distance({"0": 0, "1": 0, "none": 4}, real) is None


def test_what_preparation_found_is_told_at_all_seeds():
    shares = [{"a.weight": 0.5, "b.weight": 0.2}, {"a.weight": 0.1, "b.weight": 0.9}]
    found = [{"bandwidth": 0.27, "kept_share": 0.5, "kept_shares": shares[0]}, {"bandwidth": 0.25, "kept_share": 0.5}]
    found[1]["kept_shares"] = shares[1]
    rows = [{"name": "row", "measured": {}, "seed": seed, "found": one} for seed, one in enumerate(found)]
    (row,) = over_seeds(rows, {})
    text = "bandwidth 0.25 to 0.27, 50.0% of the weights may change, from 10.0% of a.weight to 90.0% of b.weight"
    assert found_text(row) == text
    (alone,) = over_seeds(rows[:1], {})
    assert found_text(alone).startswith("bandwidth 0.27, 50.0%")


def test_a_report_of_an_earlier_version_tells_what_was_found_at_its_first_seed():
    assert found_text({"found": {"bandwidth": 0.27}, "per_seed": [{"seed": 0}, {"seed": 1}]}) == (
        "bandwidth 0.27 (first seed)"
    )
