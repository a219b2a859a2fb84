"""Sweeps of one setting (``msgm compare --sweep``): a table for each row and setting, and a picture of them all.

The tables have the layout of the paper's Table 7, which sweeps alpha of Orthogonal on MNIST; that of ``every`` also
shows each forgotten class, junk left out, and stands for Figure 7 (1 is the paper's "simultaneous", 4 its
"alternating").
"""

from collections.abc import Callable
from typing import Any

from msgm.config import Config
from msgm.evaluation.metrics.base import NOT_MEASURED, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.paper import MEASURES, Line, Measure, Ours, PaperTable, as_table, differing
from msgm.evaluation.published import ALPHA, ALPHA_VALUES
from msgm.markdown import label as plain
from msgm.pictures import figure_png
from msgm.sweep import swept

ALPHA_OF_BOTH = 0.99
ALTERNATION = {"1": " (simultaneous)", "4": " (alternating)"}
PLOTTED: dict[str, Callable[[Row], float]] = {
    "UR %": lambda row: 100 * row["unlearning_ratio"]["value"],
    "junk %": lambda row: 100 * row["junk_rate"],
    "NLL retain": lambda row: float(row["nll"]["retain"]["mean"]),
    "NLL forget": lambda row: float(row["nll"]["forget"]["mean"]),
}


def sweep_tables(config: Config, report: Report) -> list[PaperTable]:
    """Return the tables of the sweeps in a comparison, with the values of Table 7 where the setting is the paper's."""
    ours = Ours(config, report)
    beside = [row for row in report["rows"] if _is_reference(row)]
    return [_table(name, key, rows, beside, ours, report) for (name, key), rows in _sweeps(report).items()]


def _sweeps(report: Report) -> dict[tuple[str, str], dict[str, Row]]:
    """Return, by swept row and setting, the measured rows by value, in order."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in report["rows"]:
        parts = swept(row["name"])
        if parts:
            found.setdefault(parts[:2], {})[parts[2]] = row
    return {sweep: dict(sorted(rows.items(), key=lambda item: _order(item[0]))) for sweep, rows in found.items()}


def _order(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _is_reference(row: Row) -> bool:
    return not swept(row["name"]) and (row["start"] == "none" or row["objective"] == "unseen")


def _is_limit(row: Row, swept_row: Row) -> bool:
    """Return whether a reference row equals the swept row at alpha 1: retain data alone, same start, steps and rate."""
    return row["objective"] == "unseen" and all(row[key] == swept_row[key] for key in ("start", "steps", "lr"))


def _table(name: str, key: str, rows: dict[str, Row], beside: list[Row], ours: Ours, report: Report) -> PaperTable:
    measures = dict(MEASURES)
    if key == "every":
        measures |= {f"share of {forgotten}": _share_of(forgotten) for forgotten in report["judge"]["forgotten"]}
    first = next(iter(rows.values()))
    limit = [row for row in beside if key == "alpha" and _is_limit(row, first)]
    lines = [(value + (ALTERNATION.get(value, "") if key == "every" else ""), row) for value, row in rows.items()]
    lines += [("1.0", row) for row in limit] + [(row["name"], row) for row in beside if row not in limit]
    layout = {"alpha": "Table 7", "every": "Figure 7"}.get(key, "")
    title = f"Sweep of {key}: {name}" + (f" (layout of the paper's {layout})" if layout else "")
    if key == "alpha" and first["objective"] == "orthogonal":
        return as_table(title, layout, key, measures, [_of_table_7(label, row, ours) for label, row in lines])
    source = layout if key == "every" else ""
    return as_table(title, source, key, measures, [Line(label, row, {}, []) for label, row in lines])


def _share_of(forgotten: str) -> Measure:
    def cell(row: Row) -> str:
        histogram = row.get("class_histogram")
        return percent(histogram[forgotten] / sum(histogram.values())) if histogram else NOT_MEASURED

    return Measure(f"{forgotten}, no junk %", cell)


def _of_table_7(label: str, row: Row, ours: Ours) -> Line:
    """Return a line with the paper's values: those of alpha of Orthogonal, whose alpha 1 is Unseen."""
    if row["objective"] not in ("orthogonal", "unseen") or label == row["name"]:
        return Line(label, row, {}, [])
    alpha = float(label)
    changed = {"objective.alpha": alpha} if row["objective"] == "orthogonal" else {}
    wanted = ALPHA.wanted("Ort" if changed else "Unseen") | changed
    remark = ALPHA.remarks["Ort"] if alpha == ALPHA_OF_BOTH else ""
    return Line(label, row, ALPHA_VALUES.get(alpha, {}), differing(wanted, ours.settings(row["name"])), remark)


def sweep_png(report: Report) -> bytes | None:
    """Return a picture of the sweeps, None when there are none: a line of panels a setting, a curve an objective.

    Values are spaced evenly; references are horizontal lines; rows that diverged or were not measured are left out.
    """
    from matplotlib.figure import Figure

    sweeps = _sweeps(report)
    keys = list(dict.fromkeys(key for _, key in sweeps))
    if not keys:
        return None
    figure = Figure(figsize=(3.2 * len(PLOTTED), 2.6 * len(keys) + 0.5), layout="constrained")
    panels = figure.subplots(len(keys), len(PLOTTED), squeeze=False)
    beside = [row for row in report["rows"] if _is_reference(row)]
    colors = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(name for name, _ in sweeps))}
    for key, line in zip(keys, panels, strict=True):
        curves = {name: rows for (name, other), rows in sweeps.items() if other == key}
        for axes, measure in zip(line, PLOTTED, strict=True):
            _draw(axes, key, measure, curves, beside, colors)
    legend = {
        label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend), frameon=False)
    return figure_png(figure)


def _draw(
    axes: Any, key: str, measure: str, curves: dict[str, dict[str, Row]], beside: list[Row], colors: dict[str, str]
) -> None:
    """Draw one panel: a measure against the values of a setting."""
    values = sorted({value for rows in curves.values() for value in rows}, key=_order)
    for name, rows in curves.items():
        axes.plot(
            [values.index(v) for v in rows],
            [_number(measure, row) for row in rows.values()],
            "o-",
            label=plain(name),
            color=colors[name],
        )
    for row, style in zip(beside, ("--", ":", "-."), strict=False):
        axes.axhline(_number(measure, row), color="0.4", linestyle=style, label=plain(row["name"]))
    axes.set(title=measure, xlabel=plain(key), xticks=range(len(values)), xticklabels=list(map(plain, values)))
    axes.margins(x=0.1)


def _number(measure: str, row: Row) -> float:
    """Return the measure of a row, NaN where it is not measured or diverged."""
    try:
        return PLOTTED[measure](row)
    except (KeyError, TypeError):
        return float("nan")
