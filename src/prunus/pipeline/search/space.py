"""The search space: the sizes of each axis, and every loadable shape within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from prunus.errors import RecipeError
from prunus.models.shape import Shape
from prunus.pipeline.search.budget import Meter, describe
from prunus.pipeline.search.config import Limit, SearchConfig

WIDTHS = ("hidden_size", "intermediate_size", "vocab_size")
_SIZES = 16  # most sizes of an axis, unless `multiples` sets its step
_COLUMNS = 1024  # most combinations of widths to enumerate
_CHOICE = 8  # fewest sizes that an axis should have
_ENOUGH = 4  # fewest sizes in steps of the format's block, which costs no bits
_BLOCK = 256


@dataclass(frozen=True)
class Space:
    """All shapes that a candidate may have.

    Attributes:
        teacher: The shape that is cut.
        sizes: The sizes of each free axis, ascending, up to the teacher's. For query heads: their number per KV group.
        budget: The limits.
        meter: Computes figures.
        within: How far below the tightest limit a shape may be, as a fraction of it.
        refuses: Whether a shape is excluded for another reason, such as an engine that does not support it.
    """

    teacher: Shape
    sizes: Mapping[str, Sequence[int]]
    budget: Sequence[Limit]
    meter: Meter
    within: float
    refuses: Callable[[Shape], bool] = lambda _: False

    def shape(self, picked: Mapping[str, int]) -> Shape | None:
        """The shape with these sizes, or None if it is not loadable; query heads are counted per KV group."""
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
        """Whether a shape is within the budget, close enough to it, and not the teacher's."""
        return shape != self.teacher and 1 - self.within <= self.meter.fill(self.budget, shape) <= 1

    def all(self) -> list[Shape]:
        """Every shape in the budget, deepest first.

        Raises:
            RecipeError: There is none; names the nearest and its figures.
        """
        shapes: dict[tuple[int, ...], Shape] = {}
        near = _Nearest()
        for column in self._columns():
            for shape in self._deepest(column, near):
                shapes.setdefault(key_of(shape), shape)
        if not shapes:
            raise RecipeError(self._nothing(near))
        return sorted(shapes.values(), key=key_of, reverse=True)

    def _columns(self) -> Iterator[list[Shape]]:
        """For each combination of widths, its shapes by rising depth."""
        depths = self.sizes.get("num_hidden_layers", (self.teacher.num_hidden_layers,))
        axes = [axis for axis in self.sizes if axis != "num_hidden_layers"]
        for picked in product(*(self.sizes[axis] for axis in axes)):
            first = self.shape(dict(zip(axes, picked, strict=True)))
            if first is not None:
                yield [first.with_dimensions({"num_hidden_layers": depth}) for depth in depths]

    def _deepest(self, column: Sequence[Shape], near: _Nearest) -> Iterator[Shape]:
        """The shapes of a column that fit, deepest first; by binary search, since figures grow with depth."""
        low, high = 0, len(column)  # column[:low] is within the limits, column[high:] is not
        while low < high:
            middle = (low + high) // 2
            if self.meter.fill(self.budget, column[middle]) <= 1:
                low = middle + 1
            else:
                high = middle
        for shape in (*column[low : low + 1], *column[max(low - 1, 0) : low]):
            near.update(shape, self.meter.fill(self.budget, shape), shape == self.teacher)
        for shape in reversed(column[:low]):
            if self.meter.fill(self.budget, shape) < 1 - self.within:
                return
            if shape != self.teacher:
                yield shape

    def _nothing(self, near: _Nearest) -> str:
        if self.meter.fill(self.budget, self.teacher) <= 1 - self.within:
            return (
                f"search.budget: the teacher already meets it, with {describe(self.budget, self.meter, self.teacher)}; "
                "give a smaller budget"
            )
        over, under = near.over, near.under
        nearest = []
        if over is not None:
            nearest.append(f"the nearest above is {name_of(over)}: {describe(self.budget, self.meter, over)}")
        if under is not None:
            nearest.append(f"the nearest below is {name_of(under)}: {describe(self.budget, self.meter, under)}")
        remedy = "a larger `within`" if under is not None else "a smaller `least`"
        return (
            f"search.budget: no shape with {', '.join(self.sizes)} cut meets it to within {self.within:.0%}; "
            f"{'; '.join(nearest)}. Change the budget, set {remedy}, or finer `multiples`"
        )


class _Nearest:
    """The shapes nearest to the budget, above and below."""

    def __init__(self) -> None:
        self.over: Shape | None = None
        self.under: Shape | None = None
        self._fills = (float("inf"), 0.0)

    def update(self, shape: Shape, fill: float, is_teacher: bool) -> None:
        """Store a shape if it is nearer than the stored one."""
        over, under = self._fills
        if 1 < fill < over:
            self.over, self._fills = shape, (fill, under)
        elif under < fill <= 1 and not is_teacher:
            self.under, self._fills = shape, (over, fill)


def key_of(shape: Shape) -> tuple[int, ...]:
    """A key that identifies a shape within its family."""
    return tuple(shape.dimensions().values())


def name_of(shape: Shape) -> str:
    """A short name, such as `4l-48h-96m-6a-3k`: layers, hidden size, MLP size, attention heads, KV heads."""
    sizes = {"l": shape.num_hidden_layers, "h": shape.hidden_size, "m": shape.intermediate_size}
    sizes |= {"a": shape.num_attention_heads, "k": shape.num_key_value_heads}
    return "-".join(f"{size}{letter}" for letter, size in sizes.items())


def sizes_of(config: SearchConfig, teacher: Shape, block: int, fine: bool = False) -> dict[str, list[int]]:
    """The sizes of each free axis, ascending, up to the teacher's.

    Args:
        config: Axes, smallest share and multiples.
        teacher: The shape that is cut.
        block: Values per block of the budget's format, or 1.
        fine: Whether to return all sizes: for evolution, which does not enumerate all shapes.
    """
    found: dict[str, list[int]] = {}
    for axis in config.axes:
        size = getattr(teacher, axis)
        if axis == "num_attention_heads":
            size //= teacher.num_key_value_heads
            if size == 1 or teacher.family.square:
                continue  # determined by KV heads or hidden_size
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
    """The step between sizes of a width: a format's block if that leaves a few sizes to choose from.

    Otherwise the largest power of two that leaves eight sizes: matrix kernels prefer powers of two.
    """
    if block > 1 and size // block >= _ENOUGH:
        return block
    multiple = _BLOCK
    while multiple > 1 and size // multiple < _CHOICE:
        multiple //= 2
    return multiple


def _every(sizes: Sequence[int], step: int) -> list[int]:
    """Every `step`-th size, counted from the largest."""
    return list(sizes)[::-1][::step][::-1]
