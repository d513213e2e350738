"""How long the steps of a plan will take on this machine, from their FLOPs.

The speed of a kind of step is read from finished steps of that kind in this run. For other kinds, a matrix product of
the model's sizes is timed (some tenths of a second, without torch), and a step is assumed to reach a share of its
FLOP/s. The shares were measured on SmolLM2-135M with two cores (docs/decisions/0007).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from prunus.costs import Cost
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware, on_gpu
from prunus.pipeline.planned import Plan

_SHARE = 0.55
_SHARES = {"score": 0.36}  # it accumulates statistics between products
_ROWS = 512  # tokens of the timed product
_WIDEST = 4096  # its most columns: wider products are no faster, and at large models' sizes they take gigabytes
_TIMED = 0.1  # seconds
_MIN_SECONDS = 20.0  # of finished steps of a kind, before its speed is read from them


def seconds_of(plan: Plan, costs: Sequence[Cost]) -> list[float | None]:
    """Seconds that each step will take; None if it is done or its cost is unknown.

    Args:
        plan: The plan.
        costs: The cost of each of its steps.
    """
    paces = _done(plan, costs)
    machine = None if on_gpu(plan.recipe.runtime) else _product(plan.teacher)
    seconds: list[float | None] = []
    for step, cost in zip(plan.steps, costs, strict=True):
        pace = paces.get(step.kind) or (machine and machine * _SHARES.get(step.kind, _SHARE))
        known = pace and cost.flops and not step.artifact.is_done()
        seconds.append(cost.flops / pace if known and pace else None)
    return seconds


def _done(plan: Plan, costs: Sequence[Cost]) -> dict[str, float]:
    """FLOP/s of each kind of step that was done on this machine."""
    flops: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    for step, cost in zip(plan.steps, costs, strict=True):
        record = step.artifact.record if step.artifact.is_done() else None
        if record and cost.flops and str(record["hardware"]).startswith(hardware()):
            flops[step.kind] += cost.flops
            seconds[step.kind] += float(record["seconds"])
    return {kind: flops[kind] / taken for kind, taken in seconds.items() if taken >= _MIN_SECONDS}


def _product(shape: Shape) -> float:
    """FLOP/s of the product of hidden states and an MLP's weights in float32: the best of several."""
    hidden, neurons = min(shape.hidden_size, _WIDEST), min(shape.intermediate_size, _WIDEST)
    left, right = np.ones((_ROWS, hidden), dtype=np.float32), np.ones((hidden, neurons), dtype=np.float32)
    best, end = float("inf"), time.perf_counter() + _TIMED
    while time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2.0 * _ROWS * right.size / best
