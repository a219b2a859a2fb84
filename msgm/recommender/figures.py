"""Figures of a recommender report: time against a refit's, and the course of a stream."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from msgm.markdown import label as plain
from msgm.pictures import figure_png

Row = dict[str, Any]
Colours = dict[str, str]
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
CONTROLS = {"do-nothing": "X", "retrain": "s"}
LEAST_SHARE = 1e-4
"""Of a refit's time: faster answers are drawn here."""


def request_figures(rows: Sequence[Row]) -> dict[str, bytes]:
    """Return the figures of a request's rows as PNG, by caption."""
    colours = _colours(rows)
    drawn = {
        "Seconds of an answer against those of a refit, for a stream per request; on the line both are the "
        "same.": _seconds(rows, colours),
        "Seconds of each request of the stream, first seed.": _stream(rows, colours),
    }
    return {caption: picture for caption, picture in drawn.items() if picture is not None}


def _colours(rows: Sequence[Row]) -> Colours:
    models = list(dict.fromkeys(row["model"] for row in rows))
    return {model: COLOURS[k % len(COLOURS)] for k, model in enumerate(models)}


def _seconds(rows: Sequence[Row], colours: Colours) -> bytes | None:
    shown = [row for row in rows if row["share_of_retraining"] is not None and row["method"] not in CONTROLS]
    if not shown:
        return None
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    refits = [row["refit_seconds"] for row in shown]
    places = [(x, x * max(row["share_of_retraining"], LEAST_SHARE)) for x, row in zip(refits, shown, strict=True)]
    _points(axes, shown, colours, places)
    ends = [min(x for x, _ in places), max(x for x, _ in places)]
    axes.plot(ends, ends, color="#999999", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="seconds of a refit", ylabel="seconds of an answer")
    return figure_png(figure)


def _stream(rows: Sequence[Row], colours: Colours) -> bytes | None:
    shown = [row for row in rows if row["latencies"]]
    if not shown:
        return None
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    for k, row in enumerate(shown):
        seconds = row["latencies"]
        style = ("-", "--", ":", "-.")[k % 4]
        label = plain(f"{row['model']}: {row['method']}")
        axes.plot(range(1, len(seconds) + 1), seconds, style, color=colours[row["model"]], linewidth=1, label=label)
    axes.set(yscale="log", xlabel="request", ylabel="seconds")
    figure.legend(fontsize=6, loc="outside right upper")
    return figure_png(figure)


def _points(axes: Any, rows: Sequence[Row], colours: Colours, places: list[tuple[float, float]]) -> None:
    named: set[str] = set()
    for row, (x, y) in zip(rows, places, strict=True):
        label = plain(row["model"]) if row["model"] not in named else None
        named.add(row["model"])
        marker = CONTROLS.get(row["method"], "o")
        axes.plot(x, y, marker, color=colours[row["model"]], markersize=5, label=label, linestyle="none")
        if row["method"] not in CONTROLS:
            axes.annotate(plain(row["method"]), (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
    axes.figure.legend(fontsize=7, loc="outside right upper")
