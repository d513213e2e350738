"""What a shape takes of a budget: its figures, from dimensions alone, and how full that makes the tightest limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunus.console import human, human_bytes
from prunus.models.shape import Shape
from prunus.pipeline.search.config import Limit

_FLOPS_CONTEXT = 4096  # where nobody says otherwise, as `prunus inspect` counts
_CACHED = 2  # bytes of a value of the KV cache: 16 bits, in llama.cpp and in transformers alike
_SIXTEEN_BITS = 2


@dataclass(frozen=True)
class Meter:
    """What figures are read by that dimensions alone do not give.

    Attributes:
        teacher: The shape that shares are of.
        file_bytes: (format, shape) to the bytes of the whole file, and of the weights in it.
        latency: (limit, shape) to seconds a token, of a measured table.
    """

    teacher: Shape
    file_bytes: Callable[[str, Shape], tuple[int, int]]
    latency: Callable[[Limit, Shape], float]
    seen: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    def figure(self, limit: Limit, shape: Shape) -> float:
        """What a shape takes of what is limited: parameters, bytes, FLOPs or seconds."""
        key = (limit, *shape.dimensions().values())
        if key not in self.seen:
            self.seen[key] = self._figure(limit, shape)
        return self.seen[key]

    def bound(self, limit: Limit) -> float:
        """How much of it there may be."""
        return limit.at_most * self.figure(limit, self.teacher) if limit.of_teacher else limit.at_most

    def fill(self, budget: Sequence[Limit], shape: Shape) -> float:
        """What share of its tightest limit a shape takes: above 1 it does not fit."""
        limit = self.tightest(budget, shape)
        return self.figure(limit, shape) / self.bound(limit)

    def tightest(self, budget: Sequence[Limit], shape: Shape) -> Limit:
        """The limit that a shape takes most of."""
        return max(budget, key=lambda limit: self.figure(limit, shape) / self.bound(limit))

    def figures(self, budget: Sequence[Limit], shape: Shape) -> dict[str, float]:
        """What a shape takes of each limit, by its label, beside parameters and FLOPs."""
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
            return weights + limit.batch * context * shape.kv_cache_bytes(_CACHED)
        if limit.what == "latency":
            return self.latency(limit, shape)
        return shape.parameters if limit.what == "parameters" else shape.non_embedding_parameters


def told(budget: Sequence[Limit], meter: Meter, shape: Shape) -> str:
    """What a shape takes of each limit, in words."""
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
