"""``check_domain``: what the engine, cards, pages, ``msgm compare`` and ``msgm tune`` rely on in every domain."""

import json
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from msgm import domains
from msgm.errors import UserError
from msgm.fields import merged
from msgm.runs import Run
from msgm.settings import Source
from msgm.study.band import LEAST
from msgm.study.engine import Domain, Place
from msgm.study.judging import CONTROLS, Report, Row
from msgm.study.tuning import OBJECTIVE, tune
from msgm.testing.rules import require
from msgm.tuned import with_tuned

NO_ROW = "a row that is not there"
TOLD = ("kind", "title", "data", "seeds", "requests", "protocol", "environment", "rows", "left_out")
"""What every report says."""


def check_domain(domain: Domain[Any, Any], source: Source) -> None:
    """Check that a domain keeps every rule that the frame of comparisons relies on; its rows are run several times.

    - It is registered, its config is found by ``domain: NAME`` and read back from what ``to_dict`` gives, and a setting
      that there is not is a UserError.
    - A comparison writes report.json, report.md, report.html and a card for every row; its report says what every one
      says, holds the controls do-nothing and retrain, and is judged by at least five retrained models.
    - The same comparison again keeps every cell, and gives the same report. Another folder gives the same numbers.
    - An unknown row is a UserError, and nothing is written then; so is a folder that holds another experiment.
    - Doing nothing reaches no level on the ladder, and the pages can be made again from report.json alone.
    - Where rows can be tuned, a search gives values that the config takes.

    Example:
        >>> from msgm.testing import check_domain
        >>> from msgm.recommender.compare import RECOMMENDERS
        >>> from msgm.recommender.methods import METHODS
        >>> data = {"name": "synthetic", "users": 60, "items": 40, "interactions": 900, "least": 5}
        >>> methods = {name: None for name in METHODS.entries if name not in ("do-nothing", "retrain")}
        >>> small = {"data": data, "models": {"ease": {}}, "requests": {"few": {"random_users": 5}}, "methods": methods}
        >>> check_domain(RECOMMENDERS, small)

    The rules are those of domains whose rows are judged against retrained models, as those of ``msgm.study.views`` are.

    Args:
        domain: that was registered with ``msgm.domains.register``.
        source: a small config of it, with one request at least, in which doing nothing does not forget.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
        UserError: the config is refused.
    """
    config = domain.load(source)
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trial = _Trial(domain, config, Path(folder))
        _check_config(trial)
        run = domain.compare(config, trial.folder / "first")
        report = trial.report(run)
        _check_report(trial, report)
        _check_pages(trial, run, report)
        _check_again(trial, run, report)
        _check_refusals(trial, run)
        _check_tuning(trial)


class _Trial:
    def __init__(self, domain: Domain[Any, Any], config: Any, folder: Path) -> None:
        self.domain, self.config, self.folder, self.name = domain, config, folder, type(domain).__name__

    def report(self, run: Run) -> Report:
        return domains.read_report(run.report)


def _check_config(trial: _Trial) -> None:
    domain, name, tree = trial.domain, trial.name, trial.config.to_dict()
    require(_found(domain), f"{name} is not registered; give it to msgm.domains.register.")
    again = domain.load(json.loads(json.dumps(tree))).to_dict()
    require(again == tree, f"{name}.load does not read back what to_dict of a config gives.")
    missing = [key for key in ("name", "seed", *domain.fixed) if key not in tree]
    require(not missing, f"{name}: to_dict of a config lacks {', '.join(missing)}.")
    try:
        domain.load(tree | {"no_such_setting": 1})
    except UserError:
        return
    require(False, f"{name}.load takes a setting that there is not; expected a UserError.")


def _found(domain: Domain[Any, Any]) -> bool:
    try:
        return domains.find(domain.name) is domain and domains.of_report({"kind": domain.kind}) is domain
    except UserError:
        return False


def _check_report(trial: _Trial, report: Report) -> None:
    name = trial.name
    missing = [key for key in TOLD if key not in report]
    require(not missing, f"{name}.report lacks {', '.join(missing)}.")
    require(report["kind"] == trial.domain.kind, f"{name}.report is of the kind {report['kind']!r}.")
    require(bool(report["rows"]), f"{name}.report has no row.")
    for row in report["rows"]:
        told = f"{name}.report: row {row['method']!r}"
        require(
            row["request"] in report["requests"], f"{told} is of the request {row['request']!r}, which is not there."
        )
        require("judged" in row, f"{told} is not judged; return what msgm.study.rows.judged_report gives.")
        require(row["judged"]["retrains"] >= LEAST, f"{told} has fewer than {LEAST} retrained models.")
        require(len(row["per_seed"]) == len(report["seeds"]), f"{told} lacks a seed.")
    for request in report["requests"]:
        own = [row["method"] for row in report["rows"] if row["request"] == request]
        gone = [control for control in CONTROLS if control not in own]
        require(not gone, f"{name}.report: request {request!r} has no row {' and '.join(gone)}.")


def _check_pages(trial: _Trial, run: Run, report: Report) -> None:
    domain, name = trial.domain, trial.name
    for row in report["rows"]:
        card = domain.card(report, row)
        require(card is not None, f"{name}.card gives the row {row['method']!r} no card.")
        level = card["level"] if card else ""
        told = f"{name}: {CONTROLS[0]} on {row['request']!r} reaches {level}; a model that forgot nothing has to be C0."
        require(row["method"] != CONTROLS[0] or level == "C0", told)
    pages = sorted(run.path.glob("report.*")) + sorted(run.path.glob("cards/**/*.*"))
    before = {path: path.read_bytes() for path in pages}
    count = 3 + 3 * len(report["rows"])
    require(len(before) == count, f"{name}: {len(before)} pages and cards were written; expected {count}.")
    domain.write_views(run, report)
    changed = [path.name for path in pages if path.read_bytes() != before[path]]
    require(not changed, f"{name}.write_views makes other pages from report.json: {', '.join(changed)}.")


def _check_again(trial: _Trial, run: Run, report: Report) -> None:
    domain, name = trial.domain, trial.name
    lines = StringIO()
    with redirect_stdout(lines):
        again = trial.report(domain.compare(trial.config, run.path))
    said = lines.getvalue().splitlines()
    cells = list(domain.cells(domain.prepare(trial.config, Place(run), {})))
    anew = [cell for cell in cells if any(line.startswith(f"{cell.label}: ") for line in said if line[-6:] != ": kept")]
    require(not anew, f"{name}: the same comparison again runs {len(anew)} of {len(cells)} cells anew.")
    require(_numbers(again) == _numbers(report), f"{name}: the same comparison again gives another report.")
    other = trial.report(domain.compare(trial.config, trial.folder / "second"))
    require(_numbers(other) == _numbers(report), f"{name}: numbers are not a function of the config and its seed.")


def _numbers(report: Report) -> list[tuple[str, str, Row, list[Row]]]:
    """Return all that a report says of its rows but for seconds."""
    return [
        (row["request"], row["method"], row["metrics"], [part["metrics"] for part in row["per_seed"]])
        for row in report["rows"]
    ]


def _check_refusals(trial: _Trial, run: Run) -> None:
    domain, name, fresh = trial.domain, trial.name, trial.folder / "refused"
    other = domain.load(trial.config.to_dict() | {"seed": trial.config.seed + 1})
    tried = {
        "takes a row that there is not": lambda: domain.compare(trial.config, fresh, only=[NO_ROW]),
        "goes on in a folder that holds another seed": lambda: domain.compare(other, run.path),
    }
    for told, attempt in tried.items():
        try:
            attempt()
        except UserError:
            continue
        require(False, f"{name} {told}; expected a UserError.")
    require(not fresh.exists(), f"{name} writes a folder before it refuses a row that there is not.")


def _check_tuning(trial: _Trial) -> None:
    domain, run = trial.domain, Run(trial.folder / "tune")
    try:
        tunable = domain.tunable(trial.config, run, None, "cpu")
    except UserError:
        return  # it has no settings to search
    if not tunable.default_rows():
        return
    found = tune(tunable, run, trial.config.name, trial.config.seed, 2, tunable.default_rows()[:1], OBJECTIVE)
    for row, chosen in found["rows"].items():
        tree = tunable.chosen(row, chosen["values"])
        taken = domain.load(with_tuned(trial.config.to_dict(), [], run.path)).to_dict()
        require(merged(taken, tree) == taken, f"{trial.name}: a config does not take what was chosen for row {row!r}.")
