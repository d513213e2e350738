"""One process among several, as `torchrun` starts them. Without it there is one, and all of this does nothing."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GIVE_UP_SECONDS, _LOOK_SECONDS = 60.0, 0.02
_MEETINGS = itertools.count()
_PATIENCE = timedelta(days=7)  # the others wait while the first does what only one can do


def rank() -> int:
    """This process's number, 0 for the first."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share_weights(asked: bool) -> bool:
    """Whether several processes are to hold a share of the weights each, by the options or by `accelerate launch`."""
    return count() > 1 and (asked or _launched_to_share())


@cache
def _launched_to_share() -> bool:
    """Whether `accelerate launch` was told to use FSDP.

    What it says is taken out of the environment, since it is done here and not by accelerate, which cannot on a CPU.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def join() -> None:
    """Meet the other processes, once; on CUDA each takes the device of its local number."""
    if count() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


def wait() -> None:
    """Go on when all processes are here."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


def any_of(mine: bool) -> bool:
    """Whether any process says so; all call it."""
    if count() == 1:
        return mine
    import torch

    said = torch.tensor(float(mine))
    add_up([said])
    return bool(said.item())


def outcome(error: str | None) -> str | None:
    """Meet the other processes after a piece of work, and hear whether it failed.

    Unlike a collective it can be called by a process whose work failed while others are still in theirs. Those that
    the failure left waiting inside of it for ever never come here: the failed one gives up on them.

    Args:
        error: Why it failed in this process; None where it did not.

    Returns:
        Why it failed in the first process in which it did; None where it did in none.

    Raises:
        TimeoutError: It failed here, and the others do not come.
    """
    if count() == 1:
        return error
    from torch.distributed.distributed_c10d import _get_default_store

    store, meeting = _get_default_store(), next(_MEETINGS)
    keys = [f"prunus-outcome-{meeting}-{number}" for number in range(count())]
    store.set(keys[rank()], error or "")
    begun = time.monotonic()
    while not store.check(keys):
        if error is not None and time.monotonic() - begun > _GIVE_UP_SECONDS:
            raise TimeoutError("the other processes did not end their work")
        time.sleep(_LOOK_SECONDS)
    found = [store.get(key).decode() for key in keys]
    return next((text for text in found if text), None)


def agree(mine: bool) -> bool:
    """What the first process says, which clocks of their own would tell each differently."""
    if count() == 1:
        return mine
    import torch
    import torch.distributed as dist

    said = torch.tensor(float(mine))
    dist.broadcast(said, src=0)
    return bool(said.item())


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its sum over the processes; they name the same tensors in the same order."""
    if count() > 1:
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)
