"""Compiled losses: one or two passes over a block of logits instead of ten, in half of the time.

In plain PyTorch every operation on a block passes through the cache once more; `torch.compile` fuses them. It needs a
C++ compiler (the GPU's on CUDA) and some seconds, so by default it is used only if it saves time and works.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from prunus.console import Console
from prunus.errors import TrainingError
from prunus.runtime import Runtime

Rows = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps logits of student and teacher [R, V] to losses [R]; overwrites the first with the gradient."""
MIN_LOGITS = 2e10
"""`auto` compiles from this number of logits on: compiling takes some seconds, and saves about 1 ns per logit."""


def compiled(
    rows: Rows, vocabulary: int, count: float, runtime: Runtime, device: torch.device, console: Console
) -> Rows:
    """`rows`, compiled and tried once if `runtime.compile` says so, else unchanged.

    Args:
        rows: Losses and gradients of blocks of rows.
        vocabulary: Logits per row.
        count: Logits in the whole training.
        runtime: Its `compile` decides; `auto` compiles on a CPU only, from `MIN_LOGITS` logits on.
        device: The logits' device.
        console: Prints the reason if `auto` fails.

    Raises:
        TrainingError: Compilation is required and fails.
    """
    if not runtime.compile or (runtime.compile == "auto" and (count < MIN_LOGITS or device.type != "cpu")):
        return rows
    fast = torch.compile(rows)

    def dynamic(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if len(student) > 1:  # one compilation for all numbers of rows except 1, which the compiler specialises
            torch._dynamo.mark_dynamic(student, 0)
            torch._dynamo.mark_dynamic(teacher, 0)
        return fast(student, teacher)

    try:
        with torch.no_grad():  # as in the head, so that it can use what is compiled here
            for several in (1, 2):
                dynamic(*torch.zeros(2, several, vocabulary, device=device))
    except Exception as error:  # a missing or failing compiler raises many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if runtime.compile == "auto":
            console.say(f"the loss is not compiled, which would halve its time: {reason}")
            return rows
        raise TrainingError(
            f"runtime.compile: true does not work here: {reason}. It needs a C++ compiler and Python's headers; "
            "auto works without them"
        ) from error
    return dynamic
