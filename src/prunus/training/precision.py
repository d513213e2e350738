"""The arithmetic of training: float32, or bfloat16 under autocast with float32 weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from prunus import distributed
from prunus.console import Console
from prunus.models.load import device_of, inference_dtype
from prunus.runtime import Runtime
from prunus.training.objectives import Objective

_GAIN = 1.1  # how much faster bfloat16 must be to be worth its rounding
_ROUNDS = 3
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # as `torch.cpu.get_capabilities` names them, on x86 and on Arm


def training_dtype(
    objective: Objective, portion: Callable[[], dict[str, torch.Tensor]], runtime: Runtime, console: Console
) -> torch.dtype:
    """The type of matrix products in training.

    That of inference. With `precision: probe`, whichever is faster here: float32 on a processor without bfloat16, and
    else by forward and backward passes over one portion, as it hangs on the sizes and on what else a step does.

    Args:
        objective: What is trained; its weights stay as they are.
        portion: Makes one portion of a batch, for a probe.
        runtime: Device and precision.
        console: Told of a probe's outcome.
    """
    if runtime.precision != "probe":
        return inference_dtype(runtime, device_of(runtime))
    if product_dtype(device_of(runtime)) is torch.float32:
        console.say("this processor has no bfloat16: float32 is used")
        return torch.float32
    inputs = portion()
    with torch.random.fork_rng():
        seconds = {dtype: _seconds(objective, inputs, dtype) for dtype in (torch.float32, torch.bfloat16)}
    objective.zero_grad(set_to_none=True)
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    chosen = torch.bfloat16 if distributed.of_first(gain > _GAIN) else torch.float32
    console.say(f"bfloat16 is {gain:.2f} times as fast as float32 here: {str(chosen).removeprefix('torch.')} is used")
    return chosen


def product_dtype(device: torch.device) -> torch.dtype:
    """The type of products that need no more than bfloat16's digits: bfloat16 where the processor has it.

    One without it emulates them: 0.9 GFLOP/s beside 135 in float32 (AMD EPYC with AVX2, 2 cores, 1024 × 1024).
    """
    if device.type != "cpu":
        return torch.bfloat16
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch cannot tell
    return torch.bfloat16 if any(able.get(name) for name in _BFLOAT16) else torch.float32


def _seconds(objective: Objective, portion: dict[str, torch.Tensor], dtype: torch.dtype) -> float:
    """The shortest of a few forward and backward passes, after one to warm up."""
    device = next(objective.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in portion.items()}
    taken = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = objective(**inputs)
        loss.backward()
        loss.item()  # waits for the device
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
