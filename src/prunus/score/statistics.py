"""Statistics of a model at work: hooks on the modules that a family's axis table names, summed over batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunus.models.axes import Family
from prunus.models.shape import Shape
from prunus.score.importance import head_norms, squared_sequence_means, stream_cosines


class Statistics:
    """Sums over calibration batches, all filled by the same forward passes.

    Attributes:
        neurons: [L, mlp], heads: [L, heads], channels: [norms, hidden]: sums of `squared_sequence_means`; the norms
            are those of each layer in turn, then the final one.
        cosines: [L + 1, L + 1], sums of `stream_cosines`.
        tokens: How many tokens went in.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        layered, shared = shape.family.norms()
        norms = shape.num_hidden_layers * len(layered) + len(shared)

        def zeros(rows: int, columns: int) -> torch.Tensor:
            return torch.zeros(rows, columns, dtype=torch.float64, device=device)

        self.shape = shape
        self.neurons = zeros(shape.num_hidden_layers, shape.intermediate_size)
        self.heads = zeros(shape.num_hidden_layers, shape.num_attention_heads)
        self.channels = zeros(norms, shape.hidden_size)
        self.cosines = zeros(shape.num_hidden_layers + 1, shape.num_hidden_layers + 1)
        self.tokens = 0
        self._stream: list[torch.Tensor] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Fill the sums with every forward pass of `model` for as long as the context is open."""
        handles = list(self._hooks(model, self.shape.family))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end_batch(self) -> None:
        """Add what needs a whole forward pass: the cosines between layers."""
        stream = torch.stack(self._stream)
        self.cosines += stream_cosines(stream)
        self.tokens += stream.shape[1] * stream.shape[2]
        self._stream.clear()

    def _hooks(self, model: nn.Module, family: Family) -> Iterator[Any]:
        layered, shared = family.norms()
        for i in range(self.shape.num_hidden_layers):
            prefix = family.layer.format(i)
            layer = model.get_submodule(prefix.rstrip("."))
            yield layer.register_forward_pre_hook(self._keep_input, with_kwargs=True)
            for name in family.readers("mlp"):
                yield layer.get_submodule(name).register_forward_pre_hook(self._add(self.neurons[i]))
            for name in family.readers("heads"):
                yield layer.get_submodule(name).register_forward_pre_hook(self._add(self.heads[i], self.shape.head_dim))
            for j, name in enumerate(layered):
                row = self.channels[i * len(layered) + j]
                yield layer.get_submodule(name).register_forward_hook(self._add_output(row))
            if i == self.shape.num_hidden_layers - 1:
                yield layer.register_forward_hook(self._keep_output)
        for j, name in enumerate(shared):
            row = self.channels[self.shape.num_hidden_layers * len(layered) + j]
            yield model.get_submodule(name).register_forward_hook(self._add_output(row))

    @staticmethod
    def _add(row: torch.Tensor, head_dim: int = 0) -> Any:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            row.add_(squared_sequence_means(head_norms(args[0], head_dim) if head_dim else args[0]))

        return hook

    @staticmethod
    def _add_output(row: torch.Tensor) -> Any:
        def hook(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            row.add_(squared_sequence_means(output))

        return hook

    def _keep_input(self, _: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._stream.append((args[0] if args else kwargs["hidden_states"]).detach())

    def _keep_output(self, _: nn.Module, args: Any, output: Any) -> None:
        self._stream.append((output[0] if isinstance(output, tuple) else output).detach())
