"""Reports of earlier versions: they stay readable, and numbers that were right stay what they were."""

import json
from pathlib import Path
from shutil import copyfile

import pytest
import torch

from msgm.api.report import Report
from msgm.cli import main
from msgm.folders import write_bytes
from msgm.pictures import to_png

GOLDEN = Path(__file__).parent / "golden"
REPORTS = [
    path.name
    for path in sorted(GOLDEN.glob("*.json"))
    if not path.stem.endswith("card") and "generator" not in path.stem
]


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


@pytest.fixture
def earlier(tmp_path):
    """The report of a comparison of generators by the first version, beside pictures."""
    copyfile(GOLDEN / "generator-0.1.json", tmp_path / "report.json")
    for row in read("generator-0.1.json")["rows"]:
        write_bytes(tmp_path / row["grid"], to_png(torch.zeros(4, 1, 8, 8), 17))
    return tmp_path


def test_a_report_of_generators_of_the_first_version_is_shown_and_judged(earlier):
    before = read("generator-0.1.json")
    assert main(["report", str(earlier)]) == 0
    assert json.loads((earlier / "report.json").read_text()) == before
    report = Report.read(earlier)
    for row, old in zip(report.rows, before["rows"], strict=True):
        assert row["metrics"]["UR %"]["value"] == 100 * old["unlearning_ratio"]["value"]
        assert row["metrics"]["NLL forget"]["value"] == old["nll"]["forget"]["mean"]
        assert f"| {old['name']} |" in (earlier / "report.md").read_text()
        card = json.loads((earlier / "rows" / old["name"] / "card.json").read_text())
        assert (card["name"], card["request"]["target_definition"]) == (old["name"], before["request"]["text"])
        assert report.level(row) == card["level"] == "C0"  # 20 steps make nothing but junk
