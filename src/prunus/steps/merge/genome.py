"""The encoding of merge options as vectors, for evolution.

K models of L layers; for `parameters` D = groups x modules x (K weights and K densities, or t); for `flow` D = 2 R K L:
for each position of the longest path whether it is used, and its scale
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunus.models.families.family import Part
from prunus.steps.merge.config import MIN_WEIGHT, EvolveConfig, FlowConfig, MergeConfig, PartConfig

_MODULES: tuple[Part, ...] = ("attention", "mlp", "other")
_SCALES = (0.25, 2.0)
_TAKEN = 0.25  # initial value of used positions (the first model's layers); unused ones start at -0.25
_DENSITIES = (0.05, 1.0)


@dataclass(frozen=True)
class Genome:
    """The vectors of one evolution.

    Attributes:
        config: The options that it starts from.
        models: K.
        layers: L.
    """

    config: MergeConfig
    models: int
    layers: int

    @property
    def evolve(self) -> EvolveConfig:
        """The options of evolution."""
        return self.config.evolve

    def start(self) -> np.ndarray:
        """The vector of the given options, [D]; for `flow` without a path, that of the first model's layers."""
        if self.config.method == "flow":
            given = set(self.config.flow.path()) or {(0, layer) for layer in range(self.layers)}
            taken = [_TAKEN if place in given else -_TAKEN for place in self._places()]
            return np.array([*taken, *[1.0] * len(taken)])
        return np.array([value for _ in self.parts() for value in self._initial()])

    def bounds(self) -> np.ndarray:
        """The smallest and largest value of each number: [D, 2]."""
        if self.config.method == "flow":
            count = len(list(self._places()))
            return np.array([(-1.0, 1.0)] * count + [_SCALES] * count)
        low, high = self.evolve.bounds
        if self.config.normalizes:
            low = max(low, MIN_WEIGHT)  # the divisor, their sum, must not be 0
        each = [(0.0, 1.0)] if self.config.definition.interpolates else [(low, high)] * self.models
        if self._has_densities:
            each += [_DENSITIES] * self.models
        return np.array(each * len(self.parts()))

    def decode(self, vector: np.ndarray) -> MergeConfig:
        """The options that a vector encodes, with evolution off."""
        config = self.config.model_copy(update={"evolve": EvolveConfig()})
        if self.config.method == "flow":
            return config.model_copy(update={"flow": self._flow(vector)})
        rows = vector.reshape(len(self.parts()), -1)
        parts = [
            PartConfig.model_validate({**part, **self._values([round(float(v), 6) for v in row])})
            for part, row in zip(self.parts(), rows, strict=True)
        ]
        return config.model_copy(update={"parts": (*self.config.parts, *parts)})

    def parts(self) -> list[dict[str, Any]]:
        """The parts of a model that have separate values."""
        modules = [{"module": module} for module in _MODULES] if "module" in self.evolve.per else [{}]
        if "layer" not in self.evolve.per:
            return [dict(module) for module in modules]
        groups = np.array_split(np.arange(self.layers), min(self.evolve.groups or self.layers, self.layers))
        inside = [{"layers": f"{group[0]}-{group[-1]}", **module} for group in groups for module in modules]
        return [{}, *inside]  # the first is for weights outside the layers; inside them, later parts override it

    @property
    def _has_densities(self) -> bool:
        return self.evolve.densities and self.config.definition.sparse

    def _initial(self) -> list[float]:
        if self.config.definition.interpolates:
            return [self.config.t]
        weights = list(self.config.weights) or [1.0] * self.models
        densities = list(self.config.densities) or [0.5] * self.models
        return [*weights, *(densities if self._has_densities else [])]

    def _values(self, row: list[float]) -> dict[str, Any]:
        if self.config.definition.interpolates:
            return {"t": row[0]}
        densities = {"densities": row[self.models :]} if self._has_densities else {}
        return {"weights": row[: self.models], **densities}

    def _places(self) -> Iterator[tuple[int, int]]:
        """Every position of a path, as (model, layer): all models' layers in order, `repeats` times."""
        for _ in range(self.evolve.repeats):
            for model in range(self.models):
                for layer in range(self.layers):
                    yield model, layer

    def _flow(self, vector: np.ndarray) -> FlowConfig:
        """The path of positions with a value above 0: at most `max_layers`, at least one, the highest values first."""
        places = list(self._places())
        taken, scales = vector[: len(places)], vector[len(places) :]
        most = self.evolve.max_layers or self.layers
        best = np.argsort(-taken, kind="stable")[: max(1, min(most, int((taken > 0).sum())))]
        order = sorted(best.tolist())
        return FlowConfig(
            layers=tuple(f"{places[i][0]}:{places[i][1]}" for i in order),
            scales=tuple(round(float(scales[i]), 6) for i in order),
        )
