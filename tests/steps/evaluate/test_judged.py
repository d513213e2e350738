"""A judge that was not to be reached leaves a hole, and the next run fills it without asking the model again."""

import json
from pathlib import Path

import pytest

from prunus import client
from prunus.cli.main import main
from prunus.inference import local
from tests.fake import serving


def test_the_next_run_fills_the_holes(
    teacher: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(client, "TRIES", 1)
    items = [{"messages": [{"role": "user", "content": f"plum {i}"}], "check": {"judge": True}} for i in range(6)]
    file, out, asked = tmp_path / "items.jsonl", tmp_path / "out", []
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    answers = local.answers
    monkeypatch.setattr(local, "answers", lambda *given: asked.append(given) or answers(*given))
    with serving() as fake:
        words = ["evaluate", teacher, "--corpus", held_out, "--sequence-length", 24, "--chat-template", "plain",
                 "--max-new-tokens", 5, "--tasks", f"roleplay={file}", "--judge.url", fake.url, "--judge.model", "x",
                 "--judge.concurrency", 1, "--out", out]  # fmt: skip
        fake.choice = {"message": {"content": "[[7]]"}}
        fake.failures = [503] * 6 + [200, 200]

        def run() -> dict:
            assert main([str(word) for word in words]) == 0
            return json.loads((out / "results.json").read_text())["tasks"]["roleplay"]

        first = run()
        assert first["judge"]["graded"] == 2
        assert "gives no usable answer after 1 try" in first["judge"]["hole"]
        assert first["judge"]["missing"] == 4
        assert json.loads((out / "artifact.json").read_text())["metrics"]["judge_holes"] == 4
        assert len(asked) == 1
        fake.failures = []
        fake.asked.clear()
        second = run()
        assert "needs judging" in capsys.readouterr().out
        assert (second["judge"]["graded"], second["judge"]["hole"]) == (6, None)
        assert second["metrics"]["judge"]["value"] == 7
        assert len(asked) == 1
        assert len(fake.asked) == 4
        assert "judge_holes" not in json.loads((out / "artifact.json").read_text())["metrics"]
        assert run() == second
        assert len(fake.asked) == 4
        assert not (out / "checkpoints").exists()
