"""Training by two real processes: what one gives, copies or shares of the weights, and going on with another number."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunus.cli import main
from tests.tiny import make_model

STEPS = 4


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
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


@pytest.mark.parametrize(
    ("way", "optimizer", "rounding"),
    [
        ("copies", "muon", 1e-6),
        ("shares", "adamw", 1e-5),
        ("shares", "muon", 2e-3),  # its iteration is in bfloat16, and sums in another order
    ],
)
def test_two_processes_train_as_one_does(
    pair: tuple[Path, Path], corpus: Path, tmp_path: Path, way: str, optimizer: str, rounding: float
) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(arguments(pair, corpus, one, "--optimizer", optimizer)) == 0
    share = ["--runtime.shard"] if way == "shares" else []
    finish(launch(arguments(pair, corpus, two, "--optimizer", optimizer, *share), 29521))
    assert_same(one, two, rounding)
    keys = [json.loads((out / "artifact.json").read_text())["key"] for out in (one, two)]
    assert keys[0] == keys[1]


def test_accelerate_launches_it_as_torchrun_does(pair: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(arguments(pair, corpus, one)) == 0
    finish(launch(arguments(pair, corpus, two), 29525, accelerate=True))
    assert_same(one, two, 1e-6)


def test_a_dead_worker_ends_the_run_and_one_process_goes_on(
    pair: tuple[Path, Path], corpus: Path, tmp_path: Path
) -> None:
    steps, one, two = 40, tmp_path / "one" / "out", tmp_path / "two" / "out"
    adamw = ["--optimizer", "adamw"]
    assert main(arguments(pair, corpus, one, *adamw, steps=steps)) == 0
    words = arguments(pair, corpus, two, *adamw, steps=steps)
    process = launch([*words, "--runtime.shard", "--runtime.checkpoint-minutes", "0"], 29527)
    until = time.monotonic() + 120
    while not list(two.parent.glob("out.partial/checkpoints/*/complete")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[1])
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "-9" in errors, "the launcher says which died and how"
    assert main(words) == 0  # with copies, by itself, from shares written by two
    assert_same(one, two, 1e-4)
    steps_seen = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert steps_seen == list(range(1, steps + 1))
