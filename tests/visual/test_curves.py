"""Line charts: well-formed, honest about their points, and never in the way of a report."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.visual.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart(series, title="Loss", x_label="step", y_label="bits"):
    return ElementTree.fromstring(line_chart(series, title=title, x_label=x_label, y_label=y_label))


def lines(root):
    """The points of each line, on paper."""
    return [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in root.iter(f"{SVG}polyline")
    ]


def words(root):
    return [text.text for text in root.iter(f"{SVG}text")]


def test_a_chart_is_an_svg_that_names_what_it_shows():
    root = chart({"training": [(0, 3.0), (10, 2.0)], "validation": [(5, 2.5), (10, 2.25)]})
    assert root.tag == f"{SVG}svg"
    assert root.get("aria-label") == "Loss"
    assert {"Loss", "step", "bits", "training", "validation"} <= set(words(root))
    assert [len(line) for line in lines(root)] == [2, 2]


def test_points_stand_where_the_ticks_say():
    """0 … 10 across and 2 … 3 up are the outermost ticks, so these points are the corners."""
    (line,) = lines(chart({"a": [(0, 2), (10, 3), (5, 2.5)]}))
    assert line[0] == (LEFT, HEIGHT - BOTTOM)
    assert line[1] == (WIDTH - RIGHT, TOP)
    assert line[2] == ((LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2)


def test_titles_and_names_are_escaped():
    nasty = "<b> & \"quotes\" 'too' </text>"
    root = chart({nasty: [(0, 1), (1, 2)]}, title=nasty, x_label=nasty, y_label=nasty)
    assert words(root).count(nasty) == 4
    assert root.get("aria-label") == nasty


def test_values_that_are_not_finite_are_left_out():
    root = chart({"a": [(0, 1.0), (1, math.nan), (2, math.inf), (math.nan, 1), (3, 2.0)], "gone": [(0, -math.inf)]})
    assert [len(line) for line in lines(root)] == [2, 0]
    assert "nan" not in ElementTree.tostring(root, encoding="unicode")


@pytest.mark.parametrize("series", [{}, {"a": []}, {"a": [(0, math.nan)], "b": [(math.inf, 1)]}])
def test_nothing_to_draw_is_refused(series):
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart(series, title="t", x_label="x", y_label="y")


@pytest.mark.parametrize("point", [(0, 0), (7, 2.5), (-3, -1e-9), (1e12, 1e9)])
def test_a_single_point_is_seen(point):
    """A line of one point has no length: it needs a second one, on the same spot, and a round end."""
    root = chart({"a": [point]})
    (line,) = lines(root)
    assert len(line) == 2 and line[0] == line[1]
    assert root.find(f"{SVG}polyline").get("stroke-linecap") == "round"


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=8),
    st.sampled_from([1e-9, 1e-3, 1.0, 1e6]),
)
def test_every_point_stands_inside_the_frame(points, scale):
    for line in lines(chart({"a": [(x * scale, y * scale) for x, y in points]})):
        for x, y in line:
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few(low, span):
    root = chart({"a": [(low, 0), (low + span, 1)]})
    across = [text for text in root.iter(f"{SVG}text") if text.get("y") == str(HEIGHT - BOTTOM + 18)]
    assert 2 <= len(across) <= 8


def test_more_lines_than_colours_are_drawn():
    assert len(lines(chart({str(number): [(0, number), (1, number)] for number in range(9)}))) == 9


NAMES = ["training loss", "validation loss", *(f"run {number} of the sweep, rate 0.0{number}" for number in range(12))]


def legend(root):
    """What each name of the legend takes up: its line of text, and from where to where."""
    found = [text for text in root.iter(f"{SVG}text") if text.get("class") == "legend"]
    return [(float(text.get("y")), float(text.get("x")), float(text.get("x")) + 6 * len(text.text)) for text in found]


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[:5], NAMES, ["a" * 500, "b"]])
def test_names_in_the_legend_neither_overlap_nor_leave_the_picture(names):
    root = chart({name: [(0, 1), (1, 2)] for name in names})
    places = legend(root)
    assert len(places) == len(names)
    assert all(end <= WIDTH for _, _, end in places)
    for i, (y, start, end) in enumerate(places):
        assert all(other != y or low >= end or high <= start for other, low, high in places[:i] + places[i + 1 :])
    top = min(y for line in lines(root) for _, y in line)
    assert max(y for y, _, _ in places) < top  # the chart begins below it
    bottom = max(float(text.get("y")) for text in root.iter(f"{SVG}text") if text.get("y"))
    assert bottom < float(root.get("viewBox").split()[3])


def test_no_two_of_many_lines_look_the_same_and_the_legend_shows_each_as_it_is_drawn():
    root = chart({name: [(0, 1), (1, 2)] for name in NAMES})

    def looks(kind):
        return [(part.get("stroke"), part.get("stroke-dasharray")) for part in root.iter(f"{SVG}{kind}")]

    assert looks("polyline") == looks("path") and len(set(looks("path"))) == len(NAMES)
