"""An evaluation by two real processes gives what one gives: windows and items are dealt out, and each asked once."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.main import main
from tests.processes import together

pytestmark = pytest.mark.processes


def test_two_processes_evaluate_as_one_does(teacher: Path, held_out: Path, tmp_path: Path) -> None:
    items = [
        {"messages": [{"role": "user", "content": f"plum {i}"}], "check": {"answers": ["plum"]}, "then": ["and?"]}
        for i in range(11)
    ]
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    tasks = [f"rag={file}"]
    if importlib.util.find_spec("lm_eval"):
        questions = [{"query": f"{i} plums?", "choices": ["plum", "almond tree"], "gold": i % 2} for i in range(9)]
        piqa = tmp_path / "piqa.jsonl"
        piqa.write_text("".join(json.dumps(row) + "\n" for row in questions))
        tasks.append(f"piqa={piqa}")
    words = ["evaluate", teacher, "--corpus", held_out, "--sequence-length", 24, "--chat-template", "plain",
             "--runtime.device-batch-size", 3, "--max-new-tokens", 5, "--tasks", *tasks, "--out"]  # fmt: skip
    one, two = ([str(word) for word in (*words, tmp_path / name / "out")] for name in ("one", "two"))
    assert main(one) == 0
    together(two)
    first, second = (tmp_path / name / "out" for name in ("one", "two"))
    for name in ("items.jsonl", "answers.jsonl", "answers/rag.jsonl"):
        assert (first / name).read_text() == (second / name).read_text(), name
    # Windows are in other portions, whose products some processors round otherwise.
    for rows in zip(*(read_rows(folder / "windows.jsonl") for folder in (first, second)), strict=True):
        alike(*rows)
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (first, second))
    assert len(tasks) == len(ours["tasks"])
    assert not [task for task in ours["tasks"].values() if "hole" in task]
    alike(ours, theirs)
    assert not (second / "checkpoints").exists()


def read_rows(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def alike(ours: Any, theirs: Any) -> None:
    """The same but for the rounding of numbers."""
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for name in ours:
            alike(ours[name], theirs[name])
    elif isinstance(ours, float):
        assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-6)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            alike(*pair)
    else:
        assert ours == theirs
