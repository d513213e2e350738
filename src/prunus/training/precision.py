"""The precision of training: float32, or bfloat16 under autocast with float32 weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from prunus import distributed
from prunus.console import Console
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.training.objectives import Objective

_GAIN = 1.1  # the least speed-up for which bfloat16 is worth its rounding
_ROUNDS = 3
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # as `torch.cpu.get_capabilities` names them, on x86 and on Arm


def training_dtype(
    objective: Objective, micro_batch: Callable[[], dict[str, torch.Tensor]], runtime: Runtime, console: Console
) -> torch.dtype:
    """The dtype of matrix products in training.

    It is that of inference. With `precision: probe` it is the faster one: float32 on a processor without bfloat16;
    otherwise forward and backward passes over one micro-batch are timed, since the answer depends on the sizes.

    Args:
        objective: The objective; its weights do not change.
        micro_batch: Makes a micro-batch for the probe.
        runtime: Device and precision.
        console: Prints the outcome of the probe.
    """
    if runtime.precision != "probe":
        return inference_dtype(runtime, device_of(runtime))
    if product_dtype(device_of(runtime)) is torch.float32:
        console.say("this processor does not support bfloat16; using float32")
        return torch.float32
    inputs = micro_batch()
    with torch.random.fork_rng():
        seconds = {dtype: _seconds(objective, inputs, dtype) for dtype in (torch.float32, torch.bfloat16)}
    objective.zero_grad(set_to_none=True)
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    chosen = torch.bfloat16 if distributed.of_first(gain > _GAIN) else torch.float32
    console.say(f"bfloat16 is {gain:.2f} times as fast as float32 here; using {str(chosen).removeprefix('torch.')}")
    return chosen


def product_dtype(device: torch.device) -> torch.dtype:
    """The dtype of products for which bfloat16 is precise enough: bfloat16 if the processor supports it.

    Others emulate it: 0.9 GFLOP/s against 135 in float32 (AMD EPYC with AVX2, 2 cores, 1024 × 1024).
    """
    if device.type != "cpu":
        return torch.bfloat16
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older releases of torch
    return torch.bfloat16 if any(able.get(name) for name in _BFLOAT16) else torch.float32


def _seconds(objective: Objective, micro_batch: dict[str, torch.Tensor], dtype: torch.dtype) -> float:
    """The shortest time of a few forward and backward passes, after one to warm up."""
    device = next(objective.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in micro_batch.items()}
    times = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = objective(**inputs)
        loss.backward()
        loss.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])
