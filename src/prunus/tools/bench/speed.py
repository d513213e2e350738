"""Models timed in turn, round by round, so that a disturbance affects all of them; and their ratios.

R rounds
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A process that runs one model."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method in the process."""

    def peak_bytes(self) -> int | None:
        """Peak memory of the process in bytes."""

    def close(self) -> None:
        """End the process."""


@dataclass(frozen=True)
class Model:
    """A model to be timed: its name, the bytes of its weights in the engine, and a function that starts the engine."""

    name: str
    nbytes: int
    start: Callable[[], Engine]


def measure(
    models: Sequence[Model],
    prompt: Sequence[int],
    new_tokens: int,
    rounds: int,
    on_round: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Time every model in turn, `rounds` times after one warm-up round.

    Returns:
        For each model: `prefill` and `decode` in tokens per second, each with `value` (the median over rounds), `low`
        and `high`; `prefill_ratio` and `decode_ratio` to the first model in the same rounds; `peak_bytes`, `nbytes`.
    """
    seconds = np.zeros((len(models), rounds, 2))
    with ExitStack() as open_engines:
        engines = []
        for model in models:
            engines.append(model.start())
            open_engines.callback(engines[-1].close)
        for number in range(-1, rounds):
            for i, engine in enumerate(engines):
                timed = engine.call("speed", list(prompt), new_tokens)
                if number >= 0:
                    seconds[i, number] = timed
            on_round(number + 1)
        peaks = [engine.peak_bytes() for engine in engines]
    tokens = np.array([len(prompt), new_tokens])
    rates = tokens / seconds
    return [
        {
            "name": model.name,
            "nbytes": model.nbytes,
            "peak_bytes": peak,
            **{key: spread(rates[i, :, j]) for j, key in enumerate(("prefill", "decode"))},
            **{f"{key}_ratio": spread(rates[i, :, j] / rates[0, :, j]) for j, key in enumerate(("prefill", "decode"))},
        }
        for i, (model, peak) in enumerate(zip(models, peaks, strict=True))
    ]


def spread(values: np.ndarray) -> dict[str, float]:
    """The median, minimum and maximum over rounds, [R]."""
    return {"value": float(np.median(values)), "low": float(values.min()), "high": float(values.max())}


def prompt_of(count: int, vocabulary: int, seed: int) -> list[int]:
    """Random tokens: the time does not depend on the text."""
    return [int(i) for i in np.random.default_rng(seed).integers(0, vocabulary, count)]


def weights_of(path: Path) -> int:
    """The bytes of a file, or of a folder's weights."""
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)
