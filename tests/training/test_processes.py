"""Training by two real processes: what one gives, copies or shares of the weights, and going on with another number."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from prunus.cli.main import main
from tests.processes import together
from tests.training.launching import arguments, assert_same, finish, launch, make_pair

pytestmark = pytest.mark.processes


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair(tmp_path)


@pytest.mark.parametrize(
    ("way", "optimizer", "rounding"),
    [
        ("copies", "muon", 2e-3),  # its iteration is in bfloat16, where the last bit of a gradient may become more
        ("shares", "adamw", 1e-5),
        ("shares", "muon", 2e-3),  # the same, and it sums in another order
    ],
)
def test_two_processes_train_as_one_does(
    pair: tuple[Path, Path], corpus: Path, tmp_path: Path, way: str, optimizer: str, rounding: float
) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    assert main(arguments(pair, corpus, one, "--optimizer", optimizer)) == 0
    share = ["--runtime.shard"] if way == "shares" else []
    together(arguments(pair, corpus, two, "--optimizer", optimizer, *share))
    assert_same(one, two, rounding)
    keys = [json.loads((out / "artifact.json").read_text())["key"] for out in (one, two)]
    assert keys[0] == keys[1]


def test_accelerate_launches_it_as_torchrun_does(pair: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "out", tmp_path / "two" / "out"
    adamw = ["--optimizer", "adamw"]  # Muon's iteration is in bfloat16
    assert main(arguments(pair, corpus, one, *adamw)) == 0
    finish(launch(arguments(pair, corpus, two, *adamw), 29525, accelerate=True))
    assert_same(one, two, 1e-6)


def test_a_dead_worker_ends_the_run_and_one_process_resumes(
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
