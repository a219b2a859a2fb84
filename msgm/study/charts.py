"""Charts of a report's rows by two of their judged numbers."""

from collections.abc import Mapping

from msgm.cards.chart import ORIGINAL, RETRAINED, SHOWN, UNSHOWN, Chart, Point, Range
from msgm.study.judging import Row, entry_of, shown_limits


def chart_of(title: str, rows: Mapping[str, tuple[Row, str]], x: tuple[str, str], y: tuple[str, str]) -> Chart:
    """Return the chart of the rows that have both numbers.

    Args:
        title: of the chart.
        rows: by the name that is shown, each with its kind.
        x: number of the horizontal axis, and its label.
        y: of the vertical axis.
    """
    points: list[Point] = []
    bands: list[tuple[Range, Range]] = []
    for name, (row, kind) in rows.items():
        across, up = entry_of(row, x[0]), entry_of(row, y[0])
        if across is None or up is None or across["value"] is None or up["value"] is None:
            continue
        points.append(Point(name=name, x=across["value"], y=up["value"], kind=kind))
        if across["band"] and up["band"]:
            bands.append((shown_limits(across, across["band"]), shown_limits(up, up["band"])))
    return Chart(title=title, x=x[1], y=y[1], points=points, band=bands[0] if bands else None)


def kind_of(method: str, level: str) -> str:
    """Return the kind of a row's point, by its method and the level it reached."""
    return {"do-nothing": ORIGINAL, "retrain": RETRAINED}.get(method, UNSHOWN if level == "C0" else SHOWN)
