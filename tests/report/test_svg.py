"""Charts: places, ticks and samples worked out by hand."""

import re

import pytest
from page_rules import Markup

from alignment.report.lineage import Box, draw_lineage
from alignment.report.svg import HEIGHT, WIDTH, downsample, line_chart, make_log_ticks, make_ticks


def test_ticks_are_round_and_cover_the_values() -> None:
    assert make_ticks(0, 4) == [0, 1, 2, 3, 4]
    assert make_ticks(0.3, 3.1) == [0, 1, 2, 3, 4]
    assert make_ticks(1, 300) == [0, 100, 200, 300]
    assert make_ticks(-7, 11) == [-10, -5, 0, 5, 10, 15]
    assert make_log_ticks(0.2, 30) == [0.1, 1, 10, 100]
    assert make_log_ticks(10, 10) == [10, 100]


def test_the_highest_and_lowest_point_survive_downsampling_in_order() -> None:
    points = [(x, 0.0) for x in range(10_000)]
    points[3333] = (3333, 9.0)
    points[7777] = (7777, -9.0)
    kept = downsample(points, 400)
    assert len(kept) <= 400
    assert kept == sorted(kept)
    assert {(0, 0.0), (3333, 9.0), (7777, -9.0), (9999, 0.0)} <= set(kept)
    assert downsample(points[:400], 400) == points[:400]


def test_a_line_runs_from_corner_to_corner_of_its_axes() -> None:
    drawn = line_chart({"loss": [(0, 0.0), (10, 4.0)]}, "Loss")
    # Left 50, right 12, top 10, bottom 26.
    assert f'd="M50 {HEIGHT - 26}L{WIDTH - 12} 10"' in drawn


def test_on_a_log_scale_equal_ratios_are_equal_distances() -> None:
    drawn = line_chart({"norm": [(0, 1.0), (1, 10.0), (2, 100.0)]}, "Norm", log=True)
    (path,) = re.findall(r'class="line c0" d="(.*?)"', drawn)
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2])
    assert {"1", "10", "100"} <= set(Markup(drawn).texts)


def test_a_log_scale_is_given_up_for_values_that_have_no_logarithm() -> None:
    points = [(0, 0.0), (1, 10.0)]
    assert line_chart({"n": points}, "N", log=True) == line_chart({"n": points}, "N")


def test_points_that_are_not_finite_are_left_out() -> None:
    points = [(0, 1.0), (1, float("nan")), (2, float("inf")), (3, 2.0)]
    drawn = line_chart({"loss": points}, "Loss")
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert drawn.count("<circle") == 2


@pytest.mark.parametrize("points", [[(5, 3.0)], [(0, 2.0), (9, 2.0)], [(0, 0.0), (1, 0.0)], [(0, -1e-9), (1, 1e9)]])
def test_one_point_and_constant_values_have_a_chart(points) -> None:
    assert "<svg" in line_chart({"x": points}, "X")


def test_no_values_say_so() -> None:
    assert "No values" in line_chart({"loss": []}, "Loss")


def test_values_and_the_course_of_a_line_are_told_without_seeing_it() -> None:
    markup = Markup(line_chart({"a<b": [(1, 2.5), (2, 1.25)], "c": [(1, 3.0)]}, "Loss"))
    assert "step 1 · a<b 2.500" in markup.texts
    assert markup.all("svg")[0]["aria-label"] == "Loss: a<b from 2.500 to 1.250; c from 3.000 to 3.000"


def test_several_lines_have_a_legend_that_stays_inside_the_picture() -> None:
    names = [f"rewards/a_long_name_{number}" for number in range(5)]
    drawn = line_chart({name: [(0, 1.0), (1, 2.0)] for name in names}, "R")
    assert all(name in Markup(drawn).texts for name in names)
    places = [(float(x), len(name)) for x, name in re.findall(r'class="legend" x="([\d.]+)" y="[\d.]+">([^<]+)', drawn)]
    assert len(places) == 5
    assert all(x + 6.7 * length <= WIDTH for x, length in places)


def test_lineage_places_a_run_after_all_that_it_is_made_from() -> None:
    boxes = {name: Box(name) for name in ("raw", "pretrain", "sft", "dpo")}
    drawn = draw_lineage(boxes, [("raw", "pretrain"), ("pretrain", "sft"), ("sft", "dpo"), ("pretrain", "dpo")])
    wide = drawn.split('<div class="narrow')[0]
    xs = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', wide)]
    assert xs == sorted(set(xs))
    assert wide.count('class="edge"') == 4


def test_an_edge_that_passes_a_column_of_lineage_runs_beside_its_boxes() -> None:
    boxes = {name: Box(name) for name in ("sft", "reward", "dpo", "ppo", "evaluate")}
    edges = [
        ("sft", "reward"),
        ("sft", "dpo"),
        ("sft", "ppo"),
        ("reward", "ppo"),
        ("dpo", "evaluate"),
        ("sft", "evaluate"),
    ]
    wide, narrow = draw_lineage(boxes, edges).split('<div class="narrow')
    for drawn, across in ((wide, True), (narrow, False)):
        corners = [tuple(map(float, found)) for found in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', drawn)]
        lanes = [tuple(map(float, found)) for found in re.findall(r"([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)C", drawn)]
        assert len(lanes) == 2
        for x1, y1, x2, y2 in lanes:
            assert (y1 == y2 and x2 - x1 == 116) if across else (x1 == x2 and y2 - y1 == 50)
            assert not any(x <= x1 <= x + 116 and y <= y1 <= y + 50 for x, y in corners)
