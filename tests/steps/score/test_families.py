"""Scores of layers without attention, compared with their definitions: one channel, head and token after the other.

B sequences, S tokens of each, C channels, D dimensions of a head
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from prunus.data.blocks import calibration_set
from prunus.data.tokens import Tokens
from prunus.models.folder import ModelFolder
from prunus.steps.prune.config import Ranking
from prunus.steps.prune.rank import rank
from tests.cutting import plain, score
from tests.families import make_teacher


def convolved(values: Tensor, weight: Tensor) -> Tensor:
    """A causal convolution of each channel, [B, S, C], by weights [C, 1, K]."""
    result, span = torch.zeros_like(values), weight.shape[-1]
    for t in range(values.shape[1]):
        for k in range(span):
            if t - k >= 0:
                result[:, t] += values[:, t - k] * weight[:, 0, span - 1 - k]
    return result


def of_convolution(u: Tensor, conv: Any) -> Tensor:
    """What the output projection of a short convolution reads, in absolute values: [B, S, C]."""
    gate, after, x = (u @ part.T for part in conv.in_proj.weight.chunk(3))
    return (after * convolved(gate * x, conv.conv.weight)).abs()


def of_delta_rule(u: Tensor, mixer: Any) -> Tensor:
    """The norms of what each value head of Gated DeltaNet gives (arXiv 2412.06464, equation 10): [B, S, heads]."""
    keys, values, key, value = mixer.num_k_heads, mixer.num_v_heads, mixer.head_k_dim, mixer.head_v_dim
    mixed = F.silu(convolved(u @ mixer.in_proj_qkv.weight.T, mixer.conv1d.weight))
    z, b, a = (u @ one.weight.T for one in (mixer.in_proj_z, mixer.in_proj_b, mixer.in_proj_a))
    beta, decay = b.sigmoid(), (-mixer.A_log.exp() * F.softplus(a + mixer.dt_bias)).exp()
    result = torch.zeros(*u.shape[:2], values, dtype=u.dtype)
    for head in range(values):
        group = head // (values // keys)
        q, k = (mixed[..., (group + keys * i) * key : (group + keys * i + 1) * key] for i in range(2))
        q, k = (one / one.square().sum(-1, keepdim=True).add(1e-6).sqrt() for one in (q, k))
        v = mixed[..., 2 * keys * key + head * value :][..., :value]
        state = torch.zeros(len(u), key, value, dtype=u.dtype)
        for t in range(u.shape[1]):
            state = state * decay[:, t, head, None, None]
            change = beta[:, t, head, None] * (v[:, t] - torch.einsum("bkv,bk->bv", state, k[:, t]))
            state = state + torch.einsum("bk,bv->bkv", k[:, t], change)
            out = torch.einsum("bkv,bk->bv", state, q[:, t]) / key**0.5
            normed = out / out.square().mean(-1, keepdim=True).add(mixer.norm.variance_epsilon).sqrt()
            gated = normed * mixer.norm.weight * F.silu(z[:, t, head * value : (head + 1) * value])
            result[:, t, head] = gated.norm(dim=-1)
    return result


def of_inputs(u: Tensor, mixer: Any) -> Tensor:
    """The norms of what each head of a Mamba-2 layer takes in (arXiv 2504.11409, section 3.1): [B, S, heads]."""
    heads, size = mixer.num_heads, mixer.head_dim
    first = heads * size  # gates come first
    rows = [mixer.in_proj.weight[first + head * size : first + (head + 1) * size] for head in range(heads)]
    return torch.stack([(u @ row.T).norm(dim=-1) for row in rows], dim=-1)


UNITS = {"conv": "conv", "linear_heads": "linear_values", "ssm_heads": "ssm_heads"}
"""The axis of the table by the name of its statistics."""
CASES: list[tuple[str, str, str, str, Callable[[Tensor, Any], Tensor]]] = [
    ("lfm2", "conv", "operator_norm", "conv", of_convolution),
    ("qwen3_5_text", "linear_heads", "input_layernorm", "linear_attn", of_delta_rule),
    ("nemotron_h", "ssm_heads", "norm", "mixer", of_inputs),
]


@pytest.mark.parametrize(("model_type", "axis", "norm", "mixer", "defined"), CASES)
def test_scores_of_layers_without_attention_are_as_defined(
    tmp_path: Path, model_type: str, axis: str, norm: str, mixer: str, defined: Callable[[Tensor, Any], Tensor]
) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    scores = load_file(score(teacher, tmp_path, collect=("mean", "gradients")) / "scores.safetensors")
    shape, model = ModelFolder(teacher).shape, plain(teacher)
    ids = torch.from_numpy(calibration_set(Tokens.open(tmp_path / "tokens"), 8, 24, 0))
    seen: dict[int, Tensor] = {}
    layers = [model.get_submodule(shape.family.layer_name(i)) for i in range(shape.num_hidden_layers)]
    for i, layer in enumerate(layers):
        layer.get_submodule(norm).register_forward_hook(lambda _, __, output, i=i: seen.update({i: output}))
    with torch.no_grad():
        model(ids, use_cache=False)
        for i, layer in enumerate(layers):
            if not shape.has_units(UNITS[axis], i):
                assert not scores[f"{axis}.mean"][:, i].any()
                continue
            means = defined(seen[i], layer.get_submodule(mixer)).mean(dim=1)  # [B, units]
            expected = torch.stack([means.sum(dim=0), means.square().sum(dim=0)])
            torch.testing.assert_close(scores[f"{axis}.mean"][:, i], expected, rtol=2e-4, atol=1e-9)
    arrays = {name: value.numpy() for name, value in scores.items()}
    for criterion in ("activation", "taylor"):
        ranked = rank(arrays, axis, Ranking(criterion=criterion), shape, 0)
        assert ranked.shape == (shape.num_hidden_layers, scores[f"{axis}.mean"].shape[-1])
        assert (ranked.sum(axis=1) > 0).tolist() == [shape.has_units(UNITS[axis], i) for i in range(len(layers))]
