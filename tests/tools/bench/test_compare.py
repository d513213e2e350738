"""Speeds side by side: paired by round, ratios to the first, nothing run that cannot be compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.cli.main import main
from prunus.console import Console
from prunus.runtime import Runtime
from prunus.tools.bench.compare import compare
from prunus.tools.bench.config import BenchConfig
from prunus.tools.bench.engine import Timed
from prunus.tools.bench.speed import Model, measure, prompt_of, spread
from tests.tiny import make_model


class Scripted:
    """An engine that says how long it took."""

    def __init__(self, name: str, seconds: list[tuple[float, float]], log: list[str]) -> None:
        self.name, self.seconds, self.log = name, list(seconds), log

    def call(self, method: str, *arguments: Any) -> tuple[float, float]:
        assert method == "speed"
        assert arguments == ([1, 2, 3, 4], 8)
        self.log.append(self.name)
        return self.seconds.pop(0)

    def peak_bytes(self) -> int:
        return 1000

    def close(self) -> None:
        self.log.append(f"{self.name} closed")


def test_rounds_are_taken_in_turn_and_compared_with_themselves() -> None:
    log: list[str] = []
    slow = [(9.0, 9.0), (2.0, 4.0), (4.0, 8.0)]  # the first does not count; the third was disturbed
    fast = [(9.0, 9.0), (1.0, 1.0), (2.0, 2.0)]
    models = [
        Model("slow", 20, lambda: Scripted("slow", slow, log)),
        Model("fast", 10, lambda: Scripted("fast", fast, log)),
    ]
    first, second = measure(models, [1, 2, 3, 4], 8, rounds=2)
    assert log == ["slow", "fast"] * 3 + ["fast closed", "slow closed"]
    assert first["prefill"] == {"value": 1.5, "low": 1.0, "high": 2.0}
    assert first["decode_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert second["prefill_ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0}  # what disturbs a round cancels
    assert second["decode_ratio"]["value"] == 4.0
    assert (second["nbytes"], second["peak_bytes"]) == (10, 1000)


def test_engines_are_ended_where_one_fails() -> None:
    log: list[str] = []
    broken = Model("broken", 1, lambda: Scripted("broken", [], log))
    with pytest.raises(IndexError):
        measure([Model("ok", 1, lambda: Scripted("ok", [(1.0, 1.0)], log)), broken], [1, 2, 3, 4], 8, rounds=1)
    assert log[-2:] == ["broken closed", "ok closed"]


def test_a_spread_and_a_prompt() -> None:
    assert spread(np.array([3.0, 1.0, 2.0])) == {"value": 2.0, "low": 1.0, "high": 3.0}
    assert prompt_of(5, 10, 0) == prompt_of(5, 10, 0)
    assert max(prompt_of(500, 10, 0)) == 9


def test_models_are_measured_in_llama_cpp(tmp_path: Path, capsys) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("xllamacpp")
    teacher = make_model(tmp_path / "teacher")
    student = make_model(tmp_path / "student", num_hidden_layers=1)
    options = ["--prompt-tokens", "32", "--new-tokens", "4", "--rounds", "2"]
    out = tmp_path / "speeds.json"
    assert main(["bench", str(teacher), str(student), *options, "--json", str(out)]) == 0
    first, second = json.loads(out.read_text())["models"]
    assert first["name"] == "teacher F16"
    assert first["prefill_ratio"]["value"] == 1.0
    assert second["nbytes"] < first["nbytes"]
    assert min(second["decode"].values()) > 0
    assert second["peak_bytes"] is None or second["peak_bytes"] > 1_000_000
    assert "to first" in capsys.readouterr().out


def test_models_are_measured_in_transformers(teacher: Path) -> None:
    timed = Timed(teacher, "cpu", "float32")
    assert min(timed.speed([5, 6, 7], 4)) > 0
    assert timed.gpu_bytes() == 0
    config = BenchConfig(prompt_tokens=8, new_tokens=2, rounds=1, engine="transformers")
    (found,) = compare([str(teacher)], config, Runtime(device="cpu"), teacher, Console(quiet=True))
    assert found["nbytes"] == (teacher / "model.safetensors").stat().st_size
    assert found["decode"]["value"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./nowhere"], "MODELS: there is no folder ./nowhere"),
        (["MODEL", "--prompt-tokens", "500"], "500 and --new-tokens: 64 exceed the context of"),
        (["FILE.gguf", "--engine", "transformers"], "a GGUF file needs llama.cpp"),
        (["FILE.gguf"], "FILE.gguf: version 0 of GGUF is not supported"),
    ],
)
def test_what_cannot_be_compared_is_reported(arguments: list[str], message: str, teacher, tmp_path, capsys) -> None:
    (tmp_path / "FILE.gguf").write_bytes(b"GGUF" + bytes(64))
    places = {"MODEL": str(teacher), "FILE.gguf": str(tmp_path / "FILE.gguf")}
    assert main(["bench", *(places.get(argument, argument) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
