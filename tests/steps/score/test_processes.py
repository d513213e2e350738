"""Scoring with two processes gives the same result as with one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunus.cli.main import main
from tests.processes import together

pytestmark = pytest.mark.processes


def test_two_processes_score_as_one_does(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    lines = [{"query": "once upon a", "choices": ["time there", "plum tree"], "gold": i % 2} for i in range(6)]
    task.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["score", teacher, "--corpus", corpus, "--samples", 10, "--sequence-length", 16, "--layer-samples", 6]
    arguments += ["--collect", "mean", "variance", "gradients", "covariance", "gradient_covariance"]
    arguments += ["lm_loss", "accuracy", "logit_nmse"]
    arguments += ["--task", task, "--task-items", 6, "--blocks", 1, 2, "--runtime.device-batch-size", 2]
    words = [str(argument) for argument in arguments]
    assert main([*words, "--out", str(tmp_path / "one" / "scores")]) == 0
    together([*words, "--out", str(tmp_path / "two" / "scores")])
    one, two = (load_file(tmp_path / name / "scores" / "scores.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert {"neurons.variance", "layers.accuracy.2", "layers.logit_nmse.order"} <= one.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5, msg=name)
    assert torch.equal(one["layers.accuracy.2"], two["layers.accuracy.2"])
    records = [json.loads((tmp_path / name / "scores" / "artifact.json").read_text()) for name in ("one", "two")]
    assert records[0]["metrics"] == records[1]["metrics"] == {"samples": 10, "tokens": 160}
    assert records[0]["key"] == records[1]["key"]
