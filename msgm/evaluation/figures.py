"""Figures of report cards and of the report: small, labelled, and of one colour a row everywhere.

The colours are Okabe and Ito's, which the colour-blind tell apart; line styles and markers differ too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.evaluation.arrays import read_arrays
from msgm.evaluation.ladder import measured_by, reason_untested, references
from msgm.evaluation.metrics.base import Report, Row
from msgm.evaluation.metrics.likelihood import VALUES
from msgm.folders import inside
from msgm.markdown import label as plain
from msgm.pictures import figure_png
from msgm.runs import Run

FIGURES = {
    "samples": "Samples, the first ones drawn, not chosen.",
    "course": "Unlearning ratio (UR) and junk rate in the course of the run, with 95% intervals.",
    "likelihoods": "NLL of real items to retain and to forget, under the base and under this model. A higher NLL is no "
    "evidence that items are not generated.",
    "relearning": "Relearning: UR after steps of fine-tuning on a few items to forget, beside the reference rows.",
    "neighbours": "Samples (top), their nearest training items to forget (middle) and to retain (bottom).",
    "memorisation": "Distances to the nearest training item: samples beside held-out real items, the control. Samples "
    "that lie nearer than the control may repeat training items.",
}
"""Captions of a card's figures, in their order."""

BASE, RETRAIN, RANDOM = "#000000", "#0072B2", "#999999"
OTHERS = ("#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^v"
CONTROL = "#999999"
Style = dict[str, Any]


def row_styles(report: Report) -> dict[str, Style]:
    """Return each row's colour, dashes and marker."""
    found = references(report)
    fixed = {row["name"]: RETRAIN for row in found.retrains}
    fixed |= {row["name"]: colour for row, colour in ((found.base, BASE), (found.random, RANDOM)) if row is not None}
    others = [row["name"] for row in report["rows"] if row["name"] not in fixed]
    styles = {name: {"color": colour, "linestyle": "-", "marker": "o"} for name, colour in fixed.items()}
    for k, name in enumerate(others):
        lap = k // len(OTHERS)
        dashes, marker = DASHES[lap % len(DASHES)], MARKERS[(lap + 1) % len(MARKERS)]
        styles[name] = {"color": OTHERS[k % len(OTHERS)], "linestyle": dashes, "marker": marker}
    return styles


def card_figures(run: Run, report: Report, row: Row) -> dict[str, bytes]:
    """Return the card's figures as PNG, by name; those without data are missing."""
    draw: dict[str, Callable[[Run, Report, Row], bytes | None]] = {
        "samples": _samples,
        "course": _course,
        "likelihoods": _likelihoods,
        "relearning": _relearning_of_row,
        "neighbours": _neighbours,
        "memorisation": _memorisation,
    }
    pictures = {name: draw[name](run, report, row) for name in FIGURES}
    return {name: picture for name, picture in pictures.items() if picture is not None}


def report_figures(report: Report) -> dict[str, bytes]:
    """Return the figures that compare all rows, by caption."""
    found = {}
    rated = [row for row in report["rows"] if measured_by(row, "ur")]
    if rated:
        found["Unlearning ratio and junk rate with 95% intervals; dashed: what real items to retain score."] = _rates(
            report, rated
        )
    relearnt = [row for row in report["rows"] if reason_untested(row, "relearning") is None]
    if relearnt:
        found["Relearning: UR after steps of fine-tuning on a few items to forget."] = _relearning(report, relearnt)
    return found


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _samples(run: Run, report: Report, row: Row) -> bytes | None:
    path = inside(run.path, row["grid"], "rows[].grid of the report")
    return path.read_bytes() if path.is_file() else None


def _curve(axes: Any, points: list[dict[str, Any]], key: str, style: Style, label: str) -> None:
    """Draw a rate of a curve's points as per cent, with its interval as a band."""
    steps = [point["step"] for point in points]
    value, low, high = ([100 * point[key][end] for point in points] for end in ("value", "low", "high"))
    axes.plot(steps, value, label=plain(label), markersize=4, linewidth=1.5, **style)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _course(run: Run, report: Report, row: Row) -> bytes | None:
    if reason_untested(row, "course") is not None:
        return None
    figure, style = _figure(6.4, 2.6), row_styles(report)[row["name"]]
    base = references(report).base
    before = [_point(base, 0)] if row["start"] == "finetune" and base is not None and measured_by(base, "ur") else []
    titles = {"unlearning_ratio": "UR (% of samples)", "junk_rate": "junk (% of samples)"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        _curve(axes, [*before, *row["course"]["curve"]], key, style, row["name"])
        axes.set(xlabel="steps" + (" (0: the base)" if before else ""), ylabel=title)
        axes.set_ylim(bottom=0)
        _plain(axes)
    return figure_png(figure)


def _point(row: Row, step: int) -> dict[str, Any]:
    """Return the row's own UR and junk rate as a point of a curve."""
    low, high = row["intervals"]["junk_rate"]
    junk = {"value": row["junk_rate"], "low": low, "high": high}
    return {"step": step, "unlearning_ratio": row["unlearning_ratio"], "junk_rate": junk}


def _values(run: Run, row: Row | None) -> dict[str, NDArray[np.float64]] | None:
    """Return each item's NLL, by part; None where they were not kept, or diverged."""
    if row is None or not measured_by(row, "nll") or "folder" not in row:
        return None
    arrays = read_arrays(_folder(run, row) / VALUES)
    if arrays is None or not {"retain", "forget"} <= arrays.keys():
        return None
    found = {part: np.atleast_2d(arrays[part].T).mean(0) for part in ("retain", "forget")}
    return found if all(np.isfinite(values).all() and values.size for values in found.values()) else None


def _likelihoods(run: Run, report: Report, row: Row) -> bytes | None:
    base, styles = references(report).base, row_styles(report)
    shown = {r["name"]: values for r in (base, row) if r is not None and (values := _values(run, r)) is not None}
    if row["name"] not in shown:
        return None
    figure = _figure(6.4, 2.6)
    everything = np.concatenate([part for values in shown.values() for part in values.values()])
    bins = np.linspace(everything.min() - 1e-9, everything.max() + 1e-9, 40)
    for axes, part in zip(figure.subplots(1, 2, sharex=True), ("retain", "forget"), strict=True):
        for name, values in shown.items():
            filled = name == row["name"]
            axes.hist(
                values[part],
                bins,
                histtype="stepfilled" if filled else "step",
                alpha=0.6 if filled else 1,
                color=styles[name]["color"],
                label=plain(name),
            )
        axes.set(title=f"items to {part}", xlabel=f"NLL ({row['nll']['unit']})", ylabel="items")
        axes.legend(frameon=False, fontsize=8)
        _plain(axes)
    return figure_png(figure)


def _relearning_of_row(run: Run, report: Report, row: Row) -> bytes | None:
    if reason_untested(row, "relearning") is not None:
        return None
    found = references(report)
    rows = [r for r in (found.base, *found.retrains, found.random, row) if r is not None]
    tested = {r["name"]: r for r in rows if reason_untested(r, "relearning") is None}
    return _relearning(report, list(tested.values()))


def _relearning(report: Report, rows: list[Row]) -> bytes:
    figure, styles = _figure(6.4, 3), row_styles(report)
    axes = figure.subplots()
    for row in rows:
        _curve(axes, row["relearning"]["curve"], "unlearning_ratio", styles[row["name"]], row["name"])
    axes.set(xlabel="steps of relearning", ylabel="UR (% of samples)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _plain(axes)
    return figure_png(figure)


def _folder(run: Run, row: Row) -> Path:
    """Return where the row's own pictures and arrays lie."""
    return inside(run.path, row.get("folder", "."), "rows[].folder of the report")


def _neighbours(run: Run, report: Report, row: Row) -> bytes | None:
    if reason_untested(row, "neighbours") is not None or row["neighbours"].get("picture") is None:
        return None
    path = inside(_folder(run, row), row["neighbours"]["picture"], "rows[].neighbours.picture of the report")
    return path.read_bytes() if path.is_file() else None


def _memorisation(run: Run, report: Report, row: Row) -> bytes | None:
    if reason_untested(row, "neighbours") is not None:
        return None
    colour = row_styles(report)[row["name"]]["color"]
    figure = _figure(6.4, 2.2)
    for axes, part in zip(figure.subplots(1, 2), ("retain", "forget"), strict=True):
        found = row["neighbours"][part]
        lines = {"held-out": (found["control"], CONTROL), "samples": (found["samples"], colour)}
        for height, (quantiles, shade) in enumerate(lines.values()):
            if quantiles is not None:
                _spread(axes, quantiles, height, shade)
        axes.set(title=f"to training items to {part}", xlabel="Euclidean distance in pixels", ylim=(-0.6, 1.6))
        axes.set_yticks(range(len(lines)), lines)
        axes.set_xlim(left=0)
        _plain(axes)
    return figure_png(figure)


def _spread(axes: Any, quantiles: dict[str, float], height: int, colour: str) -> None:
    """Draw quantiles: 5 to 95% as a line, 25 to 75% as a bar, the median and the lowest 1% as marks."""
    axes.hlines(height, quantiles["0.05"], quantiles["0.95"], color=colour, linewidth=1.5)
    axes.hlines(height, quantiles["0.25"], quantiles["0.75"], color=colour, linewidth=9)
    axes.plot(quantiles["0.5"], height, "|", color="white", markersize=9, markeredgewidth=2)
    axes.plot(quantiles["0.01"], height, "x", color=colour, markersize=5)


def _rates(report: Report, rows: list[Row]) -> bytes:
    """Draw the UR and the junk rate of all rows as bars, the first row on top."""
    figure, styles = _figure(7.6, 0.7 + 0.26 * len(rows)), row_styles(report)
    heights = np.arange(len(rows))[::-1]
    titles = {"unlearning_ratio": "UR (% of samples)", "junk_rate": "junk (% of samples)"}
    real = report["real"]
    floors = {"unlearning_ratio": real["unlearning_ratio"]["value"], "junk_rate": real.get("junk_rate")}
    for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        rates = [_point(row, 0)[key] for row in rows]
        value = np.array([100 * rate["value"] for rate in rates])
        ends = [abs(value - [100 * rate[end] for rate in rates]) for end in ("low", "high")]
        colours = [styles[row["name"]]["color"] for row in rows]
        # Pale bars, so that the interval shows on the base's black too.
        axes.barh(heights, value, xerr=ends, color=colours, height=0.7, alpha=0.6, error_kw={"elinewidth": 1})
        if floors[key] is not None:
            axes.axvline(100 * floors[key], color="#444444", linestyle="--", linewidth=1)
        axes.set(xlabel=title)
        axes.set_xlim(left=0)
        _plain(axes)
    figure.axes[0].set_yticks(heights, [plain(row["name"]) for row in rows])
    return figure_png(figure)
