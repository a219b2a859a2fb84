"""Views of an attribute report: tables for the terminal and Markdown, and a self-contained HTML page with one plot."""

from typing import Any

from msgm import markdown as md
from msgm.cards import claims, pages
from msgm.cards.chart import ORIGINAL, SHOWN, UNSHOWN, Chart, Point
from msgm.cards.pages import Page, Verdict, listed, methods_markdown, methods_of, report_html
from msgm.folders import write_text
from msgm.recommender.erasure.assemble import FOUND, INCONCLUSIVE, NOT_FOUND, UNSURE, Report
from msgm.recommender.erasure.config import BEFORE, CONTROLS, SHUFFLED
from msgm.recommender.metrics.attribute_attackers import ATTACKERS
from msgm.runs import Run
from msgm.tables import aligned

Row = dict[str, Any]
LEGEND = (
    "Means over seeds, with 95% t-intervals for NDCG and leaks. leak: the attribute guessed by the best attacker who "
    "re-reads his guesses; logistic, mlp, gbdt: their balanced accuracies as they guess, which may fall below chance "
    "where an erasure overshoots. dropped: users whose value is not known. seconds: of the erasure; before and in "
    "training, of the whole fit. reversible: a plug-in that can be taken out again. not found: by these attackers, "
    "among so many users, on surfaces where both controls hold; it is no guarantee. "
    "cannot tell: not found, but the interval of a leak reaches what counts as found."
)
CHOOSING = (
    "Across stands what is left of the model's use, up how well the best attacker guesses the attribute. Look for a "
    "row inside the shaded part, as far right as before any erasure: there attackers guess no better than blindly."
)
LEVELS = "Whether attackers find the attribute after each erasure."
STATES = {
    FOUND: claims.FAIL,
    NOT_FOUND: claims.PASS,
    UNSURE: claims.INCONCLUSIVE,
    INCONCLUSIVE: claims.INCONCLUSIVE,
}
"""Verdict to how it is shown."""


def table(report: Report, attribute: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of an attribute's table."""
    head = ["model", "erasure", "verdict", "NDCG", "Recall"]
    for surface in report["surfaces"]:
        head += [f"{surface}: leak", *ATTACKERS]
    head += ["seconds", "dropped", "reversible"]
    return head, [_line(report, row) for row in report["rows"] if row["attribute"] == attribute]


def _line(report: Report, row: Row) -> list[str]:
    numbers = row["metrics"]
    cells = [row["model"], row["method"], verdict(row), _interval(numbers["ndcg"]), _value(numbers["recall"])]
    for surface in report["surfaces"]:
        cells.append(_interval(numbers[f"{surface}_leak"]))
        cells += [_value(numbers[f"{surface}_bacc_{name}"]) for name in ATTACKERS]
    reversible = "-" if row["method"] in CONTROLS else "yes" if row["reversible"] else "no"
    return [*cells, f"{row['seconds']:.3f}", str(row["dropped"]), reversible]


def _value(number: Row) -> str:
    return "-" if number["value"] is None else f"{number['value']:.3f}"


def _interval(number: Row) -> str:
    if number["low"] is None:
        return _value(number)
    low, high = max(number["low"], 0.0), min(number["high"], 1.0)  # All these numbers are shares.
    return f"{number['value']:.3f} [{low:.3f}, {high:.3f}]"


def verdict(row: Row) -> str:
    """Return a row's verdict, with the surfaces that the attribute is found on."""
    return f"{FOUND} on {', '.join(row['found_on'])}" if row["found_on"] else str(row["verdict"])


def summary(report: Report) -> list[str]:
    """Return a line for every model and attribute: the erasures after which it is not found, and open verdicts."""
    return [_summary_line(report, control) for control in report["controls"]]


def _summary_line(report: Report, control: Report) -> str:
    sound, model, attribute = control["sound"], control["model"], control["attribute"]
    failed = [surface for surface in report["surfaces"] if surface not in sound]
    doubt = f"{INCONCLUSIVE} on {', '.join(failed)}, where a control fails" if failed else ""
    found = ""
    if sound:
        rows = [row for row in report["rows"] if (row["model"], row["attribute"]) == (model, attribute)]
        hidden = [row["method"] for row in rows if row["verdict"] == NOT_FOUND and row["method"] not in CONTROLS]
        found = f"on {', '.join(sound)} not found after {', '.join(hidden) or 'none of the erasures'}"
    return f"{attribute} in {model}: {'; '.join(filter(None, [found, doubt]))}; {control['evidence']}."


def headings(report: Report) -> dict[str, str]:
    """Return the heading of every attribute's table."""
    return {name: _heading(name, facts) for name, facts in report["attributes"].items()}


def _heading(name: str, facts: Report) -> str:
    sizes = ", ".join(f"{value} {size}" for value, size in facts["values"].items())
    return f"{name}: {sizes}; not known of {facts['missing']}; chance {facts['chance']:.3f}"


def _reasons(report: Report) -> list[str]:
    return [
        f"{line['method']} on {line['model']}, {line['attribute']} {line['status']}: {line['reason']}"
        for line in report["left_out"]
    ]


def print_report(report: Report) -> None:
    """Print the tables, their summary and how to read them."""
    for name, heading in headings(report).items():
        print(f"\n{md.line(heading)}\n" + "\n".join(aligned(*table(report, name))))
    print("\n" + "\n".join(map(md.line, [*_reasons(report), *summary(report), LEGEND])))


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [*md.section(report["title"], summary(report), level=1), "", md.text(LEGEND)]
    for name, heading in headings(report).items():
        lines += [*md.heading(heading), *md.table(*table(report, name)), ""]
    lines += md.bullets(_reasons(report))
    lines += md.section("Protocol", (f"{name}: {about}" for name, about in _protocol(report).items()))
    lines += md.section("Models", (f"{name}: {listed(own)}" for name, own in report["models"].items()))
    return md.document(lines + methods_markdown(report))


def _protocol(report: Report) -> dict[str, str]:
    data = report["data"]
    versions = ", ".join(f"{name} {version}" for name, version in report["environment"]["versions"].items())
    return report["protocol"] | {
        "data": f"{data['name']} (digest {data['digest']}): {data['users']} users, {data['items']} items, "
        f"{data['interactions']} interactions",
        "seed numbers": ", ".join(map(str, report["seeds"])),
        "software": versions,
    }


def to_html(report: Report) -> str:
    """Return the report as one HTML page."""
    names = headings(report)
    return report_html(
        Page(
            title=report["title"],
            kind="attributes of a recommender's users",
            lead=summary(report),
            levels=LEVELS,
            verdicts={heading: _verdicts(report, name) for name, heading in names.items()},
            charts=[_chart(report, model, name) for name in names for model in report["models"]],
            choosing=CHOOSING,
            legend=[*_reasons(report), LEGEND],
            tables=[_on_page(report, name, heading) for name, heading in names.items()],
            facts={
                "Protocol": _protocol(report),
                "Models": {name: listed(own) for name, own in report["models"].items()},
            },
            methods=methods_of(report),
        )
    )


def _of(report: Report, attribute: str) -> list[Row]:
    return [row for row in report["rows"] if row["attribute"] == attribute]


def _verdicts(report: Report, attribute: str) -> list[Verdict]:
    """Return the verdict of every row but the negative control, in whose permuted values there is nothing to find."""
    return [
        Verdict(
            name=f"{row['model']}: {row['method']}",
            level=verdict(row),
            state=STATES[row["verdict"]],
            sentence=f"Largest leak {_leaks(report, row)}.",
        )
        for row in _of(report, attribute)
        if row["method"] != SHUFFLED
    ]


def _leaks(report: Report, row: Row) -> str:
    return ", ".join(f"{_interval(row['metrics'][f'{surface}_leak'])} on {surface}" for surface in report["surfaces"])


def _on_page(report: Report, attribute: str, heading: str) -> pages.Table:
    head, rows = table(report, attribute)
    columns = [pages.Column(heading=name, words=k < 3) for k, name in enumerate(head)]
    return pages.Table(title=heading, columns=columns, rows=rows, name=1)


def _chart(report: Report, model: str, attribute: str) -> Chart:
    """Return the chart of a model's rows: the largest leak over the surfaces attacked, against utility."""
    facts = report["attributes"][attribute]
    points = [
        Point(
            name=row["method"],
            x=row["metrics"]["ndcg"]["value"],
            y=max(row["metrics"][f"{surface}_leak"]["value"] for surface in report["surfaces"]),
            kind=ORIGINAL if row["method"] == BEFORE else SHOWN if row["verdict"] == NOT_FOUND else UNSHOWN,
        )
        for row in _of(report, attribute)
        if row["model"] == model and row["method"] != SHUFFLED
    ]
    return Chart(
        title=f"{attribute} in {model}",
        x="NDCG",
        y="largest leak (balanced accuracy)",
        points=points,
        band=(None, (facts["chance"] - facts["noise"], facts["chance"] + facts["noise"])),
        band_name="chance, with the spread of guesses that know nothing",
        legend={ORIGINAL: "before any erasure", SHOWN: "not found", UNSHOWN: "found, or cannot tell"},
    )


def write_views(run: Run, report: Report) -> None:
    """Write report.md and report.html."""
    write_text(run.path / "report.md", to_markdown(report))
    write_text(run.path / "report.html", to_html(report))
