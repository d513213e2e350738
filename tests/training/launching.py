"""Commands that several real processes carry out together, and what they leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import make_model

STEPS = 4


def make_pair(tmp_path: Path) -> tuple[Path, Path]:
    """A teacher with a head of its own, and a student cut from nothing, whose states are compared through a map."""
    teacher = make_model(tmp_path / "teacher", tie_word_embeddings=False)
    return make_model(tmp_path / "student", seed=1, hidden_size=16, num_hidden_layers=2), teacher


def arguments(pair: tuple[Path, Path], corpus: Path, out: Path, *more: object, steps: int = STEPS) -> list[str]:
    words = ["distill", pair[0], "--teacher", pair[1], "--corpus", corpus, "--out", out, "--tokens", steps * 8 * 32]
    words += ["--sequence-length", 32, "--batch-size", 8, "--warmup-steps", 1, "--learning-rate", 1e-2]
    words += ["--states.layers", "late", "--states.projection", "learned", "--states.distance", "cosine"]
    words += ["--runtime.device-batch-size", 2, *more]
    return [str(word) for word in words]


def launch(words: list[str], port: int, *, accelerate: bool = False) -> "subprocess.Popen[str]":
    module = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    module += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port), "--module"]
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m"]
    command = [sys.executable, "-m", *(module if accelerate else torchrun), "prunus", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-4000:]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, two: Path, rounding: float) -> None:
    """The same losses and the same student, to rounding."""
    assert losses(one) == pytest.approx(losses(two), rel=max(rounding, 1e-5))
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=rounding, atol=rounding, msg=name)
