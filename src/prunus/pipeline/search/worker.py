"""A step with all that it needs, done.

Where several processes search, each does its candidates' in a process of its own that knows of no others.
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
"""What torchrun tells a process of the others."""


def ensure(step: Step, runtime: Runtime) -> None:
    """Do a step that is not done, and before it those of its inputs that it lacks.

    Raises:
        PrunusError: As the steps raise.
    """
    if step.artifact.is_done():
        return
    for given in step.inputs.values():
        if isinstance(given, Step):
            ensure(given, runtime)
    execute(step, runtime, Console(quiet=True))


class Worker:
    """Does steps, in the process that this is."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def ensure(self, step: Step) -> None:
        """See `ensure`."""
        ensure(step, self.runtime)


def main() -> None:
    """Answer a search that asks for steps."""
    for name in [name for name in os.environ if name in _OTHERS or name.startswith(("TORCHELASTIC_", "ACCELERATE_"))]:
        del os.environ[name]
    serve(Worker)


if __name__ == "__main__":
    main()
