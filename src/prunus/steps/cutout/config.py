"""Options of cutting a size out of a nest."""

from __future__ import annotations

from typing import ClassVar

from prunus.config import StepConfig
from prunus.models.nest import Nest
from prunus.models.shape import Shape
from prunus.models.sizes import Sizes


class CutoutConfig(Sizes, StepConfig):
    """Write one size of a nest as a plain model folder. With sizes set, one between those that were trained."""

    kind: ClassVar[str] = "cutout"
    revision: ClassVar[int] = 1

    shape: str | None = None
    """Name of the size; of one between, the size that the unset ones are those of. If unset: the largest."""

    def target(self, nest: Nest, where: str) -> Shape:
        """The shape to cut out.

        Raises:
            ShapeError: There is no size of that name.
        """
        start = nest.largest if self.shape is None else nest.size(self.shape, f"{where}.shape")
        given = {name: getattr(self, name) for name in Sizes.model_fields}
        return start.shape.with_dimensions(given)
