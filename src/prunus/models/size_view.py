"""A smaller size of a nest as a stock model whose weights are parts of the largest's, for training both at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import nn
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedModel

from prunus.errors import ModelError
from prunus.models.axes import parse_weight
from prunus.models.families.family import Place
from prunus.models.load import ready
from prunus.models.nest import Nested
from prunus.models.prefix import Part, named_places, parts
from prunus.models.shape import Shape
from prunus.models.student import student_config

T = TypeVar("T")

_UP, _DOWN = "experts (2 mlp) hidden", "experts hidden mlp"
"""The lines of stacked experts, which exist in memory only; see `Experts`."""


class SizeView:
    """A size of a nest, run with the current weights of the largest.

    Its weights are slices of the largest's, so gradients flow into those; of its own it has the gains and biases of its
    norms.

    Args:
        model: The largest size in memory.
        largest: Its shape.
        config: Its config.json.
        size: The size.
        norms: The gains and biases of the size's norms, by name in its checkpoint.

    Attributes:
        name: The size's name.
        norms: Its gains and biases as parameters, by name.

    Raises:
        ModelError: The stock class has other weights than the family's table implies.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        largest: Shape,
        config: Mapping[str, Any],
        size: Nested,
        norms: Mapping[str, np.ndarray],
    ) -> None:
        self.name, self._large = size.name, model
        settings = student_config(config, largest, size.shape, list(size.layers))
        with init_empty_weights(include_buffers=False):
            built = AutoModelForCausalLM.from_config(type(model.config).from_dict(settings))
        for module in built.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(model.device)
        self._caller = _Caller(ready(built))
        found = {part.name: part for part in parts(largest, size.shape, size.layers, _in_memory(size.shape))}
        self.norms = {
            name: nn.Parameter(torch.from_numpy(norms[name]).to(model.device)) for name in found if found[name].is_norm
        }
        self._parts = {name: self._part(name, found, size.shape) for name, _ in _named(built)}
        self._check(built)

    def run(self, function: Callable[[PreTrainedModel], T]) -> T:
        """Call a function with the size as a model, whose weights exist only within the call.

        With gradient checkpointing, the function must run the backward pass too.
        """
        self._caller.train(self._large.training)
        if _recomputes(self._large) and not _recomputes(self._caller):
            self._caller.model.gradient_checkpointing_enable({"use_reentrant": False})
        sources = self._sources()
        tensors = {f"model.{name}": self._tensor(part, sources) for name, part in self._parts.items()}
        result: T = functional_call(self._caller, tensors, (function,), tie_weights=False)
        return result

    def _tensor(self, part: _Slices, sources: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.norms[part.name] if part.name in self.norms else part.of(sources[part.source])

    def _part(self, name: str, found: Mapping[str, Part], shape: Shape) -> _Slices:
        """The part of which a parameter consists; of a tied head, the embedding's."""
        if name in found:
            return _Slices(found[name], self._large.device)
        tables = [key for key, line in shape.family.shared.items() if parse_weight(line).runs_over("vocab", 0)]
        head = found[[key for key in tables if key in found][-1]]  # which transformers may call otherwise
        return _Slices(head if head.source in self._sources() else replace(head, source=name), self._large.device)

    def _sources(self) -> dict[str, nn.Parameter]:
        """The largest size's parameters by all of their names."""
        return dict(_named(self._large))

    def _check(self, built: PreTrainedModel) -> None:
        sources = self._sources()
        for name, parameter in _named(built):
            part = self._parts[name]
            shape = self.norms[part.name].shape if part.name in self.norms else None
            if shape is None and part.source in sources:
                shape = part.of(sources[part.source].to("meta")).shape
            if shape != parameter.shape:
                raise ModelError(
                    f"{type(built).__name__}: {name} is {list(parameter.shape)}, but as a part of the largest size it "
                    f"is {'missing' if shape is None else list(shape)}"
                )


def _recomputes(model: nn.Module) -> bool:
    """Whether gradient checkpointing is on."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


class _Caller(nn.Module):
    """Calls a function with a model, so that `functional_call` covers all that the function does with it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[PreTrainedModel], T]) -> T:
        return function(self.model)


class _Slices:
    """A part of a weight, as slices where its indices are consecutive.

    Args:
        part: The part.
        device: The device of the weights.
    """

    def __init__(self, part: Part, device: torch.device) -> None:
        self.name, self.source = part.name, part.source
        self._dims = [_selection(indices, device) for indices in part.indices]
        self._factor: torch.Tensor | float = 1.0
        if np.any(part.factor != 1.0):
            rows = np.broadcast_to(part.factor, (len(part.indices[0]),)).reshape(-1, *[1] * (len(part.indices) - 1))
            self._factor = torch.tensor(rows, dtype=torch.float32, device=device)

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """The part of a weight."""
        for dim, selection in enumerate(self._dims):
            if isinstance(selection, slice):
                weight = weight.narrow(dim, selection.start, selection.stop - selection.start)
            else:
                weight = weight.index_select(dim, selection.to(weight.device))
        return weight if isinstance(self._factor, float) else weight * self._factor.to(weight.device, weight.dtype)


def _selection(indices: np.ndarray, device: torch.device) -> slice | torch.Tensor:
    first = int(indices[0])
    if np.array_equal(indices, np.arange(first, first + len(indices))):
        return slice(first, first + len(indices))
    return torch.from_numpy(indices).to(device)


def _named(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a model by all of their names."""
    return model.named_parameters(remove_duplicate=False)


def _in_memory(shape: Shape) -> Iterator[tuple[str, Place]]:
    """Name and place of every weight of a loaded model: as in a checkpoint, but with stacked experts."""
    experts = shape.family.experts
    if experts is None:
        yield from named_places(shape)
        return
    for name, place in named_places(shape):
        if place.expert is None:
            key = f"{experts.module}.{experts.router}.weight" if place.weight.has("experts") else place.key
            yield (name if place.layer is None else shape.family.name_of(key, place.layer)), replace(place, key=key)
    for layer in range(shape.num_hidden_layers):
        for stacked, line in ((experts.gate_up, _UP), (experts.down, _DOWN)):
            key = f"{experts.module}.{experts.stacked}.{stacked}"
            yield shape.family.name_of(key, layer), Place(key, parse_weight(line), layer)
