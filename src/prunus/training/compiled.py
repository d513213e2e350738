"""Losses as machine code of their own: one or two passes over a block of logits in place of ten, half of the time.

Exponentials and reductions of a block run one operation after another in plain PyTorch, each through the cache once
more; `torch.compile` fuses them. That takes a C++ compiler (a GPU's on CUDA) and some seconds, so by default it is
done where it pays, and left where it does not work.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from prunus.console import Console
from prunus.errors import TrainingError
from prunus.runtime import Runtime

Rows = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits of student and teacher [R, V] to losses [R]; written over the first is the gradient."""
PAYS = 2e10
"""Logits of a training from which on it is done: each costs a nanosecond less, and compiling some seconds."""


def compiled(
    rows: Rows, vocabulary: int, count: float, runtime: Runtime, device: torch.device, console: Console
) -> Rows:
    """`rows`, compiled and tried once where that is asked for or pays, else as they are.

    Args:
        rows: Losses and gradients of blocks of rows.
        vocabulary: Logits of a row.
        count: Logits that are to go through them.
        runtime: Says whether to; `auto` is on a CPU alone, from `PAYS` logits on.
        device: Where logits are.
        console: Told where it was tried and did not work.

    Raises:
        TrainingError: It is asked for and does not work here.
    """
    if not runtime.compile or (runtime.compile == "auto" and (count < PAYS or device.type != "cpu")):
        return rows
    fast = torch.compile(rows)

    def any_number(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if len(student) > 1:  # one code for all numbers of rows but 1, which is a case of its own to the compiler
            torch._dynamo.mark_dynamic(student, 0)
            torch._dynamo.mark_dynamic(teacher, 0)
        return fast(student, teacher)

    try:
        with torch.no_grad():  # as in the head, so that this compiles what it calls
            for several in (1, 2):
                any_number(*torch.zeros(2, several, vocabulary, device=device))
    except Exception as error:  # a compiler that is absent, or fails: of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if runtime.compile == "auto":
            console.say(f"the loss is not compiled, which would halve its time: {reason}")
            return rows
        raise TrainingError(
            f"runtime.compile: true does not work here: {reason}. It takes a C++ compiler and Python's headers; "
            "auto does without them"
        ) from error
    return any_number
