"""The importance matrix of a model: Σ x² of the inputs of every matrix of its layers, over calibration text.

It is what llama.cpp's `llama-imatrix` measures, by the tensors' names in the file.

B sequences, S tokens of each, C columns of a matrix, E experts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.gguf.imatrix import Sums, weighted_columns
from prunus.gguf.tensors import FileTensor, plan_tensors
from prunus.models.families.family import Place
from prunus.models.folder import ModelFolder
from prunus.models.routed import routed_inputs


@dataclass(frozen=True)
class _Sum:
    """Sums of one tensor, in float64: Σ x² [E, C], and tokens [E]."""

    squares: torch.Tensor
    counts: torch.Tensor

    def add(self, inputs: torch.Tensor, expert: int = 0) -> None:
        rows = inputs.detach().flatten(0, -2).float()
        self.squares[expert] += rows.square().sum(dim=0, dtype=torch.float64)
        self.counts[expert] += len(rows)


@torch.no_grad()
def measure_importance(
    model: Any, folder: ModelFolder, sequences: np.ndarray, on_progress: Callable[[float], None] = lambda _: None
) -> dict[str, Sums]:
    """Run a model on calibration text and sum the squares of its matrices' inputs.

    Args:
        model: The model, loaded from `folder`.
        folder: Its folder.
        sequences: The text, [B, S].
        on_progress: Called with the number of sequences read so far.
    """
    device = model.get_input_embeddings().weight.device
    sums = {}
    for tensor in plan_tensors(folder):
        size = weighted_columns(tensor)
        if size is not None:
            zeros = torch.zeros(size, dtype=torch.float64, device=device)
            sums[tensor.name] = tensor, _Sum(zeros, zeros[:, 0].clone())
    handles = list(_hooks(model, folder, sums))
    try:
        for i, ids in enumerate(sequences):
            model.base_model(input_ids=torch.from_numpy(ids[None]).to(device), use_cache=False)
            on_progress(i + 1)
    finally:
        for handle in handles:
            handle.remove()
    return {name: Sums(one.squares.cpu().numpy(), one.counts.cpu().numpy()) for name, (_, one) in sums.items()}


def _hooks(model: nn.Module, folder: ModelFolder, sums: dict[str, tuple[FileTensor, _Sum]]) -> Iterator[Any]:
    family = folder.family
    of_experts: dict[int, list[tuple[str, _Sum]]] = {}
    for name, (tensor, one) in sums.items():
        place = family.place(tensor.sources[0].name)
        assert place is not None  # it is a matrix of a layer
        assert place.layer is not None
        if _is_stacked(place):
            of_experts.setdefault(place.layer, []).append((name, one))
            continue
        module = model.get_submodule(family.name_of(place.key, place.layer).removesuffix(".weight"))
        yield module.register_forward_pre_hook(lambda _, inputs, one=one: one.add(inputs[0]))
    names = family.experts
    for layer, parts in of_experts.items():
        assert names is not None  # the family has experts
        mixture = model.get_submodule(family.layer_name(layer)).get_submodule(names.module)

        def add(module: nn.Module, inputs: Any, parts: Any = parts) -> None:
            tokens, routed = inputs[:2]
            for expert, (_, entered, neurons) in enumerate(routed_inputs(module, names, tokens, routed)):
                for name, one in parts:
                    one.add(neurons if "ffn_down" in name else entered, expert)

        yield mixture.get_submodule(names.stacked).register_forward_pre_hook(add)


def _is_stacked(place: Place) -> bool:
    """Whether a weight is one expert's, or those of all."""
    return place.expert is not None or place.weight.stacked
