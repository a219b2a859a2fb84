"""The chart for choosing a method: a number of forgetting against a number of cost, one point for each row.

Every point is labelled. A label stands at the free place that is nearest to its point; where that is not beside the
point, a line joins the two. The chart grows until there is room for all. Outliers would compress the scale for the
others, so they are drawn at the edge, with their value.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

ORIGINAL, RETRAINED, SHOWN, UNSHOWN = "original", "retrained", "shown", "unshown"
MARKS = {
    ORIGINAL: "the model before forgetting",
    RETRAINED: "retrained without what was to be forgotten",
    SHOWN: "its verdict shows something",
    UNSHOWN: "nothing is shown",
}
"""Kinds of points, with what the legend says of them."""
Range = tuple[float, float]

WIDTH, HEIGHT, ROOM_A_POINT = 440, 300, 10
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 10, 44
LETTER, LINE, LONGEST = 8, 17, 24
"""Of a label: width of a letter, height, and how many letters of a name are shown."""
MARK, NEAR, STEP = 7, 9, 6
FAR = 3
"""Interquartile ranges beyond the quartiles; what lies further away is drawn at the edge."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row: its name, its two numbers, and one of ``MARKS``."""

    name: str
    x: float
    y: float
    kind: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Rows by two numbers.

    Attributes:
        title: of the chart.
        x: what its horizontal axis shows.
        y: what its vertical axis shows.
        points: the rows.
        band: shaded range on each axis; None: the whole axis.
        band_name: label of the shaded range.
        legend: meaning of the kinds of points.
    """

    title: str
    x: str
    y: str
    points: Sequence[Point]
    band: tuple[Range | None, Range | None] | None = None
    band_name: str = "band of retrained models"
    legend: Mapping[str, str] = field(default_factory=lambda: MARKS)

    @property
    def kinds(self) -> list[str]:
        """The kinds of points that it has."""
        found = {point.kind for point in self.points}
        return [kind for kind in MARKS if kind in found]

    def description(self) -> str:
        """Return the chart in words."""
        points = "; ".join(f"{point.name} {point.x:z.3g}, {point.y:z.3g}" for point in self.points)
        shades = [
            f"{axis} {ends[0]:z.3g} to {ends[1]:z.3g}"
            for axis, ends in zip((self.x, self.y), self.band or (), strict=False)
            if ends is not None
        ]
        shaded = f" Shaded, {self.band_name}: {', '.join(shades)}." if shades else ""
        return f"Across: {self.x}. Up: {self.y}. {points}.{shaded}"


class Box(NamedTuple):
    """A rectangle in the chart, in its units; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Return whether both share any point."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Return the point of the rectangle that is nearest to another."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Mark:
    """A drawn point: where it and its label stand, and the line between them, if any."""

    x: float
    y: float
    kind: str
    label: str
    at: Box
    line: tuple[float, float] | None


@dataclass(frozen=True)
class Drawing:
    """A chart as it is drawn, in units of its own."""

    width: int
    height: int
    frame: Box
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[Mark] = field(default_factory=list)
    band: Box | None = None


@dataclass(frozen=True)
class Axis:
    """A scale from values to places in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value is drawn; one outside the axis at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and texts of round values."""
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [(self.place(value), f"{value:z.4g}") for value in values if self.low <= value <= self.high]


def draw(chart: Chart, height: int | None = None) -> Drawing:
    """Return the layout of a chart."""
    height = height or HEIGHT + ROOM_A_POINT * len(chart.points)
    frame = Box(LEFT, TOP, WIDTH - RIGHT, height - BOTTOM)
    band = chart.band or (None, None)
    x = Axis(*_limits([(p.x, p.kind) for p in chart.points], band[0]), frame.left, frame.right)
    y = Axis(*_limits([(p.y, p.kind) for p in chart.points], band[1]), frame.bottom, frame.top)
    marks = _marks(chart.points, x, y, frame)
    if marks is None:
        return draw(chart, height + 8 * LINE)
    return Drawing(WIDTH, height, frame, x.ticks(), y.ticks(), marks, _shaded(chart, x, y, frame))


def _limits(values: Sequence[tuple[float, str]], band: Range | None) -> Range:
    """Return the ends of an axis, so that the band, retrained models and all other points except outliers fit."""
    everything = np.array([value for value, _ in values])
    low, high = np.quantile(everything, [0.25, 0.75])
    reach = FAR * (high - low)
    kept = [value for value, kind in values if kind == RETRAINED or low - reach <= value <= high + reach]
    ends = [*kept, *(band or ())]
    least, most = min(ends), max(ends)
    if least == most == 0:  # rates of which none is seen: there are none below
        return 0.0, 1.0
    room = 0.07 * (most - least) or 0.05 * abs(most) or 1.0
    return float(least - room), float(most + room)


def _shaded(chart: Chart, x: Axis, y: Axis, frame: Box) -> Box | None:
    if chart.band is None:
        return None
    across, up = chart.band
    left, right = map(x.place, across) if across else (frame.left, frame.right)
    bottom, top = map(y.place, up) if up else (frame.bottom, frame.top)
    # A band without width is drawn as a line.
    return Box(left, top, max(right, left + 1.5), max(bottom, top + 1.5))


def _marks(points: Sequence[Point], x: Axis, y: Axis, frame: Box) -> list[Mark] | None:
    """Return all points with their labels; None where there is no room."""
    places = [(x.place(point.x), y.place(point.y)) for point in points]
    taken = [Box(px - MARK, py - MARK, px + MARK, py + MARK) for px, py in places]
    marks = []
    for point, (px, py) in sorted(zip(points, places, strict=True), key=lambda pair: pair[1]):
        text = _label(point, x, y)
        size = (LETTER * (_letters(text) + 1), LINE)
        free = (box for box in _candidates(px, py, size, frame) if not any(box.meets(other) for other in taken))
        at = next(free, None)
        if at is None:
            return None
        taken.append(at)
        end = at.nearest(px, py)
        far = np.hypot(end[0] - px, end[1] - py) > NEAR
        marks.append(Mark(px, py, point.kind, text, at, end if far else None))
    return marks


def _candidates(x: float, y: float, size: tuple[float, int], frame: Box) -> Iterator[Box]:
    """Return all places of a label in the frame, the nearest to the point first, right of it before others."""
    width, height = size
    lefts = np.arange(frame.left + (x + MARK - frame.left) % STEP, frame.right - width, STEP)
    tops = np.arange(frame.top + (y - height / 2 - frame.top) % STEP, frame.bottom - height, STEP)
    left, top = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    away = np.hypot(x - np.clip(x, left, left + width), y - np.clip(y, top, top + height))
    beside = np.abs(top + height / 2 - y) / height + (left < x)
    for k in np.argsort(away + beside, kind="stable"):
        yield Box(float(left[k]), float(top[k]), float(left[k] + width), float(top[k] + height))


def _label(point: Point, x: Axis, y: Axis) -> str:
    """Return a point's name, shortened in its middle if need be, and its numbers where they lie outside the chart."""
    name, cut = point.name, 0
    while _letters(name) > LONGEST:
        cut += 1
        half = (len(point.name) - cut) // 2
        name = f"{point.name[:half]}…{point.name[-half:]}"
    beyond = [
        f"{value:z.3g}{arrows[value > axis.high]}"
        for value, axis, arrows in ((point.x, x, "←→"), (point.y, y, "↓↑"))
        if not axis.low <= value <= axis.high
    ]
    return f"{name} ({', '.join(beyond)})" if beyond else name


def _letters(text: str) -> float:
    """Return the width of a text, in letters."""
    wide = dict.fromkeys("MWmw@%", 1.6)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else wide.get(letter, 1) for letter in text)
