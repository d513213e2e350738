"""Candidates shared out by two real processes are those of one, with the same figures."""

import json
from pathlib import Path

import pytest

from prunus.cli import main
from tests.training.launching import finish, launch


def test_two_processes_find_what_one_does(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    words = ["search", teacher, "--budget", "non-embedding <= 50%", "--within", 0.1, "--corpus", corpus]
    words += ["--candidates", 3, "--generations", 0, "--rungs", 2, "--ranking-tokens", 200, "--distill.tokens", 128]
    words += ["--distill.batch-size", 4, "--distill.sequence-length", 16, "--distill.warmup-steps", 1]
    words += ["--score.samples", 8, "--score.sequence-length", 16]
    arguments = [str(word) for word in words]
    assert main([*arguments, "--out", str(tmp_path / "one" / "found")]) == 0
    finish(launch([*arguments, "--out", str(tmp_path / "two" / "found")], 29541))
    one, two = (json.loads((tmp_path / name / "found" / "search.json").read_text()) for name in ("one", "two"))
    assert one["order"][0] == two["order"][0]
    assert one["best"]["name"] == two["best"]["name"]
    for name, candidate in one["candidates"].items():
        losses = [[rung["kl"]["value"] for rung in found["candidates"][name]["rungs"]] for found in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3), name
        assert candidate["dimensions"] == two["candidates"][name]["dimensions"]
