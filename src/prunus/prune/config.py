"""Options of pruning, and the shape that they ask for."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from prunus.config import StepConfig
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape


class PruneConfig(StepConfig):
    """What is left of the teacher, and how that is chosen."""

    kind: ClassVar[str] = "prune"
    revision: ClassVar[int] = 1

    num_hidden_layers: int | None = Field(default=None, ge=1)
    """Layers to keep (depth)."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Channels of the residual stream to keep (width)."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Neurons of each MLP to keep (width)."""
    num_attention_heads: int | None = Field(default=None, ge=1)
    """Query heads to keep (width); the same number of every KV group."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """KV heads to keep (width), each with its query heads."""
    drop_layers: Literal["contiguous", "single"] | tuple[int, ...] = "contiguous"
    """Which layers go: `contiguous` (the block of least influence), `single` (one by one, the least influential
    first), or their numbers, counted from 0."""
    importance: Literal["activation", "random"] = "activation"
    """What decides: the scores, or chance (a baseline)."""
    init: Literal["teacher", "random"] = "teacher"
    """Weights cut from the teacher, or drawn anew (a baseline: the same shape from scratch)."""
    like: str | None = None
    """Take the shape of another student of the recipe."""
    seed: int = 0
    """Seed of what chance decides."""

    @field_validator("drop_layers")
    @classmethod
    def _sorted(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) != len(value):
            raise ValueError(f"a layer is named twice in {list(value)}")
        return value if isinstance(value, str) else tuple(sorted(value))

    def target(self, teacher: Shape, where: str) -> Shape:
        """The student's shape, checked against the teacher's.

        Args:
            teacher: The shape to cut from.
            where: The name of this config in the recipe, such as `students.width.prune`.

        Raises:
            ShapeError: A dimension is larger than the teacher's, no loader takes it, or the layers do not add up.
        """
        wanted = {key: getattr(self, key) for key in PRUNABLE}
        for key, value in wanted.items():
            if value is not None and value > getattr(teacher, key):
                raise ShapeError(f"{where}.{key}: {value} is more than the teacher's {getattr(teacher, key)}")
        wanted["num_hidden_layers"] = self._layers_left(teacher.num_hidden_layers, where)
        self._follow_groups(wanted, teacher, where)
        target = teacher.with_dimensions(wanted)
        target.check_loadable(where)
        return target

    def _layers_left(self, layers: int, where: str) -> int:
        if isinstance(self.drop_layers, str):
            return self.num_hidden_layers or layers
        outside = [layer for layer in self.drop_layers if not 0 <= layer < layers]
        if outside:
            raise ShapeError(f"{where}.drop_layers: the teacher has layers 0 to {layers - 1}, and no {outside[0]}")
        left = layers - len(self.drop_layers)
        if not left:
            raise ShapeError(f"{where}.drop_layers: names all {layers} layers; at least one must stay")
        if self.num_hidden_layers not in (None, left):
            raise ShapeError(
                f"{where}.num_hidden_layers: {self.num_hidden_layers}, but drop_layers leaves {left} of {layers}"
            )
        return left

    @staticmethod
    def _follow_groups(wanted: dict[str, int | None], teacher: Shape, where: str) -> None:
        """Keep heads and KV heads in step: a group goes with its heads, and every group keeps as many."""
        group = teacher.num_attention_heads // teacher.num_key_value_heads
        groups = wanted["num_key_value_heads"] or teacher.num_key_value_heads
        heads = wanted["num_attention_heads"] or groups * group
        wanted["num_attention_heads"] = heads
        if heads % groups or heads // groups > group:
            allowed = ", ".join(str(groups * n) for n in range(1, group + 1))
            raise ShapeError(
                f"{where}.num_attention_heads: {heads} heads cannot be shared by {groups} KV heads of at most {group} "
                f"each; allowed: {allowed}"
            )
