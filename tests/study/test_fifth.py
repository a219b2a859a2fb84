"""A fifth domain, in one file, gets compare, band, cards, report, tuning and pages from the frame."""

import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import msgm
from msgm import domains
from msgm.classifier.compare import CLASSIFIERS
from msgm.classifier.methods import METHODS
from msgm.errors import RunError, UserError
from msgm.fields import structured
from msgm.plugins import PREFIX
from msgm.settings import read_settings
from msgm.study.records import RecordCell
from msgm.testing import Refused, check_domain
from tests.classifier.test_compare import TABLE
from tests.study import letters

SMALL = {"domain": "letters", "requests": {"ada": {"author": "ada"}, "cato": {"author": "cato"}}}
LETTERS = domains.find("letters")
count = itertools.count()


def test_it_keeps_every_rule_of_domains():
    pytest.importorskip("optuna")
    check_domain(LETTERS, SMALL)


def test_classifiers_keep_them_too(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    left_out = set(METHODS.entries) - {"do-nothing", "retrain", "finetune"}
    small = {
        "data": {"name": "table", "path": str(tmp_path / "table.csv")},
        "network": {"name": "mlp", "hidden": [5]},
        "training": {"epochs": 3, "batch_size": 32, "lr": 0.1},
        "seeds": 2,
        "metrics": ["accuracy", "membership"],
        "requests": {"few": {"random": 8}},
        "methods": dict.fromkeys(left_out),
    }
    check_domain(CLASSIFIERS, small)


def test_its_report_judges_and_shows_all_rows(tmp_path):
    report = msgm.compare(SMALL, tmp_path / "run")
    levels = {(row["request"], row["method"]): report.level(row) for row in report.rows}
    assert {levels[request, "do-nothing"] for request in SMALL["requests"]} == {"C0"}
    # Its one attack does not tell the original from retrained models, so that nothing is bounded by it.
    assert {levels[request, "retrain"] for request in SMALL["requests"]} == {"C1"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(word in page for word in ("ada: the author ada", "NLL of other authors", "subtract"))
    assert (tmp_path / "run" / "cards" / "cato" / "subtract" / "card.html").is_file()


def test_a_cell_that_fails_is_a_line_of_the_report_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(self, asked):
        raise ArithmeticError("the counts are negative")

    monkeypatch.setattr(letters.Subtract, "forget", broken)
    with pytest.raises(RunError, match="6 models failed, and the same command tries again: ada: subtract 0: "):
        msgm.compare(SMALL, tmp_path / "run")
    report = msgm.Report.read(tmp_path / "run")
    assert {row["method"] for row in report.rows} == {"do-nothing", "retrain", "finetune"}
    lines = [(line["request"], line["method"], line["seeds"]) for line in report.tree["left_out"]]
    assert lines == [("ada", "subtract", [0, 1, 2]), ("cato", "subtract", [0, 1, 2])]
    assert "the counts are negative" in (tmp_path / "run" / "report.md").read_text()


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A plugin's file and a config that names it, in an empty folder and a process that knows nothing of them."""
    monkeypatch.setattr(domains, "_DOMAINS", {k: v for k, v in domains._DOMAINS.items() if k != "letters"})
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(Path(letters.__file__).read_text())
    Path("mine.yaml").write_text("domain: letters\nplugins: [mine.py]\nname: mine\n")


@pytest.mark.usefixtures("config")
def test_the_command_line_compares_tunes_and_reports_on_it(cli):
    made = cli("compare", "mine.yaml", "--only", "do-nothing,retrain", "--set", "seeds=2")
    assert made.code == 0, made.err
    assert "wrote runs/mine/report.html" in made.out
    rows = json.loads(Path("runs/mine/report.json").read_text())["rows"]
    assert [(row["method"], len(row["per_seed"])) for row in rows] == [("do-nothing", 2), ("retrain", 2)]
    again = cli("compare", "mine.yaml", "--set", "seeds=2")
    assert again.out.count(": kept") == 5 + 4
    refused = cli("compare", "mine.yaml", "--models", "a")
    assert (refused.code, refused.err) == (
        2,
        "msgm: compare: models is no option of a letters experiment; it has only, requests, device, jobs, cluster.\n",
    )
    pytest.importorskip("optuna")
    assert cli("tune", "mine.yaml", "--trials", "2").code == 0
    tuned = cli("compare", "mine.yaml", "--tuned", "runs/mine-tune", "--out", "runs/tuned")
    assert tuned.code == 0, tuned.err


@pytest.mark.usefixtures("config")
def test_its_cells_run_in_several_processes(cli):
    assert cli("compare", "mine.yaml", "--out", "one").code == 0
    many = cli("compare", "mine.yaml", "--out", "many", "--jobs", "2")
    assert many.code == 0, many.err
    one, two = (json.loads(Path(folder, "report.json").read_text())["rows"] for folder in ("one", "many"))
    assert [row["metrics"] for row in one] == [row["metrics"] for row in two]


@pytest.mark.usefixtures("config")
def test_a_report_that_needs_a_plugin_is_shown_only_if_it_is_trusted(cli, monkeypatch):
    assert cli("compare", "mine.yaml").code == 0
    monkeypatch.setattr(domains, "_DOMAINS", {k: v for k, v in domains._DOMAINS.items() if k != "letters"})
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:  # as in a new process
        monkeypatch.delitem(sys.modules, name)
    refused = cli("report", "runs/mine")
    assert refused.code == 2
    assert "mine.py, which would be run" in refused.err
    assert "--trust" in refused.err
    os.remove("runs/mine/report.md")
    trusted = cli("report", "runs/mine", "--trust")
    assert trusted.code == 0, trusted.err
    assert Path("runs/mine/report.md").is_file()


class Forgetful(letters.Letters):
    """Does not read the number of seeds back."""

    def load(self, source, overrides=()):
        return replace(super().load(source, overrides), seeds=1 + next(count))


class Careless(letters.Letters):
    """Takes any setting."""

    def load(self, source, overrides=()):
        tree = read_settings(source, overrides)
        return structured(letters.Config, {k: v for k, v in tree.items() if k != "no_such_setting"}, "")


class Uncontrolled(letters.Letters):
    """Leaves the retrained row out of its report."""

    def report(self, world):
        found = super().report(world)
        return found | {"rows": [row for row in found["rows"] if row["method"] != "retrain"]}


class Unjudged(letters.Letters):
    """Returns rows as they were assembled."""

    def report(self, world):
        found = super().report(world)
        rows = [{key: value for key, value in row.items() if key != "judged"} for row in found["rows"]]
        return found | {"rows": rows}

    def write_views(self, run, report):
        pass

    def print_report(self, report):
        pass


class Untiring(letters.Letters):
    """Makes every cell anew."""

    def cells(self, world):
        for cell in super().cells(world):
            yield Anew(cell.label, cell.place, cell.facts, cell.make)


class Anew(RecordCell):
    def kept(self):
        return False


class Random(letters.Letters):
    """Has other texts each time."""

    def prepare(self, config, place, chosen):
        world = super().prepare(config, place, chosen)
        shift = (world.data.seen + next(count)) % letters.LETTERS
        shift[0] = world.data.seen[0]
        return replace(world, data=letters.Data(shift, world.data.unseen))


class Hasty(letters.Letters):
    """Writes before it refuses."""

    def prepare(self, config, place, chosen):
        place.run.path.mkdir(parents=True, exist_ok=True)
        (place.run.path / "notes.txt").write_text("begun")
        return super().prepare(config, place, chosen)


class Flattering(letters.Letters):
    """Gives every row a level."""

    def card(self, report, row):
        return super().card(report, row) | {"level": "C1"}


class Timed(letters.Letters):
    """Writes other pages each time."""

    def write_views(self, run, report):
        super().write_views(run, report | {"title": f"{report['title']} {next(count)}"})


class Loose(letters.Letters):
    """Goes on with another seed."""

    fixed = ("texts",)


class Misspelt(letters.Letters):
    """Chooses a setting for a row of another name."""

    def tunable(self, config, run, source, device):
        made = super().tunable(config, run, source, device)
        made.chosen = lambda row, values: {"seeds": {}}
        return made


FAULTS = [
    (Forgetful, "does not read back"),
    (Careless, "takes a setting that there is not"),
    (Uncontrolled, "has no row retrain"),
    (Unjudged, "is not judged"),
    (Untiring, "runs 34 of 34 cells anew"),
    (Random, "another report|not a function of the config"),
    (Hasty, "writes a folder before it refuses"),
    (Flattering, "reaches C1"),
    (Timed, "makes other pages"),
    (Loose, "goes on in a folder that holds another seed"),
]


@pytest.mark.parametrize(("cls", "message"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_rule_refuses_a_faulty_domain(monkeypatch, cls, message):
    monkeypatch.setattr(domains, "_DOMAINS", dict(domains._DOMAINS))
    with pytest.raises(Refused, match=message):
        check_domain(domains.register(cls()), SMALL)


def test_a_domain_that_is_not_registered_is_refused():
    with pytest.raises(Refused, match="is not registered"):
        check_domain(letters.Letters(), SMALL)


def test_settings_that_no_config_takes_are_refused(monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(domains, "_DOMAINS", dict(domains._DOMAINS))
    with pytest.raises((Refused, UserError), match="seeds"):
        check_domain(domains.register(Misspelt()), SMALL)
