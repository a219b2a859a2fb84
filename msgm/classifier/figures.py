"""Figures of a classifier report: distances of the numbers from the band, and time against closeness to retraining."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from msgm.markdown import label as plain
from msgm.pictures import figure_png
from msgm.study.judging import inside_share

Row = dict[str, Any]
FAR = 10
"""Distances beyond so many band half-widths are drawn alike."""
BAND, CONTROL = "#009E73", "#000000"
COLOURS = ("#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")


def report_figures(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return a request's figures as PNG, by caption."""
    drawn = {
        "Distance from the middle of the band in half-widths of it, seed means: white is inside, dark is far outside. "
        "Numbers that are not judged are left out.": _strips(rows),
        "Share of numbers inside the band against time as a share of retraining's.": _times(rows),
    }
    return {caption: picture for caption, picture in drawn.items() if picture is not None}


def test_accuracy_of(rows: Sequence[Row]) -> str:
    """Return the name of the test accuracy to show: that of retained classes if a class is forgotten."""
    name = "test_accuracy_retained"
    by_class = any((row["metrics"].get(name) or {}).get("value") is not None for row in rows)
    return name if by_class else "test_accuracy"


def distance(number: dict[str, Any]) -> float:
    """Return how far a number lies from the middle of its band, in half-widths of the band; NaN without a band."""
    band = number["band"]
    if band is None or number["value"] is None:
        return float("nan")
    half, away = (band["high"] - band["low"]) / 2, abs(number["value"] - band["mean"])
    if half <= 0:
        return 0.0 if away < 1e-12 else float("inf")
    return float(away / half)


def _strips(rows: Sequence[Row]) -> bytes | None:
    sections = ("utility", "forgetting", "privacy", "residue")
    numbers = {name: m["section"] for row in rows for name, m in row["metrics"].items() if m["place"] is not None}
    names = sorted(numbers, key=lambda name: sections.index(numbers[name]))
    if not names:
        return None
    values = np.array([[distance(row["metrics"][n]) if n in row["metrics"] else np.nan for n in names] for row in rows])
    figure = Figure(figsize=(2.4 + 0.24 * len(names), 2.4 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = ListedColormap(["#ffffff", "#fde0c5", "#f8b58b", "#e98b5b", "#c5532c", "#7f2704"]).with_extremes(
        bad="#e4e8ec"
    )
    steps = np.digitize(np.minimum(np.nan_to_num(values, nan=0.0, posinf=FAR), FAR), [1, 1.5, 2.5, 5, FAR])
    axes.pcolormesh(np.ma.masked_array(steps, np.isnan(values)), cmap=colours, vmin=0, vmax=5, edgecolors="#e4e8ec")
    axes.set_xticks(np.arange(len(names)) + 0.5, list(map(plain, names)), rotation=90, fontsize=7)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [plain(row["method"]) for row in rows], fontsize=8)
    axes.invert_yaxis()
    for k in range(1, len(names)):
        if numbers[names[k]] != numbers[names[k - 1]]:
            axes.axvline(k, color=CONTROL, linewidth=1)
    return figure_png(figure)


def _times(rows: Sequence[Row]) -> bytes | None:
    pairs = [(row, inside_share(row)) for row in rows if row["share_of_retraining"] is not None]
    shown = [(row, share) for row, share in pairs if share is not None]
    if not shown:
        return None
    figure = Figure(figsize=(6.8, 4), layout="constrained")
    axes = figure.subplots()
    least = 1e-3
    places = [[max(row["share_of_retraining"], least), share] for row, share in shown]
    _points(axes, [row for row, _ in shown], places)
    axes.axvline(1, color=BAND, linewidth=1)
    axes.set(xscale="log", xlabel="seconds, as a share of retraining's", ylabel="share of numbers inside the band")
    return figure_png(figure)


def _points(axes: Any, rows: Sequence[Row], places: list[list[float]]) -> None:
    """Draw a point for each row, identified by colour and shape, as labels beside the points would overlap."""
    looks = cycle((colour, mark) for mark in "o^Dv" for colour in COLOURS)
    for row, (x, y) in zip(rows, places, strict=True):
        control = row["family"] == "none" or row["method"] == "retrain"
        colour, mark = (CONTROL, "X" if row["method"] == "retrain" else "s") if control else next(looks)
        axes.plot(x, y, mark, color=colour, markersize=5, alpha=0.9, linestyle="none", label=plain(row["method"]))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
