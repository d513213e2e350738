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
    ("llama", 0, "self_attn.o_proj", "self_attn.q_proj"),
    ("llama", 1, "mlp.down_proj", "mlp.up_proj"),
    ("phi3", 0, "self_attn.o_proj", "self_attn.qkv_proj"),
    ("gpt_neox", 0, "attention.dense", "attention.query_key_value"),
    ("gpt_neox", 0, "mlp.dense_4h_to_h", "mlp.dense_h_to_4h"),
    ("gpt2", 0, "attn.c_proj", "attn.c_attn"),
    ("gpt2", 0, "mlp.c_proj", "mlp.c_fc"),
    ("ernie4_5_moe", 1, "mlp.shared_experts.down_proj", "mlp.shared_experts.up_proj"),  # batch and positions in one
]


def started(folder: Path, model_type: str, layer: int = 0) -> LayerRunner:
    runner = LayerRunner(load(folder).eval().requires_grad_(False), FAMILIES[model_type], 2)
    runner.start(IDS)
    for i in range(layer):
        runner.advance(i)
    return runner


@pytest.mark.parametrize(("model_type", "i", "last", "first"), BLOCKS)
@torch.no_grad()
def test_a_stored_input_spares_the_rest_of_its_block(
    tmp_path: Path, model_type: str, i: int, last: str, first: str
) -> None:
    runner = started(make_teacher(tmp_path / "model", model_type), model_type, i)
    before = runner.stream
    calls: list[str] = []
    runner.layer(i).get_submodule(first).register_forward_hook(lambda *_: calls.append(first))
    for rows in runner.rows():
        runner.keep_input(i, rows, last, runner.input(i, rows, last))
        runner.run(i, rows)  # the first of these runs shows what the block returns
    runner.layer(i).get_submodule(last).weight.mul_(1.5)  # as a refit does
    calls.clear()
    replayed = [runner.run(i, rows)[0] for rows in runner.rows()]
    assert not calls
    runner.advance(i)
    assert torch.equal(runner.stream, torch.cat(replayed))
    runner.stream = before
    assert all(torch.equal(runner.run(i, rows)[0], out) for rows, out in zip(runner.rows(), replayed, strict=True))
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
