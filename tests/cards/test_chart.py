"""The chart of what forgetting costs: every point is labelled, no label lies on another, and the band is drawn."""

import math
import random

import pytest

from msgm.cards.chart import (
    LONGEST,
    ORIGINAL,
    RETRAINED,
    SHOWN,
    UNSHOWN,
    Chart,
    Point,
    draw,
)


def chart(points, **changed):
    return Chart(title="t", x="cost", y="left", points=[Point(name=n, x=x, y=y, kind=k) for n, x, y, k in points], **changed)  # fmt: skip # noqa: E501


def crowd(count, name="method-{}"):
    draws = random.Random(count)
    return [(name.format(k), draws.gauss(0, 0.01), draws.gauss(0, 0.01), UNSHOWN) for k in range(count)]


@pytest.mark.parametrize(
    "points",
    [
        crowd(1),
        crowd(12),
        crowd(60),
        [("same", 0.5, 0.5, SHOWN)] * 20,
        crowd(8, "a name that is much longer than any label may be {}"),
        crowd(5, "漢字" * 30 + "{}"),
    ],
)
def test_labels_lie_within_the_frame_and_on_nothing_else(points):
    drawing = draw(chart(points))
    boxes = [mark.at for mark in drawing.marks]
    assert len(boxes) == len(points)
    for k, box in enumerate(boxes):
        assert drawing.frame.left <= box.left < box.right <= drawing.frame.right
        assert drawing.frame.top <= box.top < box.bottom <= drawing.frame.bottom
        assert not any(box.meets(other) for other in boxes[k + 1 :])
        assert not any(box.left < m.x < box.right and box.top < m.y < box.bottom for m in drawing.marks)


def test_a_label_away_from_its_point_is_joined_to_it():
    for mark in draw(chart([("same", 0.5, 0.5, SHOWN)] * 12)).marks:
        end = mark.at.nearest(mark.x, mark.y)
        assert mark.line == (end if math.dist(end, (mark.x, mark.y)) > 9 else None)


def test_long_names_keep_both_ends_and_different_names_stay_different():
    names = [f"{'x' * 30}-first", f"{'x' * 30}-second"]
    labels = [mark.label for mark in draw(chart([(name, k, k, SHOWN) for k, name in enumerate(names)])).marks]
    assert len(set(labels)) == 2
    assert all(len(label) <= LONGEST and label.startswith("xx") and "…" in label for label in labels)


def test_a_point_far_outside_stands_at_the_edge_with_its_value_and_the_retrained_model_never_does():
    points = [(f"m{k}", 2 + k / 100, k / 10, UNSHOWN) for k in range(6)]
    marks = {mark.label: mark for mark in draw(chart([*points, ("noise", 11.1, 0.2, UNSHOWN)])).marks}
    assert "noise (11.1→)" in marks
    assert marks["noise (11.1→)"].x == draw(chart(points)).frame.right
    assert "noise" in {mark.label for mark in draw(chart([*points, ("noise", 11.1, 0.2, RETRAINED)])).marks}
    below = draw(chart([*points, ("low", 2, -50, ORIGINAL)]))
    assert "low (-50↓)" in {mark.label for mark in below.marks}


def test_the_band_is_shaded_within_its_ends_and_one_without_width_is_a_line():
    points = [("a", 0.0, 0.0, UNSHOWN), ("b", 1.0, 1.0, UNSHOWN)]
    drawing = draw(chart(points, band=((0.0, 1.0), (0.5, 0.5))))
    places = {mark.label: (mark.x, mark.y) for mark in drawing.marks}
    assert (drawing.band.left, drawing.band.right) == pytest.approx((places["a"][0], places["b"][0]))
    assert drawing.band.top == pytest.approx((places["a"][1] + places["b"][1]) / 2)
    assert 0 < drawing.band.bottom - drawing.band.top < 2
    across = draw(chart(points, band=(None, (0.2, 0.4)))).band
    assert (across.left, across.right) == (drawing.frame.left, drawing.frame.right)
    assert draw(chart(points)).band is None


def test_the_axis_holds_the_band():
    drawing = draw(chart([("a", 0.0, 0.0, UNSHOWN)], band=((-5.0, 5.0), (0.0, 9.0))))
    assert drawing.frame.left < drawing.band.left < drawing.band.right < drawing.frame.right
    assert [text for _, text in drawing.x_ticks] == ["-5", "0", "5"]


def test_a_description_says_what_the_chart_shows():
    text = chart([("a", 0.5, 0.25, SHOWN)], band=((0.0, 1.0), None)).description()
    assert text == "Across: cost. Up: left. a 0.5, 0.25. Shaded, band of retrained models: cost 0 to 1."


def test_rates_of_which_none_is_seen_have_an_axis_from_zero():
    found = draw(chart([("a", 1.0, 0.0, SHOWN), ("b", 2.0, 0.0, UNSHOWN)]))
    assert found.y_ticks[0][1] == "0"
