"""`runtime.precision: auto` on a CPU: the faster of float32 and bfloat16, for a whole run.

If the processor has bfloat16, a decoder layer of the teacher's sizes is timed in both, and the outcome is kept in the
cache folder for this processor, release of torch, number of threads, and sizes. All models of a run use the same
precision, so that a student can be compared with its teacher.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from prunus import distributed
from prunus.console import Console
from prunus.files import cache_folder, read_cache, write_cache
from prunus.graph.steps import Step
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware, may_have_bfloat16, on_gpu
from prunus.runtime import Runtime

if TYPE_CHECKING:
    from prunus.models.precision import Gains, Sizes

CACHE = "precision.json"
_LEAST = 256  # channels: in smaller models, products are a small part of the time
_GAIN = 1.1  # the least speed-up, in inference and in training, for which bfloat16 is worth its rounding


def settle(runtime: Runtime, shape: Shape, console: Console) -> Runtime:
    """Replace `precision: auto` by the precision that is faster on this machine for a model of that shape.

    Not on an accelerator, where `auto` needs no measurement. Imports torch only if the processor may have bfloat16.
    """
    if runtime.precision != "auto" or runtime.device == "mps" or on_gpu(runtime):
        return runtime
    if shape.hidden_size < _LEAST or not may_have_bfloat16():
        return runtime.model_copy(update={"precision": "float32"})
    import torch

    from prunus.models.precision import product_dtype

    if product_dtype(torch.device("cpu")) is torch.float32:
        return runtime.model_copy(update={"precision": "float32"})
    distributed.join()
    gains = _known_or_measured(_sizes(shape)) if distributed.rank() == 0 else None
    faster = distributed.of_first(gains is not None and min(gains.inference, gains.training) > _GAIN)
    precision = "bfloat16" if faster else "float32"
    if gains is not None:
        console.say(
            f"one layer of this model in bfloat16 is {gains.inference:.2f} times as fast as in float32, and "
            f"{gains.training:.2f} times in training; using {precision} (runtime.precision changes it)"
        )
    return runtime.model_copy(update={"precision": precision})


def used(runtime: Runtime) -> str:
    """The data type of products with this runtime, by torch's name: `float32` or `bfloat16`."""
    if runtime.precision != "auto":
        return runtime.precision
    if "torch" not in sys.modules:  # nothing was multiplied
        return "float32"
    from prunus.models.load import device_of, inference_dtype

    return str(inference_dtype(runtime, device_of(runtime))).removeprefix("torch.")


def mixed(runtime: Runtime, steps: Iterable[Step]) -> str | None:
    """A warning if finished results of a run were computed in another precision, or None."""
    records = [step.artifact.record for step in steps if step.artifact.is_done()]
    others = {str(record["precision"]) for record in records if record and "precision" in record} - {used(runtime)}
    if not others:
        return None
    return (
        f"finished results of this run were computed in {', '.join(sorted(others))}; the next ones use "
        f"{used(runtime)}. Set runtime.precision: {min(others)} to use the same precision for all"
    )


def _sizes(shape: Shape) -> Sizes:
    from prunus.models.precision import Sizes

    neurons = shape.intermediate_size * max(1, shape.num_experts_per_tok)
    return Sizes(shape.hidden_size, neurons, shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim)


def _known_or_measured(sizes: Sizes) -> Gains:
    """The gains from the cache, or measured and stored there."""
    import torch

    from prunus.models.precision import Gains, measure_gains

    file = cache_folder() / CACHE
    key = f"{hardware()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {dataclasses.astuple(sizes)}"
    known = read_cache(file)
    with suppress(KeyError, TypeError, ValueError):
        return Gains(*map(float, known[key]))
    gains = measure_gains(sizes)
    write_cache(file, {**known, key: dataclasses.astuple(gains)})
    return gains
