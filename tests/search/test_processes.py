"""Candidates shared out by two real processes are those of one, with the same figures."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.cli import main
from tests.training.launching import finish, launch


def test_two_processes_find_what_one_does(teacher: Path, corpus: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["search", teacher, "--budget", "non-embedding <= 50%", "--within", 0.1, "--corpus", corpus]
    words += ["--candidates", 2, "--generations", 0, "--rungs", 1, "--ranking-tokens", 200, "--distill.tokens", 128]
    words += ["--distill.batch-size", 4, "--distill.sequence-length", 16, "--distill.warmup-steps", 1]
    words += ["--score.samples", 8, "--score.sequence-length", 16]
    arguments = [str(word) for word in words]
    assert main([*arguments, "--out", str(tmp_path / "one" / "found")]) == 0
    said = capsys.readouterr().out
    assert "prunus prune TEACHER --" in said
    assert main([*arguments, "--evaluation", str(corpus), "--out", str(tmp_path / "none")]) == 2
    assert "share a document" in capsys.readouterr().err
    finish(launch([*arguments, "--out", str(tmp_path / "two" / "found")], 29541))
    one, two = (json.loads((tmp_path / name / "found" / "search.json").read_text()) for name in ("one", "two"))
    assert one["best"]["name"] in said
    assert one["order"][0] == two["order"][0]
    assert one["best"]["name"] == two["best"]["name"]
    for name, candidate in one["candidates"].items():
        losses = [[rung["kl"]["value"] for rung in found["candidates"][name]["rungs"]] for found in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3), name
        assert candidate["dimensions"] == two["candidates"][name]["dimensions"]
