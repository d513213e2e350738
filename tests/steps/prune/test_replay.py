"""Layers that run again from stored inputs, compared with whole runs."""

from pathlib import Path

import pytest
import torch

from prunus.models.families.table import FAMILIES
from prunus.steps.prune.activations import LayerRunner
from tests.families import make_teacher
from tests.tiny import load

IDS = torch.arange(3, 3 + 4 * 20).reshape(4, 20)
BLOCKS = [
    ("llama", "self_attn.o_proj", "self_attn.q_proj"),
    ("llama", "mlp.down_proj", "mlp.up_proj"),
    ("phi3", "self_attn.o_proj", "self_attn.qkv_proj"),
    ("gpt_neox", "attention.dense", "attention.query_key_value"),
    ("gpt_neox", "mlp.dense_4h_to_h", "mlp.dense_h_to_4h"),
    ("gpt2", "attn.c_proj", "attn.c_attn"),
    ("gpt2", "mlp.c_proj", "mlp.c_fc"),
]


def started(folder: Path, model_type: str) -> LayerRunner:
    runner = LayerRunner(load(folder).eval().requires_grad_(False), FAMILIES[model_type], 2)
    runner.start(IDS)
    return runner


@pytest.mark.parametrize(("model_type", "last", "first"), BLOCKS)
@torch.no_grad()
def test_a_stored_input_spares_the_rest_of_its_block(tmp_path: Path, model_type: str, last: str, first: str) -> None:
    runner = started(make_teacher(tmp_path / "model", model_type), model_type)
    calls: list[str] = []
    runner.layer(0).get_submodule(first).register_forward_hook(lambda *_: calls.append(first))
    for rows in runner.rows():
        runner.keep_input(0, rows, last, runner.input(0, rows, last))
        runner.run(0, rows)  # the first of these runs shows what the block returns
    runner.layer(0).get_submodule(last).weight.mul_(1.5)  # as a refit does
    calls.clear()
    replayed = [runner.run(0, rows)[0] for rows in runner.rows()]
    assert not calls
    runner.advance(0)
    assert torch.equal(runner.stream, torch.cat(replayed))
    runner.start(IDS)
    assert all(torch.equal(runner.run(0, rows)[0], out) for rows, out in zip(runner.rows(), replayed, strict=True))
    assert len(calls) == 2  # nothing is stored any more


@torch.no_grad()
def test_a_block_that_returns_more_runs_whole(tmp_path: Path) -> None:
    runner = started(make_teacher(tmp_path / "model", "llama"), "llama")
    runner.model.set_attn_implementation("eager")  # returns the attention weights too
    calls: list[int] = []
    runner.layer(0).get_submodule("self_attn.q_proj").register_forward_hook(lambda *_: calls.append(1))
    rows = next(runner.rows())
    expected, _ = runner.run(0, rows)
    runner.keep_input(0, rows, "self_attn.o_proj", runner.input(0, rows, "self_attn.o_proj"))
    for _ in range(2):
        assert torch.equal(runner.run(0, rows)[0], expected)
    assert len(calls) == 4


@torch.no_grad()
def test_a_stream_after_the_last_layer_gives_the_logits(tmp_path: Path) -> None:
    runner = started(make_teacher(tmp_path / "model", "granite"), "granite")
    for i in range(4):
        runner.advance(i)
    for rows in runner.rows():
        torch.testing.assert_close(runner.logits(rows), runner.model(IDS[rows]).logits)
