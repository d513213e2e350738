"""Statistics of a model's activations, by hooks on the modules that the family's table names, summed over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunus.models.axes import parse_weight
from prunus.models.families.family import Experts, Family
from prunus.models.shape import Shape
from prunus.steps.score.config import GRADIENTS
from prunus.steps.score.importance import (
    covariance,
    energies,
    expert_terms,
    gradient_covariance,
    head_norms,
    head_products,
    moments,
    output_products,
    over_sequence,
    routed_tokens,
    routing_values,
    stream_cosines,
    taylor_terms,
)

NEURONS = {"neurons": "mlp", "shared": "shared", "dense": "dense", "conv": "conv"}
"""Neurons of linear modules by the name of their statistics, and their axis in a family's table."""

HEADS = {"heads": ("heads", "head_dim"), "linear_heads": ("linear_values", "linear_value_head_dim")}
"""Heads by the name of their statistics: their axis in a family's table, and the size of their dimensions."""

SSM = ("ssm_heads", "ssm_head_dim")
"""The axes of the segments of a state-space layer's input projection that are its gates and then its inputs."""

SEQUENCE = ("mean", "l2", "variance")
_STRIDE = 4  # covariances use every fourth position, so that they cost little compared with the forward pass
_EXPERT_STRIDE = 16  # all experts' outputs of every sixteenth token, from the ninth on: the first of a text is unlike


class Statistics:
    """Sums over calibration batches, all filled by the same passes.

    Attributes:
        sums: By name:
            `neurons.<how>` [2, L, mlp], `heads.<how>` [2, L, heads], `channels.<how>` [2, norms, hidden] and, in a
            mixture of experts, `experts.<how>` [2, L, E]: `moments` of `over_sequence`, for each aggregation that is
            collected. The norms are those of each layer over the residual stream, then the final norm; experts are
            scored by their router probabilities.
            `neurons.squares` [L, E, mlp]: in a mixture of experts, replaces the moments of neurons: squares of each
            expert's neurons, summed over the tokens routed to it.
            `experts.frequency` [L, E]: tokens routed to each expert.
            `experts.reap` [2, L, E]: Σ g |f| of `expert_terms`, and the tokens that it sums over.
            `experts.products` [L, E, E]: `output_products`, of every sixteenth position.
            `shared.<how>` [2, L, shared] and `dense.<how>` [2, L, dense]: in a mixture, as those of neurons, of the
            shared experts and of the MLPs of layers without experts; 0 in layers that have none.
            `conv.<how>` [2, L, conv]: the same of channels of short convolutions.
            `linear_heads.<how>` [2, L, values]: as those of heads, of the value heads of linear attention.
            `ssm_heads.<how>` [2, L, heads]: the same of the inputs of the heads of state-space layers.
            `neurons.gradients` [2, L, mlp], `heads.gradients`, `channels.gradients`: `taylor_terms`.
            `covariance` [hidden, hidden]: of the inputs of all norms over the residual stream, summed over the norms.
            `gradient_covariance` [hidden, hidden]: the same of the loss's gradients by those inputs.
            `energy.<norm>` [L, C] or [C]: `energies` of each norm's input.
            `cosines` [L + 1, L + 1]: `stream_cosines`.
            `counts` [2]: number of sequences and of tokens.
        shape: The model's shape.
    """

    def __init__(self, shape: Shape, collect: tuple[str, ...], device: torch.device) -> None:
        self.shape, self.collect, self.device = shape, collect, device
        self.aggregations = [how for how in SEQUENCE if how in collect]
        layers, sizes = shape.num_hidden_layers, shape.sizes()
        flags, (layered, shared) = shape.flags, shape.family.norms
        lines = {name: parse_weight(shape.family.layered[f"{name}.weight"]) for name in layered}
        axes = {name: line for name, line in lines.items() if line.exists(flags)}
        self.layered, self.lines = list(axes), axes
        self.over_stream = [name for name in axes if axes[name].has("hidden")]
        self.norms = layers * len(self.over_stream) + len(shared)
        self.sums: dict[str, torch.Tensor] = {}
        members = {"heads": (layers, shape.num_attention_heads), "channels": (self.norms, shape.hidden_size)}
        self.members = members
        if shape.num_experts:
            self._add("neurons.squares", layers, shape.num_experts, shape.intermediate_size)
            members["experts"] = (layers, shape.num_experts)
            members |= {axis: (layers, sizes[axis]) for axis in ("shared", "dense") if sizes[axis]}
            for name, leading in (("frequency", ()), ("reap", (2,)), ("products", ())):
                if name in collect:
                    each = (shape.num_experts,) * (2 if name == "products" else 1)
                    self._add(f"experts.{name}", *leading, layers, *each)
        else:
            members["neurons"] = (layers, shape.intermediate_size)
        kinds = {
            "linear_heads": shape.linear_num_value_heads,
            "ssm_heads": shape.mamba_num_heads,
            "conv": shape.conv_channels,
        }
        members |= {axis: (layers, size) for axis, size in kinds.items() if size}
        for axis, size in members.items():
            for how in self.aggregations:
                self._add(f"{axis}.{how}", 2, *size)
            if "gradients" in collect and axis != "experts":
                self._add(f"{axis}.gradients", 2, *size)
        for name in ("covariance", "gradient_covariance"):
            if name in collect:
                self._add(name, shape.hidden_size, shape.hidden_size)
        for name, line in axes.items():
            self._add(f"energy.{name}", layers, *line.shape(sizes))
        for name in shared:
            self._add(f"energy.{name}", shape.hidden_size)
        self._add("cosines", layers + 1, layers + 1)
        self._add("counts", 2)
        self._stream: list[torch.Tensor] = []

    @property
    def backward(self) -> bool:
        """Whether a backward pass is needed."""
        return bool(GRADIENTS & set(self.collect))

    def _add(self, name: str, *size: int) -> None:
        self.sums[name] = torch.zeros(*size, dtype=torch.float64, device=self.device)

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Within this context, every forward pass of `model` adds to the sums."""
        handles = list(self._hooks(model, self.shape.family))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def end_batch(self) -> None:
        """Add the statistics that need a complete forward pass: cosines between layers, and counts."""
        stream = torch.stack(self._stream)
        self.sums["cosines"] += stream_cosines(stream)
        self.sums["counts"] += torch.tensor([stream.shape[1], stream.shape[1] * stream.shape[2]], device=self.device)
        self._stream.clear()

    def _hooks(self, model: nn.Module, family: Family) -> Iterator[Any]:
        for i in range(self.shape.num_hidden_layers):
            layer = model.get_submodule(family.layer_name(i))
            yield layer.register_forward_pre_hook(self._store_input, with_kwargs=True)
            kinds = self.shape.kinds[i]
            if family.experts is not None and self.shape.has_units("experts", i):
                yield from self._expert_hooks(layer, i, family.experts)
            for units, axis in NEURONS.items():
                for name in family.readers(axis, kinds) if units in self.members else []:
                    yield layer.get_submodule(name).register_forward_pre_hook(self._on_input(units, i))
            for units, (axis, dim) in HEADS.items():
                for name in family.readers(axis, kinds) if units in self.members else []:
                    hook = self._on_heads(units, i, getattr(self.shape, dim))
                    yield layer.get_submodule(name).register_forward_pre_hook(hook)
            if "ssm_heads" in self.members and self.shape.has_units("ssm_heads", i):
                name, part = family.segment_of(SSM, self.shape.sizes())
                hook = self._on_inputs(i, part, self.shape.mamba_head_dim)
                yield layer.get_submodule(name).register_forward_hook(hook)
            for name in self.layered:
                if not self.lines[name].stands_in(kinds):
                    continue
                row = i * len(self.over_stream) + self.over_stream.index(name) if name in self.over_stream else None
                yield from self._norm_hooks(layer.get_submodule(name), self.sums[f"energy.{name}"][i], row)
            if i == self.shape.num_hidden_layers - 1:
                yield layer.register_forward_hook(self._store_output)
        for j, name in enumerate(reversed(family.norms[1]), start=1):
            norm = model.get_submodule(family.module_name(name))
            yield from self._norm_hooks(norm, self.sums[f"energy.{name}"], self.norms - j)

    def _norm_hooks(self, module: nn.Module, energy: torch.Tensor, row: int | None) -> Iterator[Any]:
        """Hooks of one norm; `row` is its index among the norms over the residual stream, None for other norms."""
        centred = self.shape.family.layer_norm

        def on_input(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            whole = self._in_sequences(args[0].detach())
            energy.add_(energies(whole, centred))
            x = whole[:, ::_STRIDE]
            if row is not None and "covariance" in self.sums:
                self.sums["covariance"].add_(covariance(x, centred))
            if row is not None and "gradient_covariance" in self.sums:
                args[0].register_hook(lambda g: self._gradients(x, g.reshape(whole.shape)[:, ::_STRIDE]))

        yield module.register_forward_pre_hook(on_input)
        if row is not None:
            yield module.register_forward_hook(lambda *call: self._units("channels", row, call[-1]))

    def _on_input(self, axis: str, i: int) -> Callable[..., None]:
        return lambda _, args: self._units(axis, i, args[0])

    def _on_heads(self, axis: str, i: int, dim: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            heads = args[0].detach()
            self._moments(axis, i, head_norms(heads, dim))
            if "gradients" in self.collect:
                args[0].register_hook(lambda g: self._products(axis, i, head_products(heads, g.detach(), dim)))

        return hook

    def _on_inputs(self, i: int, part: slice, dim: int) -> Callable[..., None]:
        """Scores heads of state-space layers by what they take in (arXiv 2504.11409, section 3.1)."""

        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            heads = output.detach()[..., part]
            self._moments("ssm_heads", i, head_norms(heads, dim))
            if "gradients" in self.collect:
                output.register_hook(
                    lambda g: self._products("ssm_heads", i, head_products(heads, g.detach()[..., part], dim))
                )

        return hook

    def _units(self, axis: str, i: int, values: torch.Tensor) -> None:
        whole = self._in_sequences(values.detach())
        self._moments(axis, i, whole)
        if "gradients" in self.collect:
            values.register_hook(
                lambda g: self._products(axis, i, whole.float() * g.detach().float().reshape(whole.shape))
            )

    def _in_sequences(self, values: torch.Tensor) -> torch.Tensor:
        """Values as [B, S, ..., C], also where layers join batch and positions, or these and heads."""
        if values.ndim != 2:
            return values
        batch, length = self._stream[-1].shape[:2]
        heads = () if len(values) == batch * length else (len(values) // (batch * length),)
        return values.reshape(batch, length, *heads, values.shape[-1])

    def _moments(self, axis: str, i: int, values: torch.Tensor) -> None:
        for how in self.aggregations:
            self.sums[f"{axis}.{how}"][:, i] += moments(over_sequence(values, how))

    def _gradients(self, x: torch.Tensor, gradients: torch.Tensor) -> None:
        centred = self.shape.family.layer_norm
        self.sums["gradient_covariance"] += gradient_covariance(x, gradients, centred)

    def _products(self, axis: str, i: int, products: torch.Tensor) -> None:
        self.sums[f"{axis}.gradients"][:, i] += taylor_terms(products)

    def _expert_hooks(self, layer: nn.Module, i: int, names: Experts) -> Iterator[Any]:
        mixture = layer.get_submodule(names.module)
        squares = self.sums["neurons.squares"][i]
        frequency, reap, products = (self.sums.get(f"experts.{name}") for name in ("frequency", "reap", "products"))

        def route(_: nn.Module, __: Any, output: tuple[torch.Tensor, ...]) -> None:
            logits = output[0] if output[0].is_floating_point() else output[-1]
            values = routing_values(logits.detach(), names.probability)
            self._moments("experts", i, values.view(*self._stream[-1].shape[:2], -1))

        def add(module: Any, args: tuple[torch.Tensor, ...]) -> None:
            tokens, routed, gates = (value.detach() for value in args)
            of_neurons, of_outputs = expert_terms(module, names, tokens, routed, gates, reap is not None)
            squares.add_(of_neurons)
            counts = routed_tokens(routed, self.shape.num_experts)
            if frequency is not None:
                frequency[i] += counts
            if reap is not None:
                reap[:, i] += torch.stack([of_outputs, counts])
            if products is not None:
                products[i] += output_products(module, names, tokens[_EXPERT_STRIDE // 2 :: _EXPERT_STRIDE])

        yield mixture.get_submodule(names.router).register_forward_hook(route)
        yield mixture.get_submodule(names.stacked).register_forward_pre_hook(add)

    def _store_input(self, _: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        self._stream.append((args[0] if args else kwargs["hidden_states"]).detach())

    def _store_output(self, _: nn.Module, args: Any, output: Any) -> None:
        self._stream.append((output[0] if isinstance(output, tuple) else output).detach())
