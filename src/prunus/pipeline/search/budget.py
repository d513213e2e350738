"""How much of a budget a shape uses: its figures, from dimensions alone, and its share of the tightest limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunus.console import human, human_bytes
from prunus.models.shape import Shape
from prunus.pipeline.search.config import Limit

_FLOPS_CONTEXT = 4096  # the default, as in `prunus inspect`
_CACHED = 2  # bytes per value of the KV cache: 16 bits, in llama.cpp and in transformers
_SIXTEEN_BITS = 2


@dataclass(frozen=True)
class Meter:
    """Computes the figures of shapes.

    Attributes:
        teacher: The shape that shares refer to.
        file_bytes: (format, shape) -> bytes of the whole file, and of the weights in it.
        latency: (limit, shape) -> seconds per token, from a measured table.
        seen: Cache of figures.
    """

    teacher: Shape
    file_bytes: Callable[[str, Shape], tuple[int, int]]
    latency: Callable[[Limit, Shape], float]
    seen: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    def figure(self, limit: Limit, shape: Shape) -> float:
        """The limited quantity of a shape: parameters, bytes, FLOPs or seconds."""
        key = (limit, *shape.dimensions().values())
        if key not in self.seen:
            self.seen[key] = self._figure(limit, shape)
        return self.seen[key]

    def bound(self, limit: Limit) -> float:
        """The largest allowed value of a limit, as an absolute figure."""
        return limit.at_most * self.figure(limit, self.teacher) if limit.of_teacher else limit.at_most

    def fill(self, budget: Sequence[Limit], shape: Shape) -> float:
        """The share of its tightest limit that a shape uses; above 1 it does not fit."""
        limit = self.tightest(budget, shape)
        return self.figure(limit, shape) / self.bound(limit)

    def tightest(self, budget: Sequence[Limit], shape: Shape) -> Limit:
        """The limit of which a shape uses the largest share."""
        return max(budget, key=lambda limit: self.figure(limit, shape) / self.bound(limit))

    def figures(self, budget: Sequence[Limit], shape: Shape) -> dict[str, float]:
        """The figures of a shape: parameters, FLOPs, and each limit's, by label."""
        usual = {
            "parameters": float(shape.parameters),
            "non-embedding parameters": float(shape.non_embedding_parameters),
            "FLOPs per token": float(shape.flops_per_token(min(_FLOPS_CONTEXT, shape.max_position_embeddings))),
        }
        return {**usual, **{limit.label: self.figure(limit, shape) for limit in budget}}

    def _figure(self, limit: Limit, shape: Shape) -> float:
        context = limit.context or shape.max_position_embeddings
        if limit.what == "flops":
            return shape.flops_per_token(limit.context or min(_FLOPS_CONTEXT, shape.max_position_embeddings))
        if limit.what == "file":
            return self.file_bytes(str(limit.format), shape)[0]
        if limit.what == "memory":
            weights = self.file_bytes(limit.format, shape)[1] if limit.format else _SIXTEEN_BITS * shape.parameters
            cache = context * shape.kv_cache_bytes(_CACHED) + shape.state_bytes(_CACHED)
            return weights + limit.batch * cache
        if limit.what == "latency":
            return self.latency(limit, shape)
        return shape.parameters if limit.what == "parameters" else shape.non_embedding_parameters


def describe(budget: Sequence[Limit], meter: Meter, shape: Shape) -> str:
    """A shape's figures and the limits, for messages: `parameters 3.1M of 3.0M, ...`."""
    parts = []
    for limit in budget:
        figure, bound = meter.figure(limit, shape), meter.bound(limit)
        parts.append(f"{limit.label} {amount(limit.what, figure)} of {amount(limit.what, bound)}")
    return ", ".join(parts)


def amount(what: str, value: float) -> str:
    """A figure with its unit."""
    if what in ("file", "memory"):
        return human_bytes(int(value))
    return f"{1000 * value:.3g} ms" if what == "latency" else human(value)
