"""Executes a step and everything that it depends on.

If several processes search, each runs its candidates' steps in a child process that is not distributed.
"""

from __future__ import annotations

import os

from prunus.console import Console
from prunus.graph.steps import Step
from prunus.pipeline.run import execute
from prunus.runtime import Runtime
from prunus.worker import serve

_OTHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
           "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
"""Environment variables that torchrun sets for distributed processes."""


def ensure(step: Step, runtime: Runtime) -> None:
    """Do a step unless it is done, after those of its inputs that are not.

    Raises:
        PrunusError: Raised by a step.
    """
    if step.artifact.is_done():
        return
    for given in step.inputs.values():
        if isinstance(given, Step):
            ensure(given, runtime)
    execute(step, runtime, Console(quiet=True))


class Worker:
    """Executes steps in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def ensure(self, step: Step) -> None:
        """See `ensure`."""
        ensure(step, self.runtime)


def main() -> None:
    """Serve the requests of a search."""
    for name in [name for name in os.environ if name in _OTHERS or name.startswith(("TORCHELASTIC_", "ACCELERATE_"))]:
        del os.environ[name]
    serve(Worker)


if __name__ == "__main__":
    main()
