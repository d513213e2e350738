import json
from pathlib import Path
from typing import Any

import pytest

from prunus.report.records import Run, load_run
from prunus.report.step import write_report
from prunus.report.tasks import MISSING, NOISE, differences, notes, parts, scores, sizes, speed


def figure(value: float, half: float, difference: tuple[float, float, float] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"value": value, "low": value - half, "high": value + half}
    if difference:
        found["difference"] = dict(zip(("value", "low", "high"), difference, strict=True))
    return found


def task(first: str, **metrics) -> dict[str, Any]:
    return {"first": first, "generates": False, "metrics": metrics}


TEACHER = {
    "mmlu": task("acc", acc=figure(0.653, 0.01), chance=figure(0.25, 0)),
    "mt": {
        **task("judge", judge=figure(7.78, 0.3)),
        "groups": {"roleplay": {"metrics": {"judge": figure(8, 1)}}, "math": {"metrics": {"judge": figure(6, 1)}}},
    },
}
STUDENT = {
    "mmlu": task("acc", acc=figure(0.605, 0.01, (-0.048, -0.06, -0.03))),
    "mt": {
        **task("judge", judge=figure(7.7, 0.3, (-0.08, -0.4, 0.2))),
        "judge": {"asked": 9, "graded": 7, "malformed": 1, "failed": 1, "hole": None},
        "groups": {"roleplay": {"metrics": {"judge": figure(7, 1)}}, "math": {"metrics": {}}},
    },
    "rag": {"hole": "no data"},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run of which only the records are there."""
    steps = []
    for subject, tasks in (("teacher", TEACHER), ("phi", STUDENT)):
        folder = tmp_path / subject / "evaluate"
        folder.mkdir(parents=True)
        own = {"nll": figure(1, 0.1), "perplexity": figure(2, 0.1), "bits_per_byte": figure(1, 0.1)}
        facts = {"parameters": 8_030_261_248, "non_embedding_parameters": 1, "figures": own, "tasks": tasks}
        speed = {"model": {"parameters": 1, "bytes": 2, "kv_bytes_per_token": 3}}
        (folder / "results.json").write_text(json.dumps({**facts, "efficiency": speed, "warnings": []}))
        (folder / "answers.jsonl").write_text("")
        record = {"seconds": 1, "peak_memory_bytes": {"process": 1}, "files": {}, "hardware": "x", "versions": {}}
        (folder / "artifact.json").write_text(json.dumps({**record, "metrics": {}, "config": {}}))
        steps.append({"subject": subject, "label": "evaluate", "kind": "evaluate", "folder": f"{subject}/evaluate"})
    manifest = {"name": "run", "recipe": {"evaluate": {"confidence": 0.95}}, "steps": steps}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.fixture
def run(root: Path) -> Run:
    return load_run(root)


def test_scores_have_intervals_and_holes(run: Run) -> None:
    table = scores(run)
    assert table.header == ("model", "mmlu (acc)", "mt (judge)", "rag")
    assert table.rows[:2] == [
        ["teacher", "65.3 ± 1.0", "7.8 ± 0.3", MISSING],
        ["phi: reference", "60.5 ± 1.0", "7.7 ± 0.3", MISSING],
    ]
    assert table.rows[2] == ["by chance", "25.0", "", ""]


def test_published_figures_are_shown_and_marked(run: Run, root: Path) -> None:
    rows = {row[0]: row[1:] for row in scores(run).rows}
    assert rows["Minitron 4B width, by NVIDIA"] == ["60.5", "", ""]
    file = root / "teacher" / "evaluate" / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "parameters": 7}))
    assert len(scores(load_run(root)).rows) == 3


def test_differences_that_may_be_noise_are_marked(run: Run) -> None:
    assert differences(run).rows == [["phi: reference", "-4.8 [-6.0, -3.0]", f"-0.1 [-0.4, +0.2] {NOISE}", ""]]


def test_parts_are_shown_apart(run: Run) -> None:
    ((name, table),) = parts(run)
    assert (name, table.header) == ("mt", ("model", "roleplay", "math"))
    assert table.rows == [["teacher", "8.0 ± 1.0", "6.0 ± 1.0"], ["phi: reference", "7.0 ± 1.0", MISSING]]


def test_missing_answers_and_grades_are_reported(run: Run, root: Path) -> None:
    assert notes(run) == [
        "phi: reference: mt has 7 of 9 grades: 1 verdicts without a grade, 1 failed requests",
        "phi: reference: rag has no score: no data",
    ]
    page = write_report(root, root / "report.html").read_text()
    for part in ("mt: its parts", "by NVIDIA", "rag has no score: no data", "Paired differences"):
        assert part in page


def test_speed_is_left_out_unless_timed_and_then_names_the_hardware(run: Run, root: Path) -> None:
    assert speed(run).rows == []
    assert sizes(run).rows == [["teacher", "1", "2 B", "3 B"], ["phi", "1", "2 B", "3 B"]]
    page = write_report(root, root / "report.html").read_text()
    assert "<h2>Speed</h2>" not in page
    assert "<h2>Size</h2>" in page
    file = root / "phi" / "evaluate" / "results.json"
    found = json.loads(file.read_text())
    sized = found["efficiency"]["model"]
    found["efficiency"] = {"model": {**sized, "decode": 30.0}, "teacher": {**sized, "decode": 20.0}}
    file.write_text(json.dumps(found))
    assert speed(load_run(root)).rows == [["phi", MISSING, MISSING, "30 (1.50×)"]]
    assert "Measured on x, one sequence at a time" in write_report(root, root / "report.html").read_text()
