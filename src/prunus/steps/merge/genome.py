"""What evolution changes, as a vector of numbers, and what options such a vector stands for.

K models, L layers of each; in the space of parameters D = groups x modules x (K weights and K densities, or t), in the
space of flows D = 2 R K L: for each place of the longest path whether it is taken, and its scale
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
_TAKEN = 0.25  # where the first model's layers start; the others start as far below 0
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
        """The vector of the options as they are given: [D]; of flows the first model's own path."""
        if self.config.method == "flow":
            given = set(self.config.flow.path()) or {(0, layer) for layer in range(self.layers)}
            taken = [_TAKEN if place in given else -_TAKEN for place in self._places()]
            return np.array([*taken, *[1.0] * len(taken)])
        return np.array([value for _ in self.parts() for value in self._given()])

    def bounds(self) -> np.ndarray:
        """The least and the largest value of each number: [D, 2]."""
        if self.config.method == "flow":
            count = len(list(self._places()))
            return np.array([(-1.0, 1.0)] * count + [_SCALES] * count)
        low, high = self.evolve.bounds
        if self.config.normalizes:
            low = max(low, MIN_WEIGHT)  # of which one divides by the sum
        each = [(0.0, 1.0)] if self.config.definition.interpolates else [(low, high)] * self.models
        if self._has_densities:
            each += [_DENSITIES] * self.models
        return np.array(each * len(self.parts()))

    def decode(self, vector: np.ndarray) -> MergeConfig:
        """The options that a vector stands for, without evolution."""
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
        """The parts of a model that have values of their own."""
        modules = [{"module": module} for module in _MODULES] if "module" in self.evolve.per else [{}]
        if "layer" not in self.evolve.per:
            return [dict(module) for module in modules]
        groups = np.array_split(np.arange(self.layers), min(self.evolve.groups or self.layers, self.layers))
        inside = [{"layers": f"{group[0]}-{group[-1]}", **module} for group in groups for module in modules]
        return [{}, *inside]  # the first holds what stands outside all layers, and is overruled inside them

    @property
    def _has_densities(self) -> bool:
        return self.evolve.densities and self.config.definition.sparse

    def _given(self) -> list[float]:
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
        """Every place that a path may come by, in order: model after model, layer after layer, `repeats` times."""
        for _ in range(self.evolve.repeats):
            for model in range(self.models):
                for layer in range(self.layers):
                    yield model, layer

    def _flow(self, vector: np.ndarray) -> FlowConfig:
        """The places whose number is above 0, or the highest where these are too many or none."""
        places = list(self._places())
        taken, scales = vector[: len(places)], vector[len(places) :]
        most = self.evolve.max_layers or self.layers
        best = np.argsort(-taken, kind="stable")[: max(1, min(most, int((taken > 0).sum())))]
        order = sorted(best.tolist())
        return FlowConfig(
            layers=tuple(f"{places[i][0]}:{places[i][1]}" for i in order),
            scales=tuple(round(float(scales[i]), 6) for i in order),
        )
