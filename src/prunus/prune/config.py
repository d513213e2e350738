"""Options of pruning, and the shape that they ask for."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from prunus.config import Seed, StepConfig
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape

SCALABLE_ROPES = frozenset({"default", "linear", "llama3"})
"""Rotary positions that are a function of each pair's speed alone, and so follow a change of theta."""


class PruneConfig(StepConfig):
    """What is left of the teacher, and how that is chosen."""

    kind: ClassVar[str] = "prune"
    revision: ClassVar[int] = 2

    num_hidden_layers: int | None = Field(default=None, ge=1)
    """Layers to keep (depth)."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Channels of the residual stream to keep (width)."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Neurons of each MLP to keep (width); in a mixture of experts, of each expert."""
    num_attention_heads: int | None = Field(default=None, ge=1)
    """Query heads to keep (width); the same number of every KV group."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """KV heads to keep (width), each with its query heads."""
    head_dim: int | None = Field(default=None, ge=2)
    """Dimensions of each head to keep (width): the rotary pairs that turn fastest."""
    num_experts: int | None = Field(default=None, ge=1)
    """Experts of each layer to keep, in a mixture of experts."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Tokens to keep: special and byte tokens always, then by how often the corpus has them."""
    drop_layers: Literal["contiguous", "single"] | tuple[int, ...] = "contiguous"
    """Which layers go: `contiguous` (the block of least influence), `single` (one by one, the least influential
    first), or their numbers, counted from 0."""
    importance: Literal["activation", "random"] = "activation"
    """What decides: the scores, or chance (a baseline)."""
    init: Literal["teacher", "random"] = "teacher"
    """Weights cut from the teacher, or drawn anew (a baseline: the same shape from scratch)."""
    like: str | None = None
    """Take the shape of another student of the recipe."""
    seed: Seed = 0
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
        self._follow_heads(wanted, teacher)
        self._follow_groups(wanted, teacher, where)
        self._check_head_dim(teacher, where)
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
    def _follow_heads(wanted: dict[str, int | None], teacher: Shape) -> None:
        """Fill in what follows: heads from a square family's hidden size, KV heads where each has one query head."""
        hidden = wanted["hidden_size"]
        if teacher.family.square and hidden and wanted["num_attention_heads"] is None:
            wanted["num_attention_heads"] = max(1, hidden // teacher.head_dim)
        if teacher.num_key_value_heads == teacher.num_attention_heads and wanted["num_key_value_heads"] is None:
            wanted["num_key_value_heads"] = wanted["num_attention_heads"]

    def _check_head_dim(self, teacher: Shape, where: str) -> None:
        if self.head_dim is None or self.head_dim == teacher.head_dim:
            return
        if "head_dim" in teacher.family.absent:
            raise ShapeError(f"{where}.head_dim: {teacher.family.name} has no head_dim of its own; cut heads instead")
        if self.head_dim % 2:
            raise ShapeError(f"{where}.head_dim: {self.head_dim} is odd, and rotary positions turn pairs")
        others = teacher.rope_types - SCALABLE_ROPES
        if others:
            raise ShapeError(
                f"{where}.head_dim: this teacher's rotary positions are {', '.join(sorted(others))}, whose speeds no "
                f"config can keep for fewer dimensions; that can be done for {', '.join(sorted(SCALABLE_ROPES))}"
            )

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
