"""Whether bfloat16 is faster than float32 on this processor, for a model of some sizes.

S tokens
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # as `torch.cpu.get_capabilities` names them, on x86 and on Arm
_TOKENS = 256
_ROUNDS = 3
_WIDEST = 4096  # channels or neurons: wider products are no faster, and at large models' sizes they take gigabytes


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder layer.

    Attributes:
        hidden: Channels of the residual stream.
        neurons: Neurons of the MLP that a token passes through: in a mixture of experts, those of its active experts.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Channels of a head.
    """

    hidden: int
    neurons: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Gains:
    """How many times as fast bfloat16 is as float32.

    Attributes:
        inference: In forward passes with weights in bfloat16.
        training: In forward and backward passes under autocast, with weights in float32.
    """

    inference: float
    training: float


def product_dtype(device: torch.device) -> torch.dtype:
    """The dtype of products for which bfloat16 is precise enough: bfloat16 if the processor supports it.

    Others emulate it: 0.9 GFLOP/s against 135 in float32 (AMD EPYC with AVX2, 2 cores, 1024 × 1024).
    """
    if device.type != "cpu":
        return torch.bfloat16
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older releases of torch
    return torch.bfloat16 if any(able.get(name) for name in _BFLOAT16) else torch.float32


def measure_gains(sizes: Sizes) -> Gains:
    """Time a decoder layer of these sizes on a CPU, in both dtypes; sizes above 4,096 count as 4,096.

    The layer has what takes a model's time: norms, projections, causal attention, gated MLP.
    """
    with torch.random.fork_rng(devices=()):
        layer, stream = _Layer(sizes), torch.randn(1, _TOKENS, min(sizes.hidden, _WIDEST))
        training = [_seconds(_train, layer, stream, dtype) for dtype in (torch.float32, torch.bfloat16)]
        with torch.no_grad():
            inference = [_seconds(layer.to(dtype), stream.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    return Gains(inference[0] / inference[1], training[0] / training[1])


class _Layer(nn.Module):
    """A decoder layer with random weights."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden, neurons = min(sizes.hidden, _WIDEST), min(sizes.neurons, _WIDEST)
        self.head_dim = sizes.head_dim
        queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))
        self.projections = nn.ModuleList(nn.Linear(hidden, size, bias=False) for size in (queries, keys, keys))
        self.out = nn.Linear(queries, hidden, bias=False)
        self.gate, self.up = (nn.Linear(hidden, neurons, bias=False) for _ in range(2))
        self.down = nn.Linear(neurons, hidden, bias=False)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """The residual stream after the layer: [1, S, hidden]."""
        normed = self.norms[0](stream)
        q, k, v = (part(normed).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.projections)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        stream = stream + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norms[1](stream)
        out: torch.Tensor = stream + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return out


def _train(layer: _Layer, stream: torch.Tensor, dtype: torch.dtype) -> None:
    """A forward and a backward pass in float32, or with autocast to bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        out = layer(stream)
    out.float().sum().backward()


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    """The shortest time of a few calls, after one to warm up."""
    times = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        work(*arguments)
        times.append(time.perf_counter() - start)
    return min(times[1:])
