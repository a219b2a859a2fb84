"""Reports of earlier versions: they stay readable, and numbers that were right stay what they were."""

import json
from pathlib import Path
from shutil import copyfile

import pytest

from msgm.api.report import Report
from msgm.cli import main

GOLDEN = Path(__file__).parent / "golden"
REPORTS = [path.name for path in sorted(GOLDEN.glob("*.json")) if not path.stem.endswith("card")]


def read(name):
    return json.loads((GOLDEN / name).read_text())


@pytest.fixture
def shown(tmp_path):
    """A folder with a report, and the views that were made of it."""

    def show(name):
        copyfile(GOLDEN / name, tmp_path / "report.json")
        assert main(["report", str(tmp_path)]) == 0
        return tmp_path

    return show


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_of_an_earlier_version_is_shown(name, shown):
    folder, report = shown(name), read(name)
    text = (folder / "report.md").read_text()
    for row in report["rows"]:
        assert f"| {row['method']} |" in text
    assert "{{" not in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text()) == report


@pytest.mark.parametrize(
    ("report", "card", "place"),
    [
        ("classifier-0.2.json", "classifier-0.2-card.json", "cards/few/finetune"),
        ("recommender-0.2.json", "recommender-0.2-card.json", "cards/als/few/native"),
    ],
)
def test_a_card_made_again_has_the_numbers_and_the_facts_that_it_had(report, card, place, shown):
    made, before = json.loads((shown(report) / place / "card.json").read_text()), read(card)
    for part in ("name", "title", "header", "request", "method", "artifacts", "history"):
        assert made[part] == before[part]
    for section, lines in before["numbers"].items():
        now = {line["number"]: line for line in made["numbers"][section]}
        for line in lines:
            wanted = {key: line[key] for key in ("test", "number", "this", "original", "better")}
            assert {key: now[line["number"]][key] for key in wanted} == wanted


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_of_an_earlier_version_is_read_in_python(name, tmp_path):
    copyfile(GOLDEN / name, tmp_path / "report.json")
    report = Report.read(tmp_path)
    assert [line["method"] for line in report.table()] == [row["method"] for row in read(name)["rows"]]
    if report.domain != "attributes":
        assert {report.level(row) for row in report.rows} <= {"C0", "C1", "C2", "C3", "C4", "C5"}
