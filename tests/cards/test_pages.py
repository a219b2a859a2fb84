"""The page of a report, made of plain data."""

import re

from msgm.cards.chart import SHOWN, Chart, Point
from msgm.cards.claims import FAIL, INCONCLUSIVE, PASS
from msgm.cards.pages import Column, Page, Picture, Table, Verdict, alike, report_html, state_of, table_of, verdict_of
from msgm.tables import Outside
from msgm.tables import Table as Plain


def verdict(name, **changed):
    return Verdict(**{"name": name, "level": "C0, nothing shown", "state": FAIL, "sentence": "", "why": "it leaks"} | changed)  # fmt: skip # noqa: E501


def page(**changed):
    table = Table(
        title="over <all>",
        columns=[Column(heading="row", words=True), Column(heading="UR %", better="lower")],
        rows=[["a", Outside("3.0*")], ["b", "1.0"]],
        notes=["a note"],
        hrefs={0: "a/card.html"},
    )
    values = {
        "title": "x <b>",
        "kind": "toys",
        "verdicts": {"": [verdict("a", href="a/card.html"), verdict("b", level="C1, behavioural", state=PASS, why="")]},
        "choosing": "Look left.",
        "tables": [table],
        "facts": {"Protocol": {"seed": "1"}},
        "methods": {"m": ("no settings", "formula: f")},
    }
    return Page(**values | changed)


def card(level="C0", claims=(("C1", FAIL, True),)):
    found = [
        {"level": name, "verdict": made, "claimed": claimed, "reasons": [] if made == PASS else [f"why {name}", "more"]}
        for name, made, claimed in claims
    ]
    return {"level": level, "level_name": "a name", "statement": "Said.", "claims": found}


def test_a_page_has_its_parts_in_their_order():
    chart = Chart(title="c", x="x", y="y", points=[Point(name="a", x=1, y=2, kind=SHOWN)])
    html = report_html(page(charts=[chart], figures=[Picture(png=b"p", caption="f")], samples=[Picture(png=b"p", caption="s")]))  # fmt: skip # noqa: E501
    found = re.findall(r'<h2 id="(\w+)">', html)
    assert found == ["verdicts", "choose", "numbers", "figures", "samples", "measured", "methods"]
    assert re.findall(r'<li><a href="#(\w+)">', html) == found
    assert "choose" not in re.findall(r'<h2 id="(\w+)">', report_html(page()))


def test_texts_are_escaped_and_no_script_of_theirs_would_run():
    html = report_html(page(title="<script>alert(1)</script>"))
    assert html.count("<script") == 1
    assert "script-src 'sha256-" in html
    assert 'aria-label="over &lt;all&gt;"' in html


def test_a_number_outside_is_marked_by_a_sign_as_well_as_by_colour():
    html = report_html(page())
    assert '<td class="outside">3.0*</td><' in html.replace("\n", "")
    assert "<td>1.0</td>" in html


def test_nothing_is_green_where_nothing_was_shown():
    main = report_html(page(verdicts={"": [verdict("a"), verdict("b", state=INCONCLUSIVE, why="too few")]}))
    assert 'class="PASS"' not in main
    assert re.findall(r'aria-hidden="true">(.)</span> C0', main) == ["✗", "?"]
    assert 'class="PASS"' in report_html(page())


def test_rows_of_which_the_same_is_said_share_a_line_but_keep_their_names():
    same = [verdict(name, href=f"{name}.html") for name in "abc"]
    assert [[v.name for v in group] for group in alike([same[0], verdict("d", why="other"), *same[1:]])] == [["a", "b", "c"], ["d"]]  # fmt: skip # noqa: E501
    html = report_html(page(verdicts={"": same}))
    assert html.count('<li class="FAIL">') == 1
    assert all(f'<a href="{name}.html">{name}</a>' in html for name in "abc")


def test_many_verdicts_are_folded_under_their_headings():
    many = {"few": [verdict(str(k), why=str(k)) for k in range(41)]}
    assert "<details>\n<summary>Why, for few</summary>" in report_html(page(verdicts=many))
    assert "<details open>\n<summary>Why</summary>" in report_html(page())


def test_a_verdict_says_why_no_more_was_shown():
    failed = verdict_of(card(), "a", "rows/a b/card")
    assert (failed.level, failed.state, failed.sentence) == ("C0, a name", FAIL, "")
    assert (failed.why, failed.href) == ("C1, FAIL: why C1", "rows/a%20b/card.html")
    shown = verdict_of(card("C1", [("C1", PASS, True), ("C4", FAIL, False), ("C2", INCONCLUSIVE, True)]), "a", "c")
    assert (shown.state, shown.sentence, shown.why) == (PASS, "Said.", "C2, INCONCLUSIVE: why C2")


def test_a_claim_that_nobody_makes_has_not_failed():
    assert state_of(card(claims=[("C5", FAIL, False)])) == INCONCLUSIVE
    assert state_of(card(claims=[("C1", INCONCLUSIVE, True)])) == INCONCLUSIVE


def test_a_table_for_the_terminal_becomes_one_of_a_page():
    made = table_of(Plain("t", ["model", "method", "n"], [["m", "x", "1"]], ["note"]), words=2, hrefs={0: "x.html"})
    assert [column.words for column in made.columns] == [True, True, False]
    html = report_html(page(tables=[made]))
    assert '<td class="words">m</td><th scope="row" class="words"><a href="x.html">x</a></th><td>1</td>' in html


def test_bars_name_what_was_to_be_forgotten_without_colour():
    bars = [("three", 1, True), ("four", 4, False)]
    html = report_html(page(samples=[Picture(png=b"p", caption="s", bars=bars, note="n")]))
    assert '<li class="forgotten">three* <span style="width: 25.0%"></span> <b>1</b></li>' in html
    assert '<li>four <span style="width: 100.0%"></span> <b>4</b></li>' in html
