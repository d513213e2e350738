"""The stacked experts of a mixture, one by one.

E experts, H hidden, T tokens
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from prunus.models.families.family import Experts


def routed_inputs(
    module: Any, names: Experts, tokens: torch.Tensor, routed: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of each expert: which tokens are routed to it [T], their inputs [n, H], and its neurons' activations [n, mlp].

    Args:
        module: Transformers' module of a layer's stacked experts.
        names: The names of its weights.
        tokens: Inputs of the experts, [T, H].
        routed: The experts of each token, [T, experts per token].
    """
    for expert in range(len(module.get_parameter(names.gate_up))):
        used = (routed == expert).any(dim=-1)
        inputs = tokens[used]
        yield used, inputs, module._apply_gate(project(module, names.gate_up, expert, inputs))


def project(module: Any, name: str, expert: int, inputs: torch.Tensor) -> torch.Tensor:
    """The product of inputs with one expert's part of a stacked weight, in either of transformers' layouts."""
    weight = module.get_parameter(name)[expert]
    bias = module.get_parameter(f"{name}_bias")[expert] if module.has_bias else None
    return F.linear(inputs, weight.T if module.is_transposed else weight, bias)
