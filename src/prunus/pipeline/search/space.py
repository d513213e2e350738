"""The shapes that a teacher can be cut to: the sizes of each axis, and every loadable one of them in a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from prunus.errors import RecipeError
from prunus.models.shape import Shape
from prunus.pipeline.search.budget import Meter, told
from prunus.pipeline.search.config import Limit, SearchConfig

WIDTHS = ("hidden_size", "intermediate_size", "vocab_size")
_SIZES = 16  # of one axis, where nobody says what they are multiples of
_COLUMNS = 1024  # choices of widths that are all looked at
_CHOICE = 8  # so many sizes an axis should have at least
_ENOUGH = 4  # so many of a format's own block, which costs no bits
_BLOCK = 256


@dataclass(frozen=True)
class Space:
    """All that a candidate may be.

    Attributes:
        teacher: The shape that is cut.
        sizes: The sizes of each free axis, ascending; the teacher's own is the last. Of query heads, how many a KV
            group has.
        budget: The limits.
        meter: Reads figures.
        within: How far below the tightest limit a shape may stay.
        refuses: Whether something else forbids a shape, such as an engine that has no such model.
    """

    teacher: Shape
    sizes: Mapping[str, Sequence[int]]
    budget: Sequence[Limit]
    meter: Meter
    within: float
    refuses: Callable[[Shape], bool] = lambda _: False

    def shape(self, picked: Mapping[str, int]) -> Shape | None:
        """The shape of these sizes, or None where no loader takes it; heads follow their groups."""
        dims = dict(picked)
        group = self.teacher.num_attention_heads // self.teacher.num_key_value_heads
        groups = dims.get("num_key_value_heads", self.teacher.num_key_value_heads)
        dims["num_attention_heads"] = groups * dims.get("num_attention_heads", group)
        if self.teacher.family.square and "hidden_size" in self.sizes:
            dims["num_attention_heads"] = dims["hidden_size"] // self.teacher.head_dim
            if group == 1:
                dims["num_key_value_heads"] = dims["num_attention_heads"]
        shape = self.teacher.with_dimensions(dims)
        if not shape.loads() or shape.num_attention_heads > group * shape.num_key_value_heads:
            return None
        return None if self.refuses(shape) else shape

    def fits(self, shape: Shape) -> bool:
        """Whether a shape is within the budget and near enough to it, and no teacher."""
        return shape != self.teacher and 1 - self.within <= self.meter.fill(self.budget, shape) <= 1

    def all(self) -> list[Shape]:
        """Every shape in the budget, by falling depth.

        Raises:
            RecipeError: There is none; says the nearest and its figures.
        """
        found: dict[tuple[int, ...], Shape] = {}
        near = _Nearest()
        for column in self._columns():
            for shape in self._deepest(column, near):
                found.setdefault(key_of(shape), shape)
        if not found:
            raise RecipeError(self._nothing(near))
        return sorted(found.values(), key=key_of, reverse=True)

    def _columns(self) -> Iterator[list[Shape]]:
        """For each choice of widths its shapes by rising depth."""
        depths = self.sizes.get("num_hidden_layers", (self.teacher.num_hidden_layers,))
        axes = [axis for axis in self.sizes if axis != "num_hidden_layers"]
        for picked in product(*(self.sizes[axis] for axis in axes)):
            first = self.shape(dict(zip(axes, picked, strict=True)))
            if first is not None:
                yield [first.with_dimensions({"num_hidden_layers": depth}) for depth in depths]

    def _deepest(self, column: Sequence[Shape], near: _Nearest) -> Iterator[Shape]:
        """The shapes of a column that fit: from the deepest within the limits down, since figures grow with depth."""
        low, high = 0, len(column)  # the first `low` fit, those from `high` on do not
        while low < high:
            middle = (low + high) // 2
            if self.meter.fill(self.budget, column[middle]) <= 1:
                low = middle + 1
            else:
                high = middle
        for shape in (*column[low : low + 1], *column[max(low - 1, 0) : low]):
            near.look(shape, self.meter.fill(self.budget, shape), shape == self.teacher)
        for shape in reversed(column[:low]):
            if self.meter.fill(self.budget, shape) < 1 - self.within:
                return
            if shape != self.teacher:
                yield shape

    def _nothing(self, near: _Nearest) -> str:
        if self.meter.fill(self.budget, self.teacher) <= 1 - self.within:
            return (
                f"search.budget: the teacher itself takes {told(self.budget, self.meter, self.teacher)}; "
                "a budget that it meets leaves nothing to cut; allowed: less"
            )
        over, under = near.over, near.under
        nearest = []
        if over is not None:
            nearest.append(f"the nearest over it is {name_of(over)}: {told(self.budget, self.meter, over)}")
        if under is not None:
            nearest.append(f"the nearest under it is {name_of(under)}: {told(self.budget, self.meter, under)}")
        cure = "a larger `within`" if under is not None else "a smaller `least`"
        return (
            f"search.budget: no shape with {', '.join(self.sizes)} cut meets it to {self.within:.0%}; "
            f"{'; '.join(nearest)}. Another budget, {cure}, or finer `multiples` would do"
        )


class _Nearest:
    """The shapes next to the budget, on both sides."""

    def __init__(self) -> None:
        self.over: Shape | None = None
        self.under: Shape | None = None
        self._fills = (float("inf"), 0.0)

    def look(self, shape: Shape, fill: float, is_teacher: bool) -> None:
        """Keep a shape if it is nearer than those before."""
        over, under = self._fills
        if 1 < fill < over:
            self.over, self._fills = shape, (fill, under)
        elif under < fill <= 1 and not is_teacher:
            self.under, self._fills = shape, (over, fill)


def key_of(shape: Shape) -> tuple[int, ...]:
    """What tells one shape of a family from another."""
    return tuple(shape.dimensions().values())


def name_of(shape: Shape) -> str:
    """A shape in a word, such as `4l-48h-96m-6a-3k`: layers, hidden, MLP, attention heads, KV heads."""
    sizes = {"l": shape.num_hidden_layers, "h": shape.hidden_size, "m": shape.intermediate_size}
    sizes |= {"a": shape.num_attention_heads, "k": shape.num_key_value_heads}
    return "-".join(f"{size}{letter}" for letter, size in sizes.items())


def sizes_of(config: SearchConfig, teacher: Shape, block: int, fine: bool = False) -> dict[str, list[int]]:
    """The sizes of each free axis, ascending, up to the teacher's own.

    Args:
        config: Says which axes, their least share and their multiples.
        teacher: The shape that is cut.
        block: Values of a block of the budget's format, or 1.
        fine: Whether to keep all of them: for evolution, which need not look at every shape.
    """
    found: dict[str, list[int]] = {}
    for axis in config.axes:
        size = getattr(teacher, axis)
        if axis == "num_attention_heads":
            size //= teacher.num_key_value_heads
            if size == 1 or teacher.family.square:
                continue  # they follow KV heads, or hidden_size
        elif axis == "num_key_value_heads" and teacher.family.square and teacher.num_attention_heads == size:
            continue
        multiple = config.multiples.get(axis) or (multiple_of(size, block) if axis in WIDTHS else 1)
        least = max(1, config.least * size)
        sizes = [n for n in range(multiple, size, multiple) if n >= least] + [size]
        found[axis] = sizes if fine or axis in config.multiples else _every(sizes, -(-len(sizes) // _SIZES))
    while not fine and prod(len(found[axis]) for axis in found if axis != "num_hidden_layers") > _COLUMNS:
        widest = max((axis for axis in found if axis != "num_hidden_layers"), key=lambda axis: len(found[axis]))
        found[widest] = _every(found[widest], 2)
    return found


def multiple_of(size: int, block: int) -> int:
    """What the sizes of a width are multiples of: powers of two, of which matrices and blocks are made.

    A format's block where it leaves a few sizes to choose among; else the largest power of two that leaves eight.
    """
    if block > 1 and size // block >= _ENOUGH:
        return block
    multiple = _BLOCK
    while multiple > 1 and size // multiple < _CHOICE:
        multiple //= 2
    return multiple


def _every(sizes: Sequence[int], step: int) -> list[int]:
    """Every so many of some sizes, from the largest down."""
    return list(sizes)[::-1][::step][::-1]
