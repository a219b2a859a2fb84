"""The card of one row of the small domain ``things``: what stands in each of its parts, and when."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from msgm.cards.claims import Check
from msgm.cards.words import WRONG_REFERENCE
from msgm.study.card import Words, about, beside_the_band, inside_text, make_card, report_facts, value_text, write_card
from msgm.study.judging import ABOVE, BELOW, INSIDE, NO_EFFECT, NO_VALUE, TOO_FEW
from tests.study.things import LADDER, NAMES, report_of

BARE = "This is a statement about these tests at this number of models, not about the weights."
TOLD = "1 of 2 attacks tell the original from retrained models: rate."
TUNED = "whether settings were tuned against the retrained models"


@dataclass
class Metric:
    """What it shows, in words.

    And more.
    """

    name: str
    numbers: tuple[str, ...]
    live: bool = False


class Undescribed:
    __doc__ = None
    name, numbers = "undescribed", ()


METRICS = {"behaviour": Metric("behaviour", ("seen", "use")), "attack": Metric("attack", ("rate_auc",))}
WORDS = Words(
    ladder=LADDER,
    metrics=METRICS,
    things="things",
    body="the weights",
    where="Nothing was purged.",
    supplying="as in a prompt",
    targets={"observed": "thing", "latent": "trait", "concept": "theme"},
    alike=("seen", "use"),
    tested=lambda report, row: {"C1": "what it shows", "C2": "the attacks"},
)
EVER = [
    "Anything about other copies of the model, or models derived from it.",
    "That the information cannot be derived again from the data that is retained.",
    "That users cannot bring the content back by supplying it, as in a prompt.",
    "That attacks stronger than those listed would find nothing.",
    "That this is sufficient in law.",
]
REMOVAL = "Removal was asked for: that the information has left the weights is shown by no test here."


def whole(report, goal="removal"):
    """Give a report of ``things`` what a card shows of it besides."""
    for row in report["rows"]:
        row |= {"settings": {"alpha": 2}, "preparation_seconds": 3.0, "storage_bytes": 0}
        for name, entry in row["metrics"].items():
            entry |= {"text": f"how much {name}", "bounds": (0.0, 1.0)}
    for asked in report["requests"].values():
        asked |= {"goal": goal, "text": "the first three"}
    data = {"name": "toy", "digest": "d1"}
    return report | {"title": "a title", "seeds": [0, 1, 2], "data": data, "protocol": {"band": "a rule", "seen": "?"}}


def a_report(goal="removal", seed=1, **facts):
    return whole(report_of(np.random.default_rng(seed), **facts), goal)


def made(report, words=WORDS, number=1):
    return make_card(report, report["rows"][number], words)


def changed(report, name, **facts):
    """Change what is known of one number of the edited row."""
    report["rows"][1]["metrics"][name] |= facts
    return report


def lines_of(card):
    return {line["number"]: line for lines in card["numbers"].values() for line in lines}


# Its statement


@pytest.mark.parametrize(
    ("numbers", "level", "statement"),
    [
        ({"seen": 0.9}, "C0", "Nothing is shown."),
        ({"rate_auc": 0.9}, "C1", f"by what they show: 5 retrained models and 3 seeds. {BARE}"),
        ({"use": 0.9}, "C2", f"by the attacks: 5 retrained models and 3 seeds. {BARE} {TOLD}"),
        ({}, "C3", f"by any judged number: 5 retrained models and 3 seeds. {BARE} {TOLD}"),
    ],
)
def test_the_statement_of_a_level_says_what_its_tests_were_and_no_more(numbers, level, statement):
    words = replace(WORDS, tested=lambda report, row: {"C1": "what they show", "C2": "the attacks"})
    card = made(a_report(**numbers), words)
    begin = "" if level == "C0" else "Not told from models retrained without the things "
    assert (card["level"], card["statement"]) == (level, begin + statement)
    names = {"C0": "nothing shown", "C1": "behavioural", "C2": "attack-bounded"}
    assert card["level_name"] == names.get(level, "oracle-indistinguishable within a band")


def test_one_seed_is_no_seeds_and_outputs_alone_are_named():
    report = a_report()
    row = report["rows"][1]
    row["per_seed"] = row["per_seed"][:1]
    statement = made(report | {"outputs_only": True})["statement"]
    assert "5 retrained models and 1 seed, from outputs alone. This is" in statement


@pytest.mark.parametrize(("level", "statement"), [("C4", "Exact, of edit."), ("C5", "Bounded, of edit.")])
def test_a_row_that_reached_a_level_by_its_records_has_the_domains_sentence(level, statement):
    holds = {"C4": {"exactness": lambda *_: [Check("a record", True, "")], "exact": lambda row: True}}
    holds["C5"] = {"bound": lambda *_: [Check("a proof", True, "")], "bounded": lambda row: True}
    words = replace(
        WORDS,
        ladder=replace(LADDER, **holds[level]),
        exact=lambda row: f"Exact, of {row['method']}.",
        bound=lambda row: f"Bounded, of {row['method']}.",
    )
    card = made(a_report(), words)
    assert (card["level"], card["statement"]) == (level, statement)
    assert REMOVAL not in card["cannot_say"]  # a record does show it


def test_a_domains_own_sentence_stands_instead_and_is_given_the_level():
    words = replace(WORDS, statement=lambda report, row, reached: f"{row['method']} reached {reached}.")
    assert made(a_report(), words)["statement"] == f"edit reached C3. {TOLD}"
    assert made(a_report(rate_auc=0.9), words)["statement"] == "edit reached C1."
    assert made(a_report(seen=0.9), words)["statement"] == "Nothing is shown."


def test_all_attacks_that_tell_the_original_are_listed():
    both = replace(LADDER, attacks=lambda report, row: {"rate": ["rate_auc"], "look": ["seen", "rate_auc"]})
    statement = made(a_report(), replace(WORDS, ladder=both))["statement"]
    assert statement.endswith("2 of 2 attacks tell the original from retrained models: rate, look.")


def test_overshooting_numbers_are_told_with_their_values_and_the_first_three_alone():
    report = a_report(seen=0.1)
    assert made(report)["level"] == "C2"
    begin = "It is distinguishable from retrained models by overshooting, on the other side: "
    told = LADDER.outside("seen", report["rows"][1]["metrics"]["seen"])
    assert made(report)["statement"].endswith(f"{TOLD} {begin}{told}.")
    assert told.startswith("seen 0.1; retrained models ")
    row = report["rows"][1]
    row["metrics"] |= {f"{k}_auc": row["metrics"]["seen"] for k in range(4)}
    statement = made(report)["statement"]
    assert [f"{name} 0.1" in statement for name in ("seen", "0_auc", "1_auc", "2_auc")] == [True, True, True, False]
    assert statement.endswith("; and 2 more.")
    del row["metrics"]["2_auc"], row["metrics"]["3_auc"]
    assert "more." not in made(report)["statement"]


# What it knows of the request, the method and the reference


def test_the_names_title_request_and_claims_are_those_of_the_row():
    report = a_report()
    card = made(report)
    assert (card["name"], card["title"]) == ("edit, few", "a title")
    assert made(report, replace(WORDS, name=("request",)))["name"] == "few"
    assert card["request"] == {
        "goal": "removal",
        "target_kind": "observed",
        "target_definition": "the first three",
    }
    sized = replace(WORDS, request=lambda asked: {"size": asked["n"]})
    assert made(report, sized)["request"]["size"] == 30
    assert [claim["level"] for claim in card["claims"]] == ["C1", "C2", "C3", "C4", "C5"]
    assert card["claims"][0]["rule"] == LADDER.rules["C1"][1]
    assert [control["verdict"] for control in card["controls"]] == ["PASS", "PASS"]
    assert card["history"] == {"lines": [], "notes": []}
    assert card["protocol"] == {"band": "a rule"}  # what it says of single numbers stands beside these
    assert card["figures"] == {}
    figures = {"samples": {"caption": "Samples.", "look": "pixels"}}
    assert made(report, replace(WORDS, figures=figures))["figures"] == figures


def test_what_a_report_says_of_itself_and_silence_where_it_does_not():
    report = a_report()
    environment = {"versions": {"msgm": "1"}, "platform": "a system"}
    known = report_facts(report | {"environment": environment, "date": "today"})
    assert known == {
        "versions": {"msgm": "1"},
        "date": "today",
        "data": "toy",
        "data_digest": "d1",
        "seeds": "0, 1, 2",
        "platform": "a system",
    }
    unknown = report_facts(report | {"seeds": []})
    assert [unknown[key] for key in ("versions", "date", "seeds", "platform")] == [None] * 4
    assert made(report)["header"] == {"tool": "msgm"} | report_facts(report) | {"energy": None}
    assert made(report, replace(WORDS, header=lambda report: {"x": 1}))["header"]["x"] == 1


def test_a_methods_costs_stand_beside_what_the_domain_says_of_it():
    report = a_report()
    assert made(report)["method"] == {
        "name": "edit",
        "settings": {"alpha": 2},
        "seconds": 1.0,
        "seconds_over_retraining": 0.25,
        "preparation_seconds": 3.0,
        "storage_bytes": 0,
        "tuning_oracle_access": None,
    }
    solve = {"converged": False, "residual": 0.5, "steps": 9, "tolerance": 1e-6}
    report["rows"][1]["solve"] = solve
    card = made(report, replace(WORDS, method=lambda row: {"family": "edits"}))
    assert card["method"]["family"] == "edits"
    assert card["method"]["solver"].startswith("not converged: relative residual 5.0e-01 after 9 steps")
    assert any("the solver is not converged" in line for line in card["cannot_say"])


def test_what_still_holds_the_data_is_listed_with_what_the_method_keeps():
    report = a_report()
    card = made(report)
    assert card["artifacts"] == {"purged": False, "found": None, "note": "Nothing was purged."}
    report["rows"][1]["storage_bytes"] = 3 * 2**19
    of_others, of_this = ({"path": "a", "part": "retain", "request": name} for name in ("many", "few"))
    card = made(report | {"artifacts": [of_others, of_this]})
    assert card["artifacts"]["found"] == [of_others]  # models without this request hold none of its things
    assert card["artifacts"]["note"] == (
        "Nothing was purged. The method keeps 1.50 MB between requests, made from the data."
    )


def test_the_reference_says_how_many_models_there_are_and_what_the_controls_found():
    report = a_report()
    known = made(report)["reference"]
    inside = report["rows"][1]["judged"]["held_out_inside"]
    assert known == {
        "oracle_kind": "retrain",
        "n_oracles": 5,
        "numbers_judged_together": 4,
        "joint_false_alarm_rate": "at most 5%, 4.9% if numbers were independent",
        "oracle_passes_own_audit": True,
        "original_flagged": True,
        "power_of_c3": f"of the retrained models themselves, held out, {inside} of 5 have all numbers inside",
        "note": None,
    }
    none = made(a_report(retrains=0))["reference"]
    assert [none[key] for key in ("oracle_kind", "n_oracles", "numbers_judged_together")] == ["none", 0, 0]
    assert [none[key] for key in ("joint_false_alarm_rate", "oracle_passes_own_audit", "original_flagged")] == [
        None
    ] * 3
    counted = made(a_report(retrains=0), replace(WORDS, oracles=lambda report, row: 2))["reference"]
    assert (counted["oracle_kind"], counted["n_oracles"]) == ("retrain", 2)


def test_a_control_that_failed_is_not_one_that_nobody_made():
    report = a_report()
    report["rows"][0] = report["rows"][1] | {"method": "do-nothing"}  # an original that knows nothing
    found = made(report)["reference"]
    assert (found["original_flagged"], found["oracle_passes_own_audit"]) == (False, True)
    report["rows"].pop(0)
    assert made(report, number=0)["reference"]["original_flagged"] is None


# Its numbers


def test_a_number_stands_in_its_section_beside_the_original_and_the_band():
    report = a_report(use=0.9)
    card = made(report)
    assert card["columns"] == {
        "this": "this model",
        "original": "original",
        "band": "band of retrained models",
        "inside": "inside the band",
        "noticed": "smallest shift noticed",
    }
    found = {section: [line["number"] for line in lines] for section, lines in card["numbers"].items()}
    assert found == {"utility": ["use"], "forgetting": ["seen"], "privacy": ["rate_auc", "tail"], "residue": []}
    original, row = ({name: each["metrics"][name] for name in NAMES} for each in report["rows"])
    use = lines_of(card)["use"]
    assert use == {
        "test": "behaviour",
        "number": "use",
        "better": "",
        "note": "how much use",
        "this": "0.9 [0.9, 0.9]",
        "original": value_text(original["use"]),
        **beside_the_band(row["use"]),
    }
    assert (use["original"] is None, use["inside"], use["noticed"]) == (
        False,
        "no: above",
        f"{row['use']['noticed']:.2g}",
    )
    assert lines_of(card)["tail"]["test"] == "tail"  # of no metric that is known here
    assert lines_of(made(changed(report, "use", better="higher")))["use"]["better"] == "higher"


def test_without_an_original_its_column_is_empty():
    report = a_report()
    report["rows"].pop(0)
    assert {line["original"] for line in lines_of(made(report, number=0)).values()} == {None}


def test_a_number_that_is_not_stated_keeps_its_line_and_says_why():
    words = replace(WORDS, unstated=lambda row, name: "of no use here" if name == "tail" else None)
    lines = lines_of(made(a_report(), words))
    assert lines["tail"]["note"] == "how much tail; of no use here"
    assert [lines["tail"][key] for key in ("this", "original", "band", "inside", "noticed")] == [None] * 5
    assert lines["rate_auc"]["this"] is not None


def test_a_domain_may_have_a_table_of_its_own():
    table = {"own": "heading"}, {"utility": [{"number": "x"}]}
    card = made(a_report(), replace(WORDS, table=lambda report, row: table))
    assert (card["columns"], card["numbers"]) == table


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (None, None),
        ({"value": None}, None),
        ({"value": 0.98765, "low": None}, "0.988"),
        ({"value": 0.9, "low": 0.7, "high": 1.1}, "0.9 [0.7, 1.1]"),
        ({"value": 0.9, "low": 0.7, "high": 1.1, "bounds": (0.0, 1.0)}, "0.9 [0.7, 1]"),
        ({"value": -1e-9, "low": -0.2, "high": 0.2, "bounds": (0.0, 1.0)}, "-1e-09 [0, 0.2]"),
    ],
)
def test_a_value_is_shown_with_its_interval_within_its_bounds(entry, text):
    assert value_text(entry) == text


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (INSIDE, "yes"),
        (ABOVE, "no: above"),
        (BELOW, "no: below"),
        (NO_VALUE, "no: no value"),
        (TOO_FEW, TOO_FEW),
        (None, "not judged"),
    ],
)
def test_whether_a_number_is_inside_is_said_in_words(place, text):
    entry = {"band": {"mean": 0.9, "low": 0.7, "high": 1.1}, "bounds": (0, 1), "place": place, "noticed": 0.1234}
    assert beside_the_band(entry) == {"band": "0.9 [0.7, 1]", "inside": text, "noticed": "0.12"}
    assert inside_text(entry | {"band": None}) is None
    nothing = beside_the_band(entry | {"band": None, "noticed": None})
    assert nothing == {"band": None, "inside": None, "noticed": None}


# What was not tested, and what cannot be said


def test_metrics_without_numbers_controls_and_a_band_are_listed_as_not_tested():
    report = a_report()
    assert made(report)["not_tested"] == [TUNED]
    absent = replace(WORDS, metrics=METRICS | {"more": Metric("more", ("none",), live=True)})
    assert made(report, absent)["not_tested"] == ["more: What it shows, in words (needs the models)", TUNED]
    own = replace(WORDS, not_tested=lambda report, row: [f"something of {row['method']}"])
    assert made(report, own)["not_tested"] == ["something of edit", TUNED]
    assert made(changed(report, "rate_auc", value=None))["not_tested"][0].startswith("attack: ")
    assert len(made(changed(report, "seen", value=None))["not_tested"]) == 2  # behaviour still has its other number
    few = a_report(retrains=4)
    positive, negative = LADDER.controls(few, few["rows"][1])
    assert made(few)["not_tested"] == [
        f"{positive.name}: {positive.evidence}",
        f"{negative.name}: {negative.evidence}",
        "band of retrained models: 4 of at least 5",
        TUNED,
    ]


def test_a_metric_is_described_by_the_first_line_of_its_text_else_by_its_name():
    assert about(METRICS["attack"]) == "What it shows, in words"
    assert about(Undescribed()) == "undescribed"


def test_what_no_card_can_say_stands_on_every_card():
    assert made(a_report())["cannot_say"] == [*EVER, REMOVAL]
    hidden = "Suppression was asked for: what outputs do not show, the weights may still hold."
    assert made(a_report("suppression"))["cannot_say"] == [*EVER, hidden]
    own = replace(WORDS, cannot_say=lambda report, row: [f"Whether {row['method']} lasts."])
    assert made(a_report(), own)["cannot_say"] == [*EVER, REMOVAL, "Whether edit lasts."]
    none = "Anything about closeness to a retrained model: none is here."
    assert made(a_report(retrains=0))["cannot_say"] == [*EVER, REMOVAL, none]


def test_what_is_unknown_of_the_history_is_said_twice():
    report = a_report()
    report["rows"][1]["history"] = {"requests": [], "earlier": [], "unknown": "lost", "anew": []}
    card, note = made(report), "Requests before these are not known: lost."
    assert card["history"]["notes"] == [note]
    assert note in card["cannot_say"]


def test_without_an_effect_nothing_is_said_to_be_the_methods_doing():
    report = a_report()
    report["rows"][1]["effect"] = NO_EFFECT
    assert made(report)["cannot_say"][-1] == (
        "That the method did more than fine-tuning on what is retained: no effect at this budget, by seen and the "
        "spread of seeds."
    )


@pytest.mark.parametrize(("seen", "use", "like"), [(0.0009, 0, True), (0.0011, 0, False), (0, 0.0011, False)])
def test_a_row_with_the_originals_numbers_is_not_said_to_have_done_anything(seen, use, like):
    report, line = a_report(), "That the method did anything: do-nothing has the same seen and use."
    original = report["rows"][0]["metrics"]
    for name, by in (("seen", seen), ("use", use)):
        changed(report, name, value=original[name]["value"] - by)
    assert (made(report)["cannot_say"][-1] == line) is like
    assert line not in made(report, number=0)["cannot_say"]  # the original is like itself


def test_numbers_that_are_missing_are_not_the_same():
    report, line = a_report(), "That the method did anything: do-nothing has the same seen and use."
    original = report["rows"][0]["metrics"]
    for name in ("seen", "use"):
        changed(report, name, value=original[name]["value"])
    assert made(report)["cannot_say"][-1] == line
    value, original["seen"]["value"] = original["seen"]["value"], None
    assert line not in made(report)["cannot_say"]
    changed(report, "seen", value=None)
    original["seen"]["value"] = value
    assert line not in made(report)["cannot_say"]
    none = made(report, replace(WORDS, alike=("absent",)))["cannot_say"]
    assert not any("did anything" in line for line in none)
    del original["seen"]
    assert made(report)["cannot_say"][-1] == line  # by the number that both have


@pytest.mark.parametrize(("target", "thing"), [("concept", "theme"), ("latent", "trait")])
def test_where_retrained_models_are_the_wrong_reference_every_place_of_them_says_so(target, thing):
    card = made(a_report(target=target))
    assert card["reference"]["note"] == WRONG_REFERENCE
    assert card["columns"]["band"] == f"band of retrained models ({WRONG_REFERENCE})"
    assert card["columns"]["inside"] == f"inside the band ({WRONG_REFERENCE})"
    noted = [name for name, line in lines_of(card).items() if line["note"].endswith(f"; {WRONG_REFERENCE}")]
    assert noted == ["rate_auc", "tail"]  # membership of the things is no sign of a concept
    assert (
        f"How near this comes to having forgotten a {thing}: models retrained without the selected things are the "
        f"{WRONG_REFERENCE}, as is membership of these."
    ) in card["cannot_say"]
    assert WRONG_REFERENCE not in json.dumps(made(a_report()))


def test_a_card_is_written_in_three_forms(tmp_path):
    report = a_report()
    card = write_card(tmp_path, report, report["rows"][1], WORDS)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    for name in ("card.md", "card.html"):
        assert "Not told from models retrained without the things by any judged number" in (tmp_path / name).read_text()
