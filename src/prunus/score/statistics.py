"""Statistics of a model at work: hooks on the modules that a family's axis table names, summed over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunus.models.axes import Family, parse_weight
from prunus.models.shape import Shape
from prunus.score.importance import (
    energies,
    expert_squares,
    head_norms,
    routing_squares,
    squared_sequence_means,
    stream_cosines,
)


class Statistics:
    """Sums over calibration batches, all filled by the same forward passes.

    Attributes:
        neurons: [L, mlp], or [L, E, mlp] in a mixture of experts: sums of `squared_sequence_means`; of an expert's
            neurons, of the squares over the tokens that go through it.
        heads: [L, heads], channels: [norms, hidden]: sums of `squared_sequence_means`; the norms are those of each
            layer that run over the residual stream, then the final one.
        experts: [L, E]: sums of `squared_sequence_means` of the router's probabilities.
        energies: For each norm [L, C] or [C]: sums of `energies` of what it reads.
        cosines: [L + 1, L + 1], sums of `stream_cosines`.
        tokens: How many tokens went in.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        layers, sizes = shape.num_hidden_layers, shape.sizes()
        layered, shared = shape.family.norms
        axes = {name: parse_weight(shape.family.layered[f"{name}.weight"]) for name in layered}

        def zeros(*dims: int) -> torch.Tensor:
            return torch.zeros(*dims, dtype=torch.float64, device=device)

        experts = [shape.num_experts] if shape.num_experts else []
        self.shape = shape
        self.over_stream = [name for name in layered if axes[name].has("hidden")]
        self.neurons = zeros(layers, *experts, shape.intermediate_size)
        self.heads = zeros(layers, shape.num_attention_heads)
        self.experts = zeros(layers, *experts) if experts else None
        self.channels = zeros(layers * len(self.over_stream) + len(shared), shape.hidden_size)
        self.energies = {name: zeros(layers, *axes[name].shape(sizes)) for name in layered}
        self.energies |= {name: zeros(shape.hidden_size) for name in shared}
        self.cosines = zeros(layers + 1, layers + 1)
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
        for i in range(self.shape.num_hidden_layers):
            layer = model.get_submodule(family.layer.format(i).rstrip("."))
            yield layer.register_forward_pre_hook(self._keep_input, with_kwargs=True)
            yield from self._expert_hooks(layer, i) if self.experts is not None else self._neuron_hooks(layer, i)
            for name in family.readers("heads"):
                hook = _on_input(self.heads[i], lambda x: squared_sequence_means(head_norms(x, self.shape.head_dim)))
                yield layer.get_submodule(name).register_forward_pre_hook(hook)
            for name in family.norms[0]:
                module = layer.get_submodule(name)
                yield module.register_forward_pre_hook(_on_input(self.energies[name][i], self._energy))
                if name in self.over_stream:
                    row = self.channels[i * len(self.over_stream) + self.over_stream.index(name)]
                    yield module.register_forward_hook(_on_output(row))
            if i == self.shape.num_hidden_layers - 1:
                yield layer.register_forward_hook(self._keep_output)
        for j, name in enumerate(reversed(family.norms[1]), start=1):
            module = model.get_submodule(name)
            yield module.register_forward_pre_hook(_on_input(self.energies[name], self._energy))
            yield module.register_forward_hook(_on_output(self.channels[-j]))

    def _neuron_hooks(self, layer: nn.Module, i: int) -> Iterator[Any]:
        for name in self.shape.family.readers("mlp"):
            hook = _on_input(self.neurons[i], squared_sequence_means)
            yield layer.get_submodule(name).register_forward_pre_hook(hook)

    def _expert_hooks(self, layer: nn.Module, i: int) -> Iterator[Any]:
        assert self.experts is not None
        mixture = layer.get_submodule("mlp")  # transformers keeps the router and the experts of every family there
        router = mixture.get_parameter("gate.weight")
        yield mixture.register_forward_pre_hook(_on_input(self.experts[i], lambda x: routing_squares(x, router)))
        neurons = self.neurons[i]

        def add(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            neurons.add_(expert_squares(module, args[0], args[1]))

        yield mixture.get_submodule("experts").register_forward_pre_hook(add)

    def _energy(self, x: torch.Tensor) -> torch.Tensor:
        return energies(x, centred=self.shape.family.layer_norm)

    def _keep_input(self, _: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._stream.append((args[0] if args else kwargs["hidden_states"]).detach())

    def _keep_output(self, _: nn.Module, args: Any, output: Any) -> None:
        self._stream.append((output[0] if isinstance(output, tuple) else output).detach())


def _on_input(row: torch.Tensor, statistic: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        row.add_(statistic(args[0]))

    return hook


def _on_output(row: torch.Tensor) -> Any:
    def hook(_: nn.Module, args: Any, output: torch.Tensor) -> None:
        row.add_(squared_sequence_means(output))

    return hook
