"""Communication among the processes that `torchrun` starts. With a single process, it does nothing but join a group."""

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
_PATIENCE = timedelta(days=7)  # the others wait while the first does work that only one process can do


def rank() -> int:
    """This process's rank, from 0."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_group() -> bool:
    """Whether this process has a process group: with others, or alone under `torchrun --nproc-per-node 1`."""
    return count() > 1 or ("TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ)


def shards_weights(option: bool) -> bool:
    """Whether weights are sharded across processes, because of `runtime.shard` or of `accelerate launch`."""
    return is_group() and (option or _launched_with_fsdp())


@cache
def _launched_with_fsdp() -> bool:
    """Whether `accelerate launch` is configured for FSDP.

    Removes the variable from the environment: Prunus shards by itself, since accelerate cannot on a CPU.
    """
    return os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def join() -> None:
    """Initialise the process group, once; on CUDA each process uses the device of its local rank."""
    if not is_group():
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


def wait() -> None:
    """Wait until all processes have reached this call."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


def any_of(mine: bool) -> bool:
    """Whether the value is true in any process. Collective: all processes must call it."""
    if count() == 1:
        return mine
    import torch

    flag = torch.tensor(float(mine))
    all_reduce([flag])
    return bool(flag.item())


def outcome(error: str | None) -> str | None:
    """Wait for the other processes after a piece of work, and return the error if it failed in any.

    Unlike a collective, a process whose work failed can call this while others are still working. Others may hang in
    a collective because of the failure and never get here, so the failed process waits for them for 60 s only.

    Args:
        error: The error in this process; None if the work succeeded.

    Returns:
        The error of the lowest rank that failed; None if none did.

    Raises:
        TimeoutError: The work failed here, and other processes did not arrive in time.
    """
    if count() == 1:
        return error
    from torch.distributed.distributed_c10d import _get_default_store

    store, meeting = _get_default_store(), next(_MEETINGS)
    keys = [f"prunus-outcome-{meeting}-{number}" for number in range(count())]
    store.set(keys[rank()], error or "")
    start = time.monotonic()
    while not store.check(keys):
        if error is not None and time.monotonic() - start > _GIVE_UP_SECONDS:
            raise TimeoutError("the other processes did not finish their work")
        time.sleep(_LOOK_SECONDS)
    errors = [store.get(key).decode() for key in keys]
    return next((text for text in errors if text), None)


def of_first(mine: bool) -> bool:
    """The value in the first process, for decisions that depend on a clock and could differ between processes."""
    if count() == 1:
        return mine
    import torch
    import torch.distributed as dist

    flag = torch.tensor(float(mine))
    dist.broadcast(flag, src=0)
    return bool(flag.item())


def all_reduce(tensors: Iterable[torch.Tensor]) -> None:
    """Replace each tensor by its sum over the processes, which must pass the same tensors in the same order."""
    if count() > 1:
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)
