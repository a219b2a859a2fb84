"""Texts of users in Markdown and in figures: they read as they were written and change nothing around them."""

import io
import re

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from msgm import markdown as md
from msgm.pictures import figure_png
from tests.helpers import NASTY, blocks

pytestmark = pytest.mark.usefixtures("rendered")

SHOWN = [
    ("plain text, 3.5% [0.1, 0.2] of forget_accuracy", "plain text, 3.5% [0.1, 0.2] of forget_accuracy"),
    ("a\nb\r\nc\x1b\u2028d", "a b c d"),
    ("a|b", r"a\|b"),
    ("`x` *y* __z__ a*b", r"\`x\` \*y\* \_\_z\_\_ a\*b"),
    ("<img src=x>", "&lt;img src=x>"),
    ("a # b", r"a \# b"),
    ("C# a#1", "C# a#1"),
    ("&lt; &#35; R&D", "&amp;lt; &amp;#35; R&D"),
    (r"$\frac$ \* a\b", r"\$\frac\$ \\\* a\b"),
    ("[x](y) [x]: y", r"[x\](y) [x\]: y"),
    ("end\\", r"end\\"),
    ("a ~~b~~", r"a \~\~b\~\~"),
    ("\u202egnp", "gnp"),
    ("\ud800", "?"),
]


@pytest.mark.parametrize(("written", "expected"), SHOWN)
def test_what_has_a_meaning_in_markdown_is_escaped(written, expected):
    assert md.cell(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("-0.5", "-0.5"),
        ("---", r"\---"),
        ("===", r"\==="),
        ("+ a", r"\+ a"),
        ("> a", "&gt; a"),
        ("1. a", r"1\. a"),
        ("12) a", r"12\) a"),
        ("1.5 a", "1.5 a"),
        ("[x]: y", r"\[x\]: y"),
    ],
)
def test_no_block_begins_with_a_text(written, expected):
    assert md.text(written) == expected


def test_a_link_keeps_its_label_and_its_path():
    assert md.link("a](http://x) [b", "cards/a b/c.md") == r"[a\](http://x) \[b](cards/a%20b/c.md)"


def test_a_document_has_single_blank_lines():
    assert md.document([*md.heading("A", 1), *md.section("B", ["x", "y"]), "", ""]) == "# A\n\n## B\n\n- x\n- y\n"


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_leaves_the_blocks_as_they_are(one, other):
    def made(a, b):
        table = md.table(["h", a], [[b, "1"]])
        return md.document([*md.heading(a, 1), *md.section(b, [a, b]), *md.heading("T"), *table, "", md.text(a)])

    if not md.line(one) or not md.line(other):
        return
    assert blocks(made(one, other)) == blocks(made("a", "b"))


@pytest.mark.parametrize("name", [r"$\frac$", "$a", "a$b$c", r"\$x$", "_hidden", "two\nlines", NASTY])
def test_figures_draw_names_as_they_are(name):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label=md.label(name))
    axes.set(title=md.label(name), xticks=[0], xticklabels=[md.label(name)])
    legend = axes.legend()
    assert matplotlib.image.imread(io.BytesIO(figure_png(figure))).ndim == 3
    (text,) = legend.get_texts()
    shown, formula = text._preprocess_math(text.get_text())
    assert (shown.strip(), formula) == (re.sub(r"\s+", " ", name).strip(), False)
