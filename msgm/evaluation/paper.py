"""The paper's tables (arXiv 2412.07229) from a comparison; the paper's values stand beside ours if settings agree.

A table appears when the data and the process are those of one of its experiments. A value of the paper is shown only
beside a row that agrees with all that the paper states (``published``); else a note names what differs. The paper's
judge cannot reject a sample, so the closed-set ratio is shown here, and its likelihoods are bits/dim: images in [0, 1]
with an offset of 8 there, images in [-1, 1] with one of 7 here, which is the same unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgm.config import BASE_ROW, Config
from msgm.evaluation.metrics.base import NOT_MEASURED, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.published import BASE, METHODS, RESULTS, AtLeast, PublishedResult, Settings
from msgm.runs import Run
from msgm.sweep import swept

PaperTable = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column of the paper's tables.

    Attributes:
        heading: its name.
        cell: our number in a row, as text.
    """

    heading: str
    cell: Callable[[Row], str]


def _likelihood(part: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        mean = row.get("nll", {}).get(part, {}).get("mean")
        return NOT_MEASURED if mean is None else f"{mean:.2f}"

    return cell


def _ratio(row: Row) -> str:
    ratio = row.get("unlearning_ratio_closed_set")
    return percent(ratio["value"]) if ratio else NOT_MEASURED


MEASURES = {
    "ur": Measure("closed-set UR %", _ratio),
    "nll_retain": Measure("NLL D_g", _likelihood("retain")),
    "nll_forget": Measure("NLL D_f", _likelihood("forget")),
}


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        label: the paper's name of it.
        row: our row.
        values: the paper's, by measure.
        differs: settings in which our row differs from the paper's; if empty, the values may stand beside ours.
        remark: a caveat to the values.
    """

    label: str
    row: Row
    values: dict[str, float]
    differs: list[str]
    remark: str = ""

    def value(self, measure: str) -> str:
        """Return the paper's value as text, empty when there is none or the settings differ."""
        found = None if self.differs else self.values.get(measure)
        return "" if found is None else str(found)


class Ours:
    """The settings of a comparison's rows in the form of the paper's: full keys to values."""

    def __init__(self, config: Config, report: Report) -> None:
        self.config = config
        request = config.request
        self.forgotten = sorted(report["judge"]["forgotten"]) if request.by_class else [request.describe()]
        source = report["base"]["source"]
        base = _training_of(Path(source)) if source else config.for_row(config.rows[BASE_ROW]).to_dict()
        self.base = {f"{BASE}{key}": value for key, value in _flat(base).items()}

    def settings(self, name: str) -> Settings:
        """Return the settings of row ``name``, and those of the base model as ``base KEY``."""
        row = self.config.rows[name]
        found = _flat(self.config.for_row(row).to_dict())
        return found | self.base | {"start": row.start, "request": self.forgotten}


def _training_of(model: Path) -> dict[str, Any]:
    """Return the settings that a given model was trained with, empty when its folder does not tell."""
    run = Run(model.parent)
    trained = run.stored_manifest().get("start") == "scratch"
    return (run.stored_config() or {}) if trained else {}


def _flat(tree: dict[str, Any], prefix: str = "") -> Settings:
    found: Settings = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    if found.get("training.forget_batch_size", 0) is None:
        found["training.forget_batch_size"] = found["training.batch_size"]
    return found


def differing(wanted: Settings, found: Settings) -> list[str]:
    """Return ``KEY OURS, paper THEIRS`` for every setting in which ours differs from the paper's."""
    elsewhere = not any(key.startswith(BASE) for key in found)
    compared = {key: value for key, value in wanted.items() if not (elsewhere and key.startswith(BASE))}
    texts = [
        f"{key} {_shown(found.get(key))}, paper {_shown(value)}"
        for key, value in compared.items()
        if not _same(value, found.get(key))
    ]
    return texts + (["base model trained elsewhere, how is not known"] if len(compared) < len(wanted) else [])


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, AtLeast):
        return isinstance(found, int) and found >= wanted.least
    return bool(wanted == found)


def _shown(value: Any) -> str:
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return "none" if value is None else " and ".join(value) if names and value else str(value)


def paper_tables(config: Config, report: Report) -> list[PaperTable]:
    """Return the paper's tables that a comparison reproduces, as a JSON tree: title, columns, rows of cells, notes."""
    ours = Ours(config, report)
    rows = [row for row in report["rows"] if not swept(row["name"])]
    return [_of_result(result, rows, ours) for result in _results(ours, rows)]


def _results(ours: Ours, rows: list[Row]) -> list[PublishedResult]:
    """Return one published result per table: for our data, process and start, with the most similar request."""
    data, process = ours.config.data["name"], ours.config.process["name"]
    known = [e for e in RESULTS if (e.shared["data.name"], e.shared["process.name"]) == (data, process)]
    starts = {row["start"] for row in rows if row["objective"] in ("orthogonal", "obtuse", "erasediff")}
    known = [e for e in known if e.start in starts] or known
    nearest = sorted(known, key=lambda e: len(set(e.classes) ^ set(ours.forgotten)), reverse=True)
    return list({e.table: e for e in nearest}.values())


def _of_result(result: PublishedResult, rows: list[Row], ours: Ours) -> PaperTable:
    lines = [line for method in METHODS if (line := _line(result, method, rows, ours))]
    data, process = (result.shared[key] for key in ("data.name", "process.name"))
    start = "from scratch" if result.start == "scratch" else "fine-tuned"
    title = f"The paper's {result.table}: {data}, {process}, {start}, forget {' and '.join(result.classes)}"
    return as_table(title, result.table, "method", MEASURES, lines)


def _line(result: PublishedResult, method: str, rows: list[Row], ours: Ours) -> Line | None:
    """Return the line of a method: of the rows of its objective the one that differs least from the paper's."""
    wanted, name = result.wanted(method), METHODS[method]["objective.name"]
    fitting = [row for row in rows if (row["objective"] or row["start"]) == (name if method != "Standard" else "none")]
    found = [(differing(wanted, ours.settings(row["name"])), row) for row in fitting]
    if not found:
        return None
    differs, row = min(found, key=lambda pair: len(pair[0]))
    return Line(method, row, result.values.get(method, {}), differs, result.remarks.get(method, ""))


def as_table(title: str, source: str, head: str, measures: dict[str, Measure], lines: list[Line]) -> PaperTable:
    """Return a table as a JSON tree; a column of the paper's values stands only where there is one to show.

    Args:
        title: of the table.
        source: the paper's name of it, for the notes; empty when the paper has none of the kind.
        head: heading of the lines' labels.
        measures: its columns, by the names that ``Line.values`` uses.
        lines: of the table.
    """
    columns, cells = [head, "row"], [[line.label, line.row["name"]] for line in lines]
    for name, measure in measures.items():
        beside = [line.value(name) for line in lines]
        columns += [measure.heading, *(["paper"] if any(beside) else [])]
        for line, mine, theirs in zip(lines, cells, beside, strict=True):
            mine += [measure.cell(line.row), *([theirs] if any(beside) else [])]
    return {"title": title, "columns": columns, "rows": cells, "notes": _notes(source, lines)}


def _notes(source: str, lines: list[Line]) -> list[str]:
    """Return notes on differing settings, once if the same for all lines, and the remarks on the shown values."""
    known = [line for line in lines if line.values]
    if not known and not source:
        return []
    if not known:
        return [f"No value of the paper: none of {source} could be read without doubt."]
    common = [text for text in known[0].differs if all(text in line.differs for line in known)]
    notes = [f"No value of the paper: {'; '.join(common)}."] if common else []
    own: dict[str, list[str]] = {}
    for line in known:
        own.setdefault("; ".join(text for text in line.differs if text not in common), []).append(line.label)
    why = "also" if common else "no value of the paper:"
    notes += [f"{', '.join(labels)}: {why} {text}." for text, labels in own.items() if text]
    notes += [f"{line.label}: {line.remark}." for line in known if line.remark and not line.differs]
    unread = [line.label for line in lines if not line.values and line.label != line.row["name"]]
    notes += [f"{', '.join(unread)}: no value of the paper could be read without doubt."] if unread else []
    if not all(line.differs for line in known):
        notes.append(f"paper: {source} of arXiv 2412.07229, by a classifier and a likelihood solver of its own.")
    return notes
