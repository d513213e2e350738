"""Options of a larger teacher, and its shape."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from prunus.config import Seed, StepConfig
from prunus.errors import ShapeError
from prunus.models.shape import Shape


class ExpandConfig(StepConfig):
    """Add layers and neurons that change no output until they are trained.

    Neurons as in Net2Net (Chen et al. 2015, arXiv 1511.05641), layers as in LLaMA Pro (Wu et al. 2024, arXiv
    2401.02415).
    """

    kind: ClassVar[str] = "expand"
    revision: ClassVar[int] = 1

    num_hidden_layers: int | None = Field(default=None, ge=1)
    """Number of layers. Each new one is a copy of the layer below it that adds nothing until it is trained; new layers
    are evenly spaced."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Neurons of each MLP. New ones have random input weights and zero output weights."""
    seed: Seed = 0
    """Seed of the new neurons' input weights."""

    @model_validator(mode="after")
    def _something(self) -> ExpandConfig:
        if self.num_hidden_layers is None and self.intermediate_size is None:
            raise ValueError("nothing to expand; give num_hidden_layers, intermediate_size or both")
        return self

    def target(self, teacher: Shape, where: str) -> Shape:
        """The larger shape.

        Args:
            teacher: The shape to start from.
            where: The name of this config in the recipe.

        Raises:
            ShapeError: A dimension is smaller than the teacher's, or none is larger.
        """
        sizes = {"num_hidden_layers": self.num_hidden_layers, "intermediate_size": self.intermediate_size}
        for key, value in sizes.items():
            if value is not None and value < getattr(teacher, key):
                raise ShapeError(
                    f"{where}.{key}: {value} is less than the model's {getattr(teacher, key)}; "
                    "to make models smaller, use prune"
                )
        origins = origins_of(teacher.num_hidden_layers, self.num_hidden_layers or teacher.num_hidden_layers)
        larger = teacher.of_layers(origins).with_dimensions({"intermediate_size": self.intermediate_size})
        if larger == teacher:
            raise ShapeError(f"{where}: no size is larger than the model's")
        return larger


def origins_of(layers: int, count: int) -> list[int]:
    """For each of `count` layers, the original layer that it is or copies; copies directly follow their original."""
    return [layer * layers // count for layer in range(count)]
