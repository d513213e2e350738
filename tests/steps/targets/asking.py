"""What the tests of targets share: the step in one call."""

from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.data.targets import Targets
from prunus.runtime import Runtime
from prunus.steps.targets.config import TargetsConfig
from prunus.steps.targets.step import Inputs, run

QUIET = Console(quiet=True)
SAMPLES = {"keep": "samples", "count": 5, "seed": 7}
TOP_K = {"keep": "top_k", "count": 6, "seed": 7}


def ask(model: Path, stream: Path, out: Path, batch: int = 3, **options: Any) -> tuple[Targets, dict[str, float]]:
    """Run the step, and open what it wrote."""
    out.mkdir(parents=True, exist_ok=True)
    config = TargetsConfig(**{"sequence_length": 16, "sequences": 10, **options})
    metrics = run(config, Inputs(model, stream), out, Runtime(device_batch_size=batch), QUIET)
    return Targets.open(out), metrics
