"""Training for a quantised file: the model computes with the weights that the file will hold.

Before each step, the weights are replaced by the numbers that the export makes of them; the optimizer then applies the
gradients to the weights themselves (straight-through estimator: Bengio et al. 2013, arXiv 1308.3432). What is saved is
the weights, in the student's data type, which the export rounds to the same numbers.

R rows of a tensor in the file, C columns
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from prunus.errors import ModelError
from prunus.gguf.rounding import K_QUANTS, decoded, encoded, rounded
from prunus.gguf.tensors import FileTensor
from prunus.gguf.trained import trained_types
from prunus.llamacpp import ggml
from prunus.models.folder import ModelFolder
from prunus.models.load import saved_dtype
from prunus.training.record import Watcher


@dataclass(frozen=True, eq=False)
class Stored:
    """A trained weight, and what becomes of it in the file.

    Attributes:
        weight: The weight, in float32.
        tensor: Its tensor in the file.
        kind: The type there.
        dtype: The type in the checkpoint that the file is made from.
    """

    weight: nn.Parameter
    tensor: FileTensor
    kind: int
    dtype: torch.dtype

    def rows(self) -> torch.Tensor:
        """The values that the export encodes, [R, C] in float32. Their rows are the weight's, in its own order."""
        values = self.weight.detach().to(self.dtype).float()
        values = values.T if self.tensor.turned else values
        if self.tensor.columns is not None:  # a block of a row is rounded together
            values = values[:, torch.from_numpy(self.tensor.columns).to(values.device)]
        return values if self.tensor.untouched else (values + self.tensor.offset) * self.tensor.factor

    def as_weight(self, rows: torch.Tensor) -> torch.Tensor:
        """The inverse of `rows`."""
        values = rows if self.tensor.untouched else rows / self.tensor.factor - self.tensor.offset
        if self.tensor.columns is not None:
            values = values[:, torch.from_numpy(np.argsort(self.tensor.columns)).to(values.device)]
        return values.T if self.tensor.turned else values

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in the file."""
        return ggml.row_bytes(self.kind, self.tensor.shape[-1])


class QuantisedWeights(nn.Module):
    """The weights of a model in training, as a file will hold them.

    Its state, in checkpoints, is the bytes of the tensors whose last rounding holds for several steps.

    Args:
        stored: The weights that the file does not hold as they are.
        every: Steps between two roundings of K-quants, which are made on the CPU.
    """

    def __init__(self, stored: list[Stored], every: int) -> None:
        super().__init__()
        self.stored, self.every = stored, every
        self.own: list[torch.Tensor] = []  # while the file's numbers are in their place
        held = [one for one in stored if one.kind in K_QUANTS and every > 1]
        sizes = [one.weight.numel() // one.tensor.shape[-1] * one.row_bytes for one in held]
        self.bytes = torch.zeros(sum(sizes), dtype=torch.uint8)
        self.parts = dict(zip(held, self.bytes.split(sizes), strict=True))
        self.values: dict[Stored, torch.Tensor] = {}  # what they hold

    def get_extra_state(self) -> torch.Tensor:
        """See the class. A tensor that loading fills in place."""
        return self.bytes

    @torch.no_grad()
    def put(self, step: int) -> None:
        """Replace the weights by the file's numbers, for the training step after `step` steps."""
        for one in self.stored:
            part, is_due = self.parts.get(one), step % self.every == 0
            if part is None:
                self._replace(one, rounded(one.rows(), one.kind))
                continue
            if is_due:
                part.copy_(encoded(one.rows(), one.kind).flatten())
            if is_due or one not in self.values:  # a resumed training has the bytes
                self.values[one] = decoded(part.unflatten(0, (-1, one.row_bytes)), one.kind, one.weight.device)
            self._replace(one, self.values[one])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back, for the optimizer."""
        for one, own in zip(self.stored, self.own, strict=True):
            one.weight.copy_(own)
        self.own.clear()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context, between two steps, the model has the numbers of a file made now."""
        with torch.no_grad():
            for one in self.stored:
                self._replace(one, rounded(one.rows(), one.kind))
        try:
            yield
        finally:
            self.restore()

    def _replace(self, one: Stored, rows: torch.Tensor) -> None:
        self.own.append(one.weight.detach().clone())
        one.weight.copy_(one.as_weight(rows))


def quantised_weights(model: PreTrainedModel, folder: ModelFolder, format_name: str, every: int) -> QuantisedWeights:
    """The weights of a model in training as a file of some format will hold them.

    Args:
        model: The model, with its weights in float32.
        folder: The folder that it was loaded from.
        format_name: Such as `gguf-q4_0`.
        every: See `QuantisedWeights`.

    Raises:
        RecipeError: See `trained_types`.
        ModelError: A weight of the model is not one of the folder's.
    """
    types = {}
    for name, found in trained_types(folder, format_name, "quantise").items():
        place = folder.family.place(name)
        assert place is not None  # it has a tensor in the file
        types[folder.family.name_of(place.key, place.layer, place.expert)] = found
    head = model.get_output_embeddings()  # GPT-NeoX's has another name in checkpoints than in memory
    of_head = next((found for found in types.values() if found[0].name == "output.weight"), None)
    stored, dtype = [], saved_dtype(folder)
    for name, weight in model.named_parameters():
        found_for = types.get(name, of_head if head is not None and weight is head.weight else None)
        if found_for is None:
            raise ModelError(f"quantise: {format_name}: the weight {name} of {folder.path} has no tensor in the file")
        tensor, kind = found_for
        if kind != ggml.F32 or dtype != weight.dtype:
            stored.append(Stored(weight, tensor, kind, dtype))
    return QuantisedWeights(stored, every)


class Quantising(Watcher):
    """Trains with the weights of a file: a callback of the Trainer, whose work counts as training.

    Args:
        weights: The weights.
    """

    def __init__(self, weights: QuantisedWeights) -> None:
        super().__init__()
        self.weights = weights

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Before the first micro-batch of a step: the file's numbers."""
        self.weights.put(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Before the optimizer's step: the weights themselves."""
        self.weights.restore()
