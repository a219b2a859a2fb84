"""Pages as a browser shows them: narrow and wide, light, dark and on paper, by keyboard, with and without JavaScript.

They need Debian's chromium and Playwright's Python package, which downloads no browser for this.
"""

import shutil
from pathlib import Path

import pytest
import torch

from msgm.cards.chart import RETRAINED, SHOWN, UNSHOWN, Chart, Point
from msgm.cards.claims import FAIL, INCONCLUSIVE, PASS
from msgm.cards.pages import Column, Page, Picture, Table, Verdict, report_html
from msgm.cli import main
from msgm.evaluation.report import write_views
from msgm.pictures import to_png
from msgm.runs import Run
from tests.evaluation.test_report import make_report

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install 'msgm[dev]').")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="No chromium is installed (apt-get install chromium).")

GOLDEN = Path(__file__).parent.parent / "study" / "golden"
REPORTS = ["classifier-0.2", "recommender-0.2", "attributes-0.2"]
CARDS = {
    "classifier-card": "classifier-0.2/cards/few/finetune/card.html",
    "recommender-card": "recommender-0.2/cards/als/few/native/card.html",
    "generator-card": "generator/rows/redirect/card.html",
}
PAGES = [*REPORTS, "generator", "crowded", *CARDS]
WIDTHS = (390, 800, 1400)
ASKED = (Path(__file__).parent / "asked.js").read_text()
PAPER = 703
"""Width of A4 within margins of 12 mm, in CSS pixels."""


def ask(page, what):
    """The faults that a function of asked.js finds."""
    return page.evaluate(f"(() => {{ {ASKED}; return {what}(); }})()")


def crowded() -> Page:
    """A page with more of everything than a report has, and names that are hard to place."""
    names = [
        *(f"method-{k}" for k in range(24)),
        "W" * 60,
        "ein_sehr_langer_Name_ohne_eine_einzige_Trennstelle",
        "漢字" * 20,
    ]
    states = [PASS, FAIL, INCONCLUSIVE]
    verdicts = [
        Verdict(
            name=name,
            level=f"C{k % 3}, a level",
            state=states[k % 3],
            sentence="Said. " * k,
            why="n" * 90,
            href="card.html",
        )
        for k, name in enumerate(names)
    ]
    points = [
        Point(name=name, x=k % 3, y=k % 2, kind=(SHOWN, UNSHOWN, RETRAINED)[k % 3]) for k, name in enumerate(names)
    ]
    picture = to_png(torch.zeros(100, 1, 8, 8), 17)
    return Page(
        title="A title of a report that is rather long " + "x" * 80,
        kind="tests",
        lead=["A first sentence."],
        weak=True,
        asked={"Asked": "Much.", "a_long_key_" * 6: "y" * 120},
        verdicts={"one": verdicts, "two": verdicts},
        charts=[Chart(title=f"chart {k}", x="x", y="y", points=points, band=((0, 1), None)) for k in range(2)],
        choosing="Take the left one.",
        legend=["A note."],
        tables=[
            Table(
                title="Numbers " + "z" * 90,
                columns=[
                    Column(heading="row", words=True),
                    *(Column(heading=f"number {k}", better="lower") for k in range(20)),
                ],
                rows=[
                    [name, "-" if k == 3 else f"{k * 7 % 24}.5 [1.0, 2.0]", *["1.00 ± 0.01"] * 19]
                    for k, name in enumerate(names)
                ],
                notes=["A note."],
                hrefs={0: "card.html"},
            )
        ],
        figures=[Picture(png=picture, caption="A figure.")],
        samples=[
            Picture(png=picture, caption=name, bars=[(name, k, k % 2 == 0), ("b", 3, False)])
            for k, name in enumerate(names)
        ],
        facts={"Protocol": {"key": "v" * 200}},
        methods=dict.fromkeys(names, ("alpha 0.5", "formula: f")),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Every page's path, by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name in REPORTS:
        (folder / name).mkdir()
        shutil.copyfile(GOLDEN / f"{name}.json", folder / name / "report.json")
        assert main(["report", str(folder / name)]) == 0
    run = Run(folder / "generator")
    write_views(run, make_report(run))
    (folder / "crowded").mkdir()
    (folder / "crowded" / "report.html").write_text(report_html(crowded()))
    return {name: folder / CARDS.get(name, f"{name}/report.html") for name in PAGES}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, pages):
    """Opens a page at a width; what the console says and what is asked of the network are faults."""
    contexts, faults = [], []

    def open_page(name, width=1400, **settings):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request", lambda asked: faults.extend([asked.url] if not asked.url.startswith(("file:", "data:")) else [])
        )
        page.goto(pages[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_has_names_headings_and_focus_in_order(name, opened):
    page = opened(name)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert (width, ask(page, "faults")) == (width, [])
        assert (width, ask(page, "overlaps")) == (width, [])


@pytest.mark.parametrize("name", PAGES)
def test_text_stands_out_from_what_it_stands_on(name, opened):
    page = opened(name)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert (scheme, ask(page, "contrasts")) == (scheme, [])
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is (scheme == "light")


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_everything_is_dark_on_white_and_fits(name, opened, tmp_path):
    page = opened(name, PAPER, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert ask(page, "contrasts") == []
    if name != "crowded":  # Its table of 21 columns is wider than any paper.
        assert page.evaluate("document.documentElement.scrollWidth") <= PAPER
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def column(page, number):
    return page.eval_on_selector_all("tbody tr", f"rows => rows.map(row => row.cells[{number}].textContent.trim())")


def test_a_table_is_sorted_by_keyboard_and_says_so(opened):
    page = opened("crowded")
    heading, button = page.locator("th[scope=col]").nth(1), page.locator("th button").nth(1)
    assert heading.get_attribute("aria-sort") is None
    button.focus()
    page.keyboard.press("Enter")
    values = column(page, 1)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert values[-1] == "-"  # What has no number stands last.
    assert [float(v.split()[0]) for v in values[:-1]] == sorted(float(v.split()[0]) for v in values[:-1])
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(v.split()[0]) for v in column(page, 1)[:-1]] == sorted(
        (float(v.split()[0]) for v in values[:-1]), reverse=True
    )
    page.locator("th button").nth(0).focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") is None
    assert column(page, 0)[:2] == ["ein_sehr_langer_Name_ohne_eine_einzige_Trennstelle", "method-0"]


def test_the_first_stop_of_the_keyboard_skips_to_the_main_part_and_focus_is_seen(opened):
    page = opened("generator")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the main part"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('main')")


@pytest.mark.parametrize("script", [True, False])
def test_a_picture_opens_in_full_and_closes_by_keyboard(script, opened):
    page = opened("generator", java_script_enabled=script)
    page.locator("a.open").first.focus()
    small = page.locator("a.open img").first.bounding_box()["width"]
    page.keyboard.press("Enter")
    assert page.locator("figure:target").bounding_box() == {"x": 0, "y": 0, "width": 1400, "height": 900}
    assert page.locator("figure:target img").bounding_box()["width"] > 2 * small
    if script:
        page.keyboard.press("Escape")
    else:
        page.locator("figure:target a.close").focus()
        page.keyboard.press("Enter")
    assert page.locator("figure:target").count() == 0


def test_without_javascript_the_page_shows_everything_and_offers_no_dead_buttons(opened):
    page = opened("crowded", java_script_enabled=False)
    assert page.locator("button").count() == 0
    assert page.locator("tbody tr").count() == 27
    assert page.locator("summary", has_text="Why").count() == 2
