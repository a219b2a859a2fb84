import re

import pytest
import torch

from msgm.evaluation import report as views
from msgm.evaluation.ladder import LADDER
from msgm.evaluation.rates import rate
from msgm.evaluation.rows import REQUEST, judged
from msgm.folders import write_bytes, write_json
from msgm.pictures import to_png
from msgm.reading import read_json
from msgm.runs import Run
from tests.helpers import NASTY, as_name, blocks

pytestmark = pytest.mark.usefixtures("rendered")

NAMES = ["do-nothing", "unseen", "redirect"]


def row(name: str, grid: str) -> dict:
    trained = name != "do-nothing"
    part = {"mean": 2.5, "median": 2.25, "standard_error": 0.1, "n": 10}
    return {
        "name": name,
        "objective": name if trained else None,
        "settings": {"alpha": 0.5} if trained else {},
        "card": f"formula: the {name} loss <b>\nsource: somewhere" if trained else None,
        "start": "finetune" if trained else "none",
        "steps": 7,
        "lr": 1e-3 if trained else None,
        "seconds": 12.0,
        "grid": grid,
        "unlearning_ratio": rate(3, 20),
        "unlearning_ratio_closed_set": rate(4, 20),
        "junk_rate": 0.05,
        "copy_rate": 0.1,
        "intervals": {"junk_rate": [0.0, 0.2], "copy_rate": [0.0, 0.3]},
        "class_histogram": {"0": 10, "3": 9, "none": 1},
        "nll": {"unit": "bits/dim", "retain": part, "forget": part | {"mean": 6.125}},
        "measured": {"ur": {}, "nll": {}},
    }


def make_report(run: Run, right: int = 99, goal: str = "suppression") -> dict:
    rows = []
    for name in NAMES:
        grid = f"rows/{name}/samples/final.png"
        write_bytes(run.path / grid, to_png(torch.zeros(4, 1, 8, 8), 17))
        rows.append(row(name, grid))
    report = {
        "title": "a & b",
        "seed": 0,
        "request": {"text": f"{goal} of the concept given by labels 3", "goal": goal, "target": "concept"},
        "data": {"name": "digits", "digest": "abc", "items": {"train": {"retain": 5, "forget": 2}}},
        "judge": {
            "forgotten": ["3"],
            "heldout_accuracy": right / 100,
            "heldout": rate(right, 100),
            "forget_recall": rate(30, 31),
        },
        "real": {"unlearning_ratio": rate(1, 80)},
        "base": {"seconds": 3.0, "source": None},
        "protocol": {"samples": "20 samples", "NLL": "bits/dim"},
        "environment": {"versions": {"msgm": "0.1.0"}},
        "rows": rows,
    }
    report = judged(report, LADDER)
    write_json(run.report, report)
    return report


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def test_a_good_judge_is_stated_with_its_floor(run):
    first = views.to_markdown(make_report(run)).split("\n")[0]
    assert "99.0% of 100 held-out items" in first
    assert "1.2% of 80 real items to retain" in first
    assert "cannot be relied on" not in first


@pytest.mark.parametrize(("right", "weak"), [(94, True), (95, False)])
def test_a_judge_below_95_percent_cannot_be_relied_on(run, right, weak):
    report = make_report(run, right)
    views.write_views(run, report)
    assert ("cannot be relied on" in views.headline(report)) is weak
    for view in ("report.md", "report.html"):
        assert ("cannot be relied on" in (run.path / view).read_text()) is weak


def test_a_judge_that_does_not_see_the_forgotten_content_cannot_be_relied_on(run):
    report = make_report(run)
    report["judge"]["forget_recall"] = rate(5, 31)
    assert "cannot be relied on" in views.headline(report)
    report["judge"]["forget_recall"] = None
    assert "cannot be assessed" in views.headline(report)


def test_a_diverged_likelihood_is_said_in_its_cell(run):
    report = make_report(run)
    report["rows"][0]["nll"]["forget"] = {"mean": None, "median": None, "standard_error": None, "n": 9, "non_finite": 2}
    assert views.tables(report)[0].rows[0][-1] == "diverged on 2"


def test_the_headline_comes_first_in_every_view(run, capsys):
    report = make_report(run, 60)
    views.write_views(run, report)
    views.print_table(report)
    assert (run.path / "report.md").read_text().startswith(views.headline(report))
    assert capsys.readouterr().out.strip().startswith(views.headline(report))
    html = (run.path / "report.html").read_text()
    assert html.index("<h1>") < html.index(views.headline(report)) < html.index("<h2")


def test_markdown_and_html_hold_every_cell_of_every_row(run):
    report = make_report(run)
    views.write_views(run, report)
    markdown, html = ((run.path / view).read_text() for view in ("report.md", "report.html"))
    for cells in views.tables(report)[0].rows:
        assert "| " + " | ".join(cells) + " |" in markdown
        row = next(row for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL) if f">{cells[0]}</a></th>" in row)
        assert re.findall(r"<td[^>]*>([^<]*)</td>", row) == cells[1:]


def test_cells_show_the_numbers_of_the_row(run):
    cells = views.tables(make_report(run))[0].rows[2]
    assert cells[:5] == ["redirect", "finetune", "7", "12", "15.0 [5.2, 36.0]"]
    assert cells[5:] == ["20.0", "5.0", "10.0", "2.50 (2.25)", "6.12 (2.25)"]


def test_a_column_has_a_heading_for_every_cell(run):
    for table in views.tables(make_report(run)):
        assert {len(cells) for cells in table.rows} == {len(table.columns)}


def test_what_was_not_measured_is_shown_as_such(run):
    report = make_report(run)
    del report["rows"][1]["nll"], report["rows"][1]["measured"]["nll"]
    assert views.tables(report)[0].rows[1][-2:] == ["-", "-"]
    views.write_views(run, report)


def test_html_needs_nothing_from_outside(run):
    views.write_views(run, make_report(run))
    html = (run.path / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert html.count("<script") == 1
    assert "<link" not in html
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) > len(NAMES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_html_escapes_what_it_shows(run):
    views.write_views(run, make_report(run))
    html = (run.path / "report.html").read_text()
    assert "a &amp; b" in html
    assert "the redirect loss &lt;b&gt;" in html


def test_cards_and_settings_of_trained_rows_are_shown(run):
    markdown = views.to_markdown(make_report(run))
    for name in NAMES[1:]:
        assert f"### {name}\n\nHere: alpha 0.5; learning rate 0.001.\n\n- formula: the {name} loss" in markdown
    assert "### do-nothing" not in markdown


def test_a_request_for_removal_is_told_what_the_report_cannot_show(run):
    said = dict(views.verdict(make_report(run, goal="removal")))
    assert said["Cannot be said"].startswith("Removal was asked for, and this report cannot show it.")
    assert "Removal was asked" not in dict(views.verdict(make_report(run)))["Cannot be said"]


def test_the_request_is_quoted_letter_by_letter(run):
    report = make_report(run)
    report["requests"][REQUEST]["text"] = "suppression of the concept given by attribute Wearing_Hat"
    assert dict(views.verdict(report))["Asked"].endswith("by attribute Wearing_Hat.")


def test_views_are_rebuilt_from_the_json_alone(run):
    views.write_views(run, make_report(run))
    before = {view: (run.path / view).read_bytes() for view in ("report.md", "report.html", "samples.png")}
    for view in before:
        (run.path / view).unlink()
    views.write_views(run, read_json(run.report))
    assert {view: (run.path / view).read_bytes() for view in before} == before


def test_numbers_that_json_cannot_hold_are_refused(run):
    with pytest.raises(ValueError, match="JSON"):
        write_json(run.report, {"value": float("nan")})
    assert not run.report.exists()


def test_texts_of_users_change_nothing_around_them(run):
    def made(text):
        report = make_report(run)
        report |= {"title": text, "protocol": {text: text}}
        report["requests"][REQUEST]["text"] = text
        report["paper"] = [{"title": text, "columns": [text, "n"], "rows": [[text, "1"]], "notes": [text]}]
        for row in report["rows"][1:]:
            row |= {"name": f"{as_name(text)} {row['name']}", "start": text, "settings": {text: text}}
            row["card"] = f"formula: {text.splitlines()[0]}"
        return report

    assert blocks(views.to_markdown(made(NASTY))) == blocks(views.to_markdown(made("x")))
    assert all(views.report_figures(made(r"$\frac$ _x")).values())
    assert views.strips({r"$\frac$": run.path / "rows/unseen/samples/final.png"})
