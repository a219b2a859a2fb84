"""Views of an attribute report: tables for the terminal and Markdown, and a self-contained HTML page with one plot."""

import base64
from typing import Any

from matplotlib.figure import Figure

from msgm import markdown as md
from msgm.cards.pages import listed, methods_markdown, methods_of, template
from msgm.folders import write_text
from msgm.pictures import figure_png
from msgm.recommender.attribute_assemble import FOUND, INCONCLUSIVE, NOT_FOUND, Report
from msgm.recommender.attribute_config import BEFORE, CONTROLS, SHUFFLED
from msgm.recommender.figures import COLOURS
from msgm.recommender.metrics.attribute_attackers import ATTACKERS
from msgm.runs import Run
from msgm.tables import aligned

Row = dict[str, Any]
READING = (
    "Means over seeds, with 95% t-intervals for NDCG and leaks. leak: the attribute guessed by the best attacker who "
    "re-reads his guesses; logistic, mlp, gbdt: their balanced accuracies as they guess, which may fall below chance "
    "where an erasure overshoots. dropped: users whose value is not known. seconds: of the erasure; before and in "
    "training, of the whole fit. reversible: a plug-in that can be taken out again. not found: by these attackers, "
    "among so many users, on surfaces where both controls hold; it is no guarantee. "
    "cannot tell: not found, but the interval of a leak reaches what counts as found."
)
CAPTION = (
    "Utility against leak, the largest over the surfaces attacked; dotted: chance. Crosses: before; further left is "
    "better hidden, further up more useful."
)


def table(report: Report, attribute: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of an attribute's table."""
    head = ["model", "method", "verdict", "NDCG", "Recall"]
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
    """Return a line for every model and attribute: what it is not found after, and where nothing can be said."""
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
    """Print the tables, what they say and how to read them."""
    for name, heading in headings(report).items():
        print(f"\n{md.line(heading)}\n" + "\n".join(aligned(*table(report, name))))
    print("\n" + "\n".join(map(md.line, [*_reasons(report), *summary(report), READING])))


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [*md.section(report["title"], summary(report), level=1), "", md.text(READING)]
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
    """Return the report as one HTML page with its plot inside."""
    return template("msgm.recommender", "attributes.html").render(
        report=report,
        controls=CONTROLS,
        summary=summary(report),
        tables={heading: table(report, name) for name, heading in headings(report).items()},
        notes=[*_reasons(report), READING],
        plot=base64.b64encode(plot(report)).decode(),
        caption=CAPTION,
        protocol=_protocol(report),
        models={name: listed(own) for name, own in report["models"].items()},
        methods=methods_of(report),
    )


def plot(report: Report) -> bytes:
    """Return the plot of NDCG against leak as PNG, a panel for every attribute."""
    attributes = report["attributes"]
    figure = Figure(figsize=(5 * len(attributes) + 1, 4.2), layout="constrained")
    for axes, (name, facts) in zip(
        figure.subplots(1, len(attributes), squeeze=False)[0], attributes.items(), strict=True
    ):
        rows = [row for row in report["rows"] if row["attribute"] == name and row["method"] != SHUFFLED]
        for row in rows:
            _point(axes, report, row)
        axes.axvline(facts["chance"], color="#999999", linewidth=0.8, linestyle=":")
        axes.set(title=md.label(name), xlabel="leak", ylabel="NDCG")
    handles = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), fontsize=7, loc="outside right upper")
    return figure_png(figure)


def _point(axes: Any, report: Report, row: Row) -> None:
    place = (
        max(row["metrics"][f"{surface}_leak"]["value"] for surface in report["surfaces"]),
        row["metrics"]["ndcg"]["value"],
    )
    colour = COLOURS[list(report["models"]).index(row["model"]) % len(COLOURS)]
    before = row["method"] == BEFORE
    axes.plot(
        *place, "X" if before else "o", color=colour, markersize=5, label=md.label(row["model"]), linestyle="none"
    )
    if not before:
        axes.annotate(md.label(row["method"]), place, xytext=(3, 3), textcoords="offset points", fontsize=6)


def write_views(run: Run, report: Report) -> None:
    """Write report.md and report.html."""
    write_text(run.path / "report.md", to_markdown(report))
    write_text(run.path / "report.html", to_html(report))
