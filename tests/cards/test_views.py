import re

from msgm.cards.claims import Check, claim_tree, decide
from msgm.cards.views import card_html, card_markdown
from msgm.cards.words import WRONG_REFERENCE
from tests.helpers import NASTY, blocks


def make_card(**changed) -> dict:
    """A card of some other kind of model, with two columns of its own."""
    failed = decide("C5", [Check("a bound", False, "none")], [], claimed=False)
    line = {"test": "rank", "number": "hit rate", "mine": "0.1", "theirs": None, "better": "lower", "note": None}
    return {
        "title": "lists",
        "name": "swap <b>",
        "level": "C0",
        "level_name": "nothing shown",
        "statement": "Nothing is shown.",
        "request": {"goal": "removal", "near_duplicates_searched": None},
        "method": {"formula": None},
        "reference": {"note": None},
        "header": {"seeds": {"model": 3}},
        "claims": [claim_tree(failed, {"C5": ("proven bound", "A bound.")})],
        "controls": [],
        "columns": {"mine": "this model", "theirs": f"popular items ({WRONG_REFERENCE})"},
        "numbers": {"utility": [line], "privacy": []},
        "figures": {"plot": {"caption": "A plot. More of it.", "look": "plot"}},
        "protocol": {"lists": "of 10"},
        "not_tested": ["nothing else"],
        "cannot_say": ["much"],
        "artifacts": {"found": None, "note": "Looked nowhere."},
    } | changed


def test_columns_are_the_cards_own():
    text = card_markdown(make_card(), {})
    assert f"| test | number | this model | popular items ({WRONG_REFERENCE}) | note |" in text
    assert "| rank | hit rate | 0.1 | NOT TESTED | lower is better |" in text
    assert "## Privacy\n\nNOT TESTED" in text
    page = card_html(make_card(), {})
    assert f'class="value grey">popular items ({WRONG_REFERENCE})</th>' in page
    assert '<td class="value untested">NOT TESTED</td>' in page
    assert '<td class="word">hit rate</td>' in page


def test_nothing_shown_is_said_once():
    for text in (card_markdown(make_card(), {}), card_html(make_card(), {})):
        assert len(re.findall("nothing (is )?shown", text, re.IGNORECASE)) == 1
    higher = make_card(level="C1", level_name="behavioural", statement="Alike.")
    assert "**C1, behavioural.** Alike." in card_markdown(higher, {})


def test_a_claim_that_nobody_makes_is_not_claimed_rather_than_failed():
    text, page = card_markdown(make_card(), {}), card_html(make_card(), {})
    assert "| C5 proven bound | not claimed | A bound. |" in text
    assert 'class="verdict unclaimed">not claimed<' in page
    assert "FAIL" not in text + re.sub("<style>.*</style>", "", page, flags=re.DOTALL)
    made = decide("C5", [Check("a bound", False, "none")], [])
    card = make_card(claims=[claim_tree(made, {"C5": ("proven bound", "A bound.")})])
    assert "| C5 proven bound | FAIL |" in card_markdown(card, {})


def test_null_facts_are_named_by_what_they_lack():
    text = card_markdown(make_card(), {})
    for line in ("near duplicates searched: NOT TESTED", "formula: NOT RECORDED", "seeds: model 3", "NOT RECORDED"):
        assert f"- {line}\n" in text
    assert "- note" not in text


def test_figures_are_shown_or_named():
    assert "- figure: A plot\n" in card_markdown(make_card(), {})
    shown = card_markdown(make_card(), {"plot": "figures/plot.png"})
    assert "![A plot. More of it.](figures/plot.png)" in shown
    assert "- figure" not in shown
    assert '<img class="plot" src="data:image/png;base64,' in card_html(make_card(), {"plot": b"x"})
    assert "<h2>Figures</h2>" not in card_html(make_card(), {})


def test_pages_are_escaped():
    assert "swap &lt;b&gt;" in card_html(make_card(), {})


def test_texts_of_users_change_nothing_around_them():
    def made(text):
        claim = claim_tree(decide("C5", [Check(text, False, text)], [], claimed=True), {"C5": (text, text)})
        line = {"test": text, "number": text, "mine": text, "theirs": None, "better": "lower", "note": text}
        return make_card(
            title=text,
            name=text,
            statement=text,
            request={"text": text, text: "x"},
            claims=[claim],
            controls=[{"name": text, "expected": text, "verdict": "PASS", "evidence": text}],
            columns={"mine": text, "theirs": text},
            numbers={"utility": [line]},
            figures={"plot": {"caption": text, "look": "plot"}},
            protocol={text: text},
            not_tested=[text],
            cannot_say=[text],
            artifacts={"found": [{"path": text, "megabytes": 1.0, "what": text}], "note": None},
        )

    links = {"plot": "figures/plot.png"}
    assert blocks(card_markdown(made(NASTY), links)) == blocks(card_markdown(made("x"), links))
