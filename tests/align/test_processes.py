"""A stage by two real processes gives what one gives: the reference, the batch and the weights are shared out."""

from pathlib import Path

import pytest

from prunus.cli import main
from tests.align.making import rows, write
from tests.training.launching import assert_same, finish, launch


@pytest.mark.parametrize(("method", "form", "port"), [("rpo", "rewards", 29541)])
def test_two_processes_align_as_one_does(teacher: Path, tmp_path: Path, method: str, form: str, port: int) -> None:
    file = write(tmp_path / "x.jsonl", rows(12, form))
    words = ["align", teacher, "--method", method, "--data", file, "--template", "builtin:plain", "--sequence-length",
             64, "--batch-size", 4, "--learning-rate", 1e-3, "--warmup", 0, "--out"]  # fmt: skip
    one, two = ([str(word) for word in (*words, tmp_path / name / "out")] for name in ("one", "two"))
    assert main(one) == 0
    finish(launch([*two, "--runtime.shard"], port))
    assert_same(tmp_path / "one" / "out", tmp_path / "two" / "out", 1e-4)
