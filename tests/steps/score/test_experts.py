"""Scores of experts, compared with one expert on one token at a time in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prunus.data.blocks import calibration_set
from prunus.data.tokens import Tokens
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.steps.prune.config import Ranking
from prunus.steps.prune.rank import rank
from tests.cutting import plain, score
from tests.families import make_teacher

MIXTURES = [name for name, family in FAMILIES.items() if family.experts is not None]


@pytest.mark.parametrize("model_type", MIXTURES)
def test_scores_are_those_of_single_experts_on_single_tokens(tmp_path: Path, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    out = score(teacher, tmp_path, collect=("mean", "frequency", "reap"))
    scores = load_file(out / "scores.safetensors")
    shape = ModelFolder(teacher).shape
    ids = torch.from_numpy(calibration_set(Tokens.open(tmp_path / "tokens"), 8, 24, 0))
    squares, sizes, counts, moments = one_by_one(plain(teacher), shape, ids)
    torch.testing.assert_close(scores["neurons.squares"], squares, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(scores["experts.frequency"], counts, rtol=0, atol=0)
    torch.testing.assert_close(scores["experts.reap"], torch.stack([sizes, counts]), rtol=1e-4, atol=1e-10)
    torch.testing.assert_close(scores["experts.mean"], moments, rtol=1e-4, atol=1e-10)
    arrays = {name: value.numpy() for name, value in scores.items()}
    ranked = torch.from_numpy(rank(arrays, "experts", Ranking(criterion="reap"), shape, 0))
    used = counts > 0
    assert used.any()
    torch.testing.assert_close(ranked[used], sizes[used] / counts[used], rtol=1e-4, atol=1e-10)
    assert (ranked[~used] == 0).all()
    frequency = rank(arrays, "experts", Ranking(criterion="frequency"), shape, 0)
    torch.testing.assert_close(torch.from_numpy(frequency), counts)


@torch.no_grad()
def one_by_one(model: Any, shape: Shape, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Squares of neurons [L, E, mlp]; Σ g |f| and tokens [L, E]; moments of the mean probabilities [2, L, E]."""
    names = shape.family.experts
    assert names is not None
    calls: dict[int, Any] = {}
    logits: dict[int, torch.Tensor] = {}

    def keep_call(i: int) -> Any:
        return lambda module, args: calls.update({i: (module, args)})

    def keep_logits(i: int) -> Any:
        return lambda _, __, output: logits.update({i: output[0] if output[0].is_floating_point() else output[-1]})

    for i in range(shape.num_hidden_layers):
        layer = model.get_submodule(shape.family.layer_name(i))
        try:
            mixture = layer.get_submodule(names.module)
            stacked = mixture.get_submodule(names.stacked)
        except AttributeError:
            continue  # a layer without experts
        stacked.register_forward_pre_hook(keep_call(i))
        mixture.get_submodule(names.router).register_forward_hook(keep_logits(i))
    model(ids, use_cache=False)
    experts = (shape.num_hidden_layers, shape.num_experts)
    squares = torch.zeros(*experts, shape.intermediate_size, dtype=torch.float64)
    sizes, counts = torch.zeros(*experts, dtype=torch.float64), torch.zeros(*experts, dtype=torch.float64)
    moments = torch.zeros(2, *experts, dtype=torch.float64)
    for i, (module, (tokens, routed, gates)) in calls.items():
        gate_up = module.gate_up_proj.mT if module.is_transposed else module.gate_up_proj  # [E, 2 mlp, H]
        bias = module.gate_up_proj_bias if module.has_bias else torch.zeros(gate_up.shape[:2], dtype=gate_up.dtype)
        for token, row, weights in zip(tokens, routed.tolist(), gates, strict=True):
            for expert, weight in zip(row, weights, strict=True):
                output = module.forward(token[None], torch.tensor([[expert]]), torch.ones(1, 1, dtype=token.dtype))
                squares[i, expert] += module._apply_gate(gate_up[expert] @ token + bias[expert]).square()
                sizes[i, expert] += weight * output.norm()
                counts[i, expert] += 1
        values = logits[i].softmax(-1) if names.probability == "softmax" else logits[i].sigmoid()
        for sequence in values.unflatten(0, ids.shape):
            mean = sequence.double().mean(dim=0)
            moments[:, i] += torch.stack([mean, mean.square()])
    return squares, sizes, counts, moments
