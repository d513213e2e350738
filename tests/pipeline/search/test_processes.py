"""The command: candidates shared out by two real processes are those of one, and scores may be given."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.cli.main import main
from tests.processes import together

pytestmark = pytest.mark.processes


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
    together([*arguments, "--out", str(tmp_path / "two" / "found")])
    one, two = (json.loads((tmp_path / name / "found" / "search.json").read_text()) for name in ("one", "two"))
    assert one["best"]["name"] in said
    assert one["order"][0] == two["order"][0]
    assert one["best"]["name"] == two["best"]["name"]
    for name, candidate in one["candidates"].items():
        losses = [[rung["kl"]["value"] for rung in found["candidates"][name]["rungs"]] for found in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3), name
        assert candidate["dimensions"] == two["candidates"][name]["dimensions"]


def test_given_scores_decide_which_layers_are_dropped(
    teacher: Path, corpus: Path, held_out: Path, tmp_path: Path, capsys: Any
) -> None:
    scores = ["score", teacher, "--corpus", corpus, "--samples", 8, "--sequence-length", 32]
    scores += ["--out", tmp_path / "scores"]
    assert main([str(word) for word in scores]) == 0
    words = ["search", teacher, "--budget", "non-embedding <= 51%", "--axes", "num_hidden_layers", "--corpus", corpus]
    words += ["--evaluation", held_out, "--scores", tmp_path / "scores", "--layer-choices", 2, "--rungs", 1]
    words += ["--ranking-tokens", 500, "--distill.tokens", 512, "--distill.sequence-length", 32]
    words += ["--distill.batch-size", 4, "--distill.warmup-steps", 1, "--out", tmp_path / "found"]
    assert main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "found" / "search.json").read_text())
    assert len(found["candidates"]) == 2
    unread = [*words[:-1], tmp_path / "other", "--prune.importance.layers", "lm_loss"]
    assert main([str(word) for word in unread]) == 2
    assert "add 'lm_loss' to `score.collect`" in capsys.readouterr().err
