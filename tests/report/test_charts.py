import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.report.charts import WIDTH, Series, bar_chart, heat_map, interval_chart, line_chart, scatter_chart

NUMBERS = st.floats(-1e12, 1e12)
NASTY = "<script>alert('x')</script> & \""


def parse(markup: str) -> ET.Element:
    return ET.fromstring(f"<div>{markup}</div>")


@given(points=st.lists(st.tuples(NUMBERS, st.floats()), max_size=8), log=st.booleans())
def test_any_numbers_make_well_formed_lines(points: list[tuple[float, float]], log: bool) -> None:
    parse(line_chart([Series("a", points), Series("b", [])], "x", "y", log))


@given(values=st.lists(NUMBERS, max_size=50))
def test_any_numbers_make_well_formed_bars(values: list[float]) -> None:
    parse(bar_chart(values, [str(i) for i in range(len(values))], "y"))


@given(points=st.lists(st.tuples(st.sampled_from("abc"), NUMBERS, NUMBERS), max_size=6))
def test_any_numbers_make_well_formed_dots(points: list[tuple[str, float, float]]) -> None:
    drawn = parse(scatter_chart(points, ["a"], "x", "y"))
    assert len([part for part in drawn.iter() if part.tag.endswith("circle")]) == len(points)


@given(rows=st.lists(st.lists(NUMBERS, min_size=3, max_size=3), max_size=5))
def test_any_numbers_make_well_formed_maps(rows: list[list[float]]) -> None:
    parse(heat_map(rows, "x", "y"))


def test_text_is_escaped() -> None:
    charts = [
        line_chart([Series(NASTY, [(0, 1), (1, 2)])], NASTY, NASTY),
        bar_chart([1, 2], [NASTY, "b"], NASTY),
        interval_chart([(NASTY, 1, 0, 2)], NASTY),
        heat_map([[1, 2]], NASTY, NASTY),
        scatter_chart([(NASTY, 1, 2)], [NASTY], NASTY, NASTY),
    ]
    for chart in charts:
        assert "<script" not in chart
        parse(chart)


def test_points_are_drawn_at_their_values() -> None:
    root = parse(line_chart([Series("a", [(0, 1.0), (5, 10.0), (10, 100.0)])], "x", "y", log_y=True))
    line = next(element for element in root.iter("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.1)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert points[0][1] > points[2][1]  # more is higher up


def test_what_a_logarithm_cannot_show_is_left_out() -> None:
    root = parse(line_chart([Series("a", [(0, 0.0), (1, 1.0), (2, math.nan), (3, 2.0)])], "x", "y", log_y=True))
    assert len(next(root.iter("polyline")).get("points", "").split()) == 2


def test_a_chart_without_data_says_so() -> None:
    for chart in (line_chart([], "x", "y"), bar_chart([], [], "y"), interval_chart([], "x"), heat_map([], "x", "y")):
        assert "nothing to draw" in chart


def texts(markup: str) -> list[tuple[float, float, float, float, str]]:
    """Where each horizontal text lies: left, right, top, bottom, text, by an estimate of 6.5 pixels a character."""
    boxes = []
    for one in parse(markup).iter("text"):
        if one.get("transform") is None and one.text:
            width = 6.5 * len(one.text)
            left = (
                float(one.get("x", 0))
                - {"start": 0, "middle": width / 2, "end": width}[one.get("text-anchor", "start")]
            )
            bottom = float(one.get("y", 0))
            boxes.append((left, left + width, bottom - 9, bottom + 3, one.text))
    return boxes


CHARTS = {
    "eleven decades": line_chart(
        [Series("a", [(i, 10.0 ** (i - 13)) for i in range(12)])], "tokens", "loss", log_y=True
    ),
    "close values": line_chart([Series("a", [(0, 1000.1), (1, 1000.3)])], "tokens", "loss"),
    "one point": line_chart([Series("a", [(2016, 0.5)])], "tokens", "loss", log_y=True),
    "many bars": bar_chart([float(i) for i in range(126)], [str(i) for i in range(126)], "influence", "layer"),
    "many heads": heat_map([[float(i * j) for i in range(64)] for j in range(80)], "head", "layer"),
    "one head": heat_map([[1.0]], "head", "layer"),
    "long names": interval_chart([("a very long name " * 9, 1, 0, 2), ("b", 0, 0, 0)], "KL"),
    "bytes": scatter_chart([("a", 3.41e9, 1e-5), ("b", 3.42e9, 2e-5)], ["a"], "file, bytes", "kl"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_no_text_runs_over_another_or_out_of_the_picture(name: str) -> None:
    boxes = texts(CHARTS[name])
    for i, (left, right, top, bottom, text) in enumerate(boxes):
        assert left >= 0, text
        assert right <= WIDTH, text
        for other in boxes[i + 1 :]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top, (text, other[4])


def test_ticks_leave_room_for_the_label_of_the_axis() -> None:
    for name in ("eleven decades", "close values", "many bars", "bytes", "many heads"):
        ticks = [one for one in parse(CHARTS[name]).iter("text") if one.get("text-anchor") == "end"]
        assert ticks
        assert min(float(one.get("x", 0)) - 6.5 * len(one.text or "") for one in ticks) >= 18, name
