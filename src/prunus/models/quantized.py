"""Frozen models with the weights of their layers in 8 or 4 bits, read as numbers of the input's type at each use.

O output features, I input features, G groups of `GROUP` weights in a row
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunus.models.bits import GROUP, Bits
from prunus.models.folder import ModelFolder
from prunus.models.linear import linear_modules
from prunus.models.load import cast, load_model, saved_dtype

_TINY = torch.finfo(torch.half).tiny  # the least scale: of weights that are all equal


class Linear8(nn.Module):
    """A linear module whose weights are 8-bit integers times one scale for each output: W ≈ s q, |q| ≤ 127.

    Args:
        weight: [O, I].
        bias: [O], if there is one.
    """

    q: torch.Tensor  # [O, I]
    scale: torch.Tensor  # [O]
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        weight = weight.float()
        scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        keep(self, q=(weight / scale[:, None]).round().to(torch.int8), scale=scale, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., I] to [..., O]."""
        y = F.linear(x, self.q.to(x.dtype)) * self.scale.to(x.dtype)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class Linear4(nn.Module):
    """A linear module whose weights are 4-bit integers, in groups along a row: W ≈ s q + m, 0 ≤ q ≤ 15.

    Args:
        weight: [O, I].
        bias: [O], if there is one.
    """

    q: torch.Tensor  # [O, G, GROUP / 2]: two weights in a byte
    scale: torch.Tensor  # [O, G, 1], float16, as is `least`
    least: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.features = weight.shape[1]
        groups = F.pad(weight.float(), (0, -self.features % GROUP)).unflatten(1, (-1, GROUP))
        least = groups.amin(dim=-1, keepdim=True).half()
        scale = ((groups.amax(dim=-1, keepdim=True) - least.float()) / 15).half().clamp_min(_TINY)
        q = ((groups - least.float()) / scale.float()).round().clamp(0, 15).to(torch.uint8)
        keep(self, q=q[..., ::2] | q[..., 1::2] << 4, scale=scale, least=least, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., I] to [..., O]."""
        q = torch.stack([self.q & 15, self.q >> 4], dim=-1).flatten(2).to(x.dtype)
        weight = torch.addcmul(self.least.to(x.dtype), q, self.scale.to(x.dtype)).flatten(1)[:, : self.features]
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def keep(module: nn.Module, **tensors: torch.Tensor | None) -> None:
    """Register buffers that a cast of the model leaves as they are."""
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor, persistent=False)


LINEAR: dict[Bits, Any] = {8: Linear8, 4: Linear4}
"""The module for each number of bits."""


def load_frozen(folder: Path, device: torch.device, dtype: torch.dtype, bits: Bits | None) -> PreTrainedModel:
    """Load a model that is not trained, with its layers' matrices in few bits if `bits` is set.

    Its other weights are in `dtype`, as are its products. While it is quantised, on the CPU, its weights are in the
    dtype of its checkpoint.

    Raises:
        ModelError: It cannot be loaded, or is a mixture of experts.
    """
    if bits is None:
        return load_model(folder, device, dtype).requires_grad_(False)
    model = load_model(folder, torch.device("cpu"), saved_dtype(ModelFolder(folder))).requires_grad_(False)
    for name in linear_modules(model, "teacher_bits"):
        module = model.get_submodule(name)
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        model.set_submodule(name, LINEAR[bits](weight, module.bias))
    cast(model, dtype)
    frozen: PreTrainedModel = model.to(device)
    return frozen
