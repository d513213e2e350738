"""A stage by two real processes gives what one gives: reference, batch, reward model and weights are shared out."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from prunus.cli.main import main
from tests.processes import together
from tests.steps.align.making import rows, write
from tests.training.launching import assert_same, finish, launch

pytestmark = pytest.mark.processes

INSTALLED = importlib.util.find_spec("deepspeed") is not None


def words(model: Path, file: Path, out: Path, method: str, *more: object) -> list[str]:
    given = ["align", model, "--method", method, "--data", file, "--template", "builtin:plain", "--sequence-length", 64,
             "--batch-size", 4, "--learning-rate", 1e-3, "--warmup", 0, "--out", out, *more]  # fmt: skip
    return [str(word) for word in given]


def test_two_processes_align_as_one_does(teacher: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", rows(12, "rewards"))
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(words(teacher, file, one, "rpo")) == 0
    together(words(teacher, file, two, "rpo", "--runtime.shard"))
    assert_same(one, two, 1e-4)


def test_a_reward_model_is_trained_and_queried_in_shares(teacher: Path, tmp_path: Path) -> None:
    """Its training, and what it says of the model's own answers, with weights that no process has whole."""
    file = write(tmp_path / "x.jsonl", rows(12, "pairs"))
    one, two = (tmp_path / name / "reward" for name in ("one", "two"))
    assert main(words(teacher, file, one, "reward")) == 0
    together(words(teacher, file, two, "reward", "--runtime.shard"))
    assert_same(one, two, 1e-4)
    asked = write(tmp_path / "y.jsonl", rows(16, "answers"))
    writes = (
        "--write.answers",
        3,
        "--write.max-new-tokens",
        8,
        "--write.reward",
        one,
        "--runtime.device-batch-size",
        4,
    )
    first, second = (folder.parent / "best" for folder in (one, two))
    assert main(words(teacher, asked, first, "best_of_n", *writes)) == 0
    together(words(teacher, asked, second, "best_of_n", *writes, "--runtime.shard"))
    assert_same(first, second, 1e-4)
    ours, theirs = (_rewards(folder.parent) for folder in (one, two))
    assert len(ours) == 48
    assert len(set(ours)) > 5
    assert theirs == pytest.approx(ours, abs=1e-4)


def _rewards(root: Path) -> list[float]:
    (file,) = root.glob("*/candidates*/candidates.jsonl")
    return [json.loads(line)["reward"] for line in file.read_text().splitlines()]


@pytest.mark.skipif(not INSTALLED or sys.platform != "linux", reason="needs DeepSpeed")
@pytest.mark.parametrize(("method", "form", "port"), [("rpo", "rewards", 29544), ("reward", "pairs", 29545)])
def test_two_processes_under_deepspeed_align_as_one_does(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, form: str, port: int
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    file, settings = write(tmp_path / "x.jsonl", rows(12, form)), tmp_path / "ds.json"
    settings.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(words(teacher, file, one, method)) == 0
    finish(launch(words(teacher, file, two, method, "--runtime.deepspeed", settings), port))
    assert_same(one, two, 1e-4)
