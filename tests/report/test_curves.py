"""Every chart draws what its title, caption and axes say: read back from the picture by its ticks."""

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.report import shapes
from prunus.report.charts import Series, line_chart
from prunus.report.curves import composition, curves
from prunus.report.importance import importance
from prunus.report.records import load_run
from tests.report.making import GUIDE, lines, make_run, search, write

SUFFIX = {"k": 1e3, "M": 1e6, "B": 1e9}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def number(text: str) -> float:
    return float(text[:-1]) * SUFFIX[text[-1]] if text[-1] in SUFFIX else float(text)


def read_back(markup: str) -> tuple[dict[str, list[tuple[float, float]]], str, str]:
    """The points of each line of a chart by its name, from their places and the ticks, and the labels of x and y."""
    svg = ET.fromstring(re.match(r"<svg.*?</svg>", markup, re.DOTALL).group())
    texts = [(element.get("class"), element.get("text-anchor"), element) for element in svg.iter("text")]
    labels = [element for kind, _, element in texts if kind == "label"]
    y_label = next(one.text for one in labels if one.get("transform"))
    x_label = next(one.text for one in labels if not one.get("transform"))
    ticks = {
        axis: [
            (float(one.get(axis)), number(one.text)) for kind, side, one in texts if kind == "tick" and side == anchor
        ]
        for axis, anchor in (("x", "middle"), ("y", "end"))
    }
    log = y_label.endswith("log scale")

    def value_of(axis: str, at: float) -> float:
        offset = 4 if axis == "y" else 0
        places, values = zip(*((place - offset, value) for place, value in ticks[axis]), strict=True)
        if axis == "y" and log:
            values = [math.log10(value) for value in values]
        slope, start = np.polyfit(places, values, 1) if len(places) > 1 else (0.0, values[0])
        found = slope * at + start
        return 10**found if axis == "y" and log else found

    found = {}
    for line in svg.iter("polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        found[line.find("title").text] = [(value_of("x", x), value_of("y", y)) for x, y in points]
    return found, x_label, y_label


def trained(root: Path, *values: dict[str, Any], **config: Any) -> dict[str, str]:
    """The charts of a run whose only training has these lines and options, by title."""
    for file in [*root.rglob("correct-*/artifact.json"), *root.rglob("align-*/artifact.json")]:
        file.unlink()
    folder = root / "w" / "distill-00000000"
    write(folder / "metrics.jsonl", lines(*values))
    record = json.loads((folder / "artifact.json").read_text())
    write(folder / "artifact.json", {**record, "config": config})
    return {title: chart for title, _, chart in curves(load_run(root))}


def close(points: list[tuple[float, float]], values: list[tuple[float, float]]) -> bool:
    return all(
        math.isclose(a, b, rel_tol=0.02)
        for one, two in zip(points, values, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_each_term_of_the_loss_has_its_curve(root: Path) -> None:
    values = [
        {"forward_kl": 2.0 / i, "cross_entropy": 4.0 / i, "states": 0.5 / i, "loss": 8.0 / i + 2 / i + 0.5 / i}
        for i in (1, 2, 4)
    ]
    charts = trained(root, *values, **GUIDE)
    titles = {
        "KL(teacher ‖ student) at temperature 2": ("forward_kl", "nats per token, log scale"),
        "Cross-entropy": ("cross_entropy", "nats per token, log scale"),
        "Distance of the hidden states to the teacher's": ("states", "squared error / state's size, log scale"),
        "Training loss: 2² × forward_kl + 0.5 × cross-entropy + 1.0 × states, falling to 0": (
            "loss",
            "loss, log scale",
        ),
    }
    assert list(charts) == list(titles)
    for title, (name, unit) in titles.items():
        drawn, x_label, y_label = read_back(charts[title])
        assert (x_label, y_label) == ("tokens", unit)
        assert close(drawn["w"], [(8.0 * i, line[name]) for i, line in enumerate(values, start=1)])


def test_a_loss_of_one_term_is_drawn_once(root: Path) -> None:
    values = [{"forward_kl": 2.0, "loss": 2.0}, {"forward_kl": 1.0, "loss": 1.0}]
    assert list(trained(root, *values, loss="forward_kl")) == ["KL(teacher ‖ student)"]


def test_a_term_without_a_record_is_drawn_as_the_loss(root: Path) -> None:
    assert list(trained(root, {"loss": 2.0}, loss="forward_kl")) == ["Training loss: forward_kl"]


@pytest.mark.parametrize(
    ("config", "title"),
    [
        ({"top_k": 8}, "KL(teacher ‖ student), over the teacher's top 8 tokens and the rest as one"),
        ({"targets": "cached"}, "KL(teacher ‖ student), over the teacher's stored tokens"),
        ({"teacher_bits": 8}, "KL(teacher ‖ student), to the teacher in 8 bits"),
        ({"data": "student"}, "KL(teacher ‖ student), on the student's own text"),
    ],
)
def test_the_title_of_a_kl_curve_names_its_vocabulary(root: Path, config: dict[str, Any], title: str) -> None:
    assert title in trained(root, {"forward_kl": 2.0, "loss": 2.0}, loss="forward_kl", **config)


def test_online_methods_show_their_reward_and_losses_of_alignment_their_terms(root: Path) -> None:
    found = {title: read_back(chart) for title, _, chart in curves(load_run(root))}
    assert found["Reward of the model's answers, grpo"][2] == "reward"
    assert found["Cross-entropy of the chosen answers"][2] == "nats per token, log scale"
    assert "Training loss: dpo + 0.1 × cross-entropy" in found


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "cross_entropy"),
        ({"loss": "mse", "temperature": 2.0}, "mse"),
        (
            {"loss": "forward_kl", "token_weights": "teacher_entropy"},
            "forward_kl, tokens weighted by the teacher's entropy",
        ),
        ({"loss": "forward_kl", "states": {"weight": "dynamic", "decay": "none"}}, "forward_kl + dynamic × states"),
        ({"method": "distil", "guide": {"loss": "reverse_kl", "temperature": 3.0}}, "3² × reverse_kl"),
        ({"method": "orpo", "odds_weight": 0.2}, "cross-entropy + 0.2 × odds ratio"),
        ({"method": "ipo", "sft_weight": 0.0}, "ipo"),
    ],
)
def test_the_terms_of_a_loss_are_named(config: dict[str, Any], text: str) -> None:
    assert composition(config) == text


def test_importance_in_falling_order_falls(root: Path) -> None:
    charts = {title: (note, chart) for title, note, chart in importance(load_run(root))}
    for title, expected in {
        "Hidden channels": {"channels": [3.0, 2.0, 1.0]},
        "MLP neurons": {"layer 0": [4.0, 1.0], "layer 1": [3.0, 2.0]},
    }.items():
        note, chart = charts[title]
        assert "in falling order" in note
        drawn, x_label, y_label = read_back(chart)
        assert (x_label, y_label) == ("rank", "importance, log scale")
        for name, values in expected.items():
            assert close(drawn[name], [(float(rank), value) for rank, value in enumerate(values, start=1)])


def test_layers_stand_in_their_order(root: Path) -> None:
    title, note, chart = importance(load_run(root))[0]
    assert (title, "from the first layer to the last" in note) == ("Layers", True)
    assert re.findall(r"<title>(.*?)</title>", chart) == ["0: 0.5", "1: 0.1"]


def test_experts_of_a_mixture_are_ranked_together(root: Path) -> None:
    file = root / "teacher" / "score-00000000" / "scores.json"
    scores = json.loads(file.read_text())
    write(file, {**scores, "neurons": [[[1.0, 8.0], [4.0, 2.0]], [[1.0, 1.0], [2.0, 1.0]]]})
    charts = {title: chart for title, _, chart in importance(load_run(root))}
    assert close(read_back(charts["MLP neurons"])[0]["layer 0"], [(1, 8.0), (2, 4.0), (3, 2.0), (4, 1.0)])


def test_the_use_of_experts_has_a_heat_map_if_it_was_scored(root: Path) -> None:
    file = root / "teacher" / "score-00000000" / "scores.json"
    assert "Use of experts" not in {title for title, *_ in importance(load_run(root))}
    write(file, {**json.loads(file.read_text()), "expert_frequency": [[0.5, 0.125], [0.25, 0.75]]})
    charts = {title: chart for title, _, chart in importance(load_run(root))}
    assert all(str(value) in charts["Use of experts"] for value in (0.5, 0.125, 0.25, 0.75))


def test_axes_that_were_not_scored_have_no_chart(root: Path) -> None:
    write(root / "teacher" / "score-00000000" / "scores.json", {"layers": {"block_influence": [0.5, 0.1]}})
    assert [title for title, *_ in importance(load_run(root))] == ["Layers"]


def test_the_best_place_is_on_top_and_called_by_its_number() -> None:
    (_, _, front), (_, _, moved) = shapes.charts(search())
    drawn, _, y_label = read_back(moved)
    assert y_label == "rank, the best on top"
    assert close([(x + 1, y) for x, y in drawn["a"]], [(1, 2), (2, 1), (3, 1)])
    assert close([(x + 1, y) for x, y in drawn["b"]], [(1, 1), (2, 2)])
    tops = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end"', moved)]
    assert tops == sorted(tops)  # 1 stands above 2
    assert "kl after 1k tokens, nats per token" in front


@pytest.mark.parametrize("values", [[0.0, 0.5, 1.0], [0.0, 1.0], [1000.1, 1000.2, 1000.3], [2.0, 2.0], [1e6, 1.0001e6]])
def test_ticks_are_drawn_at_their_values(values: list[float]) -> None:
    points = [(value, value) for value in values]
    drawn, _, _ = read_back(line_chart([Series("a", points)], "x", "y"))
    assert np.allclose(drawn["a"], points, rtol=1e-5, atol=0.01 * (max(values) - min(values)) + 1e-9)
