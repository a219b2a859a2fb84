"""Views of report.json: a table for the terminal and Markdown, a self-contained HTML page, one picture of all rows."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgm.pictures import strips
from msgm.runs import Run, write_bytes, write_text

TRUSTED_ACCURACY = 0.95
TRUSTED_RECALL = 0.9
Report = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, its meaning, and which way is better."""

    heading: str
    better: str


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _nll(part: dict[str, Any]) -> str:
    if part["mean"] is None:
        return f"diverged on {part['non_finite']}"
    return f"{part['mean']:.2f} ({part['median']:.2f})"


COLUMNS = [
    Column("row", ""),
    Column("start", ""),
    Column("steps", ""),
    Column("seconds", "lower"),
    Column("UR % [95% CI]", "lower"),
    Column("closed-set UR %", "lower"),
    Column("junk %", "lower"),
    Column("copy %", "lower"),
    Column("NLL retain", "lower"),
    Column("NLL forget", ""),
]


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row's cells, in the order of ``COLUMNS``; likelihoods as mean (median)."""
    ratio = row["unlearning_ratio"]
    return [
        row["name"],
        row["start"],
        str(row["steps"]),
        f"{row['seconds']:.0f}",
        f"{_percent(ratio['value'])} [{_percent(ratio['low'])}, {_percent(ratio['high'])}]",
        _percent(row["unlearning_ratio_closed_set"]["value"]),
        _percent(row["junk_rate"]),
        _percent(row["copy_rate"]),
        _nll(row["nll"]["retain"]),
        _nll(row["nll"]["forget"]),
    ]


def trusted(report: Report) -> bool:
    """Return whether the judge is good enough: right on held-out items, and able to see the forgotten content."""
    judge = report["judge"]
    recall = judge["forget_recall"]
    return judge["heldout_accuracy"] >= TRUSTED_ACCURACY and recall is not None and recall["value"] >= TRUSTED_RECALL


def headline(report: Report) -> str:
    """Return the report's first line: what the judge is worth."""
    judge, floor = report["judge"], report["real"]["unlearning_ratio"]
    held, recall = judge["heldout"], judge["forget_recall"]
    text = f"right on {_percent(held['value'])}% of {held['n']} held-out items"
    if recall is None:
        return f"The judge cannot be assessed: it is {text}, but none of them is to be forgotten."
    text += f", finds {_percent(recall['value'])}% of the {recall['n']} to be forgotten"
    if not trusted(report):
        wanted = f"{_percent(TRUSTED_ACCURACY)}% and {_percent(TRUSTED_RECALL)}%"
        return (
            f"The judge cannot be relied on: it is {text}; wanted are {wanted}. Read its unlearning ratios accordingly."
        )
    sees = f"it sees forgotten content in {_percent(floor['value'])}% of {floor['n']} real items to retain"
    return f"Judge: {text}. Floor: {sees}."


def verdict(report: Report) -> list[tuple[str, str]]:
    """Return what was asked, what was shown, and what cannot be said from it."""
    goal, asked = report["request"]["goal"], report["request"]["text"]
    unsaid = (
        "The weights may still hold the information: relearning, partial-noise starts and membership inference were "
        "not tested here. A higher NLL of forget items alone is no evidence that they are not generated. A model that "
        "makes junk makes no forgotten content either: read the unlearning ratio beside the junk rate."
    )
    if goal == "removal":
        unsaid = "Removal was asked for, and this report cannot show it. " + unsaid
    return [
        ("Asked", f"{asked[0].upper()}{asked[1:]}."),
        (
            "Shown",
            "How often samples show the content, and how likely the model holds real items: outputs, not weights.",
        ),
        ("Cannot be said", unsaid),
    ]


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [headline(report), "", f"# {report['title']}", ""]
    lines += [f"**{name}.** {text}  " for name, text in verdict(report)]
    lines += ["", *_markdown_table([c.heading for c in COLUMNS], [cells(row) for row in report["rows"]]), ""]
    lines += [f"Lower is better: {', '.join(c.heading for c in COLUMNS if c.better == 'lower')}.", ""]
    lines += ["", "## Protocol", ""]
    lines += [f"- {name}: {text}" for name, text in report["protocol"].items()]
    lines += ["", "## Objectives", ""]
    for row in report["rows"]:
        if row["card"]:
            settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items()) or "no settings"
            lines += [f"### {row['name']}", "", f"Here: {settings}; learning rate {row['lr']:g}.", ""]
            lines += [f"- {line}" for line in row["card"].split("\n")] + [""]
    return "\n".join(lines)


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---"] + ["---:" for _ in head[1:]]
    return ["| " + " | ".join(line) + " |" for line in [head, rule, *rows]]


def print_table(report: Report) -> None:
    """Print the headline and the table, aligned."""
    lines = [[c.heading for c in COLUMNS], *[cells(row) for row in report["rows"]]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print(f"\n{headline(report)}\n")
    for line in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))
    print(f"\nNLL: {report['rows'][0]['nll']['unit']}, mean (median)")


def write_views(run: Run, report: Report) -> None:
    """Write report.md, samples.png and the self-contained report.html beside report.json."""
    grids = {row["name"]: run.path / row["grid"] for row in report["rows"]}
    write_text(run.path / "report.md", to_markdown(report))
    write_bytes(run.path / "samples.png", strips(grids))
    write_text(run.path / "report.html", to_html(report, grids))


def to_html(report: Report, grids: dict[str, Path]) -> str:
    """Return the report as one HTML page with the sample grids inside."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(loader=PackageLoader("msgm.evaluation"), autoescape=select_autoescape(), trim_blocks=True)
    pictures = {name: base64.b64encode(path.read_bytes()).decode() for name, path in grids.items()}
    return environment.get_template("report.html").render(
        report=report,
        headline=headline(report),
        trusted=trusted(report),
        verdict=verdict(report),
        columns=COLUMNS,
        rows=[(row, cells(row)) for row in report["rows"]],
        pictures=pictures,
    )
