"""What the tests of the search share: a teacher's shape, and a space of shapes that needs no model."""

from typing import Any

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.pipeline.search.budget import Meter
from prunus.pipeline.search.config import SearchConfig
from prunus.pipeline.search.space import Space, sizes_of
from tests.tiny import SMALL


def shape_of(**changes: Any) -> Shape:
    return Shape.from_config({**SMALL, **changes}, LLAMA, "test")


def meter_of(teacher: Shape) -> Meter:
    """Files of two bytes a parameter and a header of ten; a millisecond a layer."""
    return Meter(
        teacher,
        lambda _, shape: (2 * shape.parameters + 10, 2 * shape.parameters),
        lambda _, shape: 1e-3 * shape.num_hidden_layers,
    )


def space_of(budget: Any, teacher: Shape | None = None, block: int = 1, **options: Any) -> Space:
    teacher = teacher or shape_of()
    config = SearchConfig(budget=budget, **options)
    return Space(teacher, sizes_of(config, teacher, block), config.budget, meter_of(teacher), config.within)
