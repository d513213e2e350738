"""Speed and memory of models on this machine, measured alternately."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from prunus.models.shape import Shape
from prunus.steps.evaluate.config import EfficiencyConfig


def efficiency(
    models: dict[str, tuple[PreTrainedModel, Shape]], config: EfficiencyConfig
) -> dict[str, dict[str, float]]:
    """The figures of each model, by name.

    `parameters`, `bytes` of the weights as loaded, `kv_bytes_per_token`. If speed is measured, also `prefill` and
    `decode` in tokens per second of one sequence, the median over rounds, and `memory_bytes`: on CUDA the peak of
    allocated memory; elsewhere the weights plus the peak growth of the process, or plus the KV cache if that is larger,
    since the process may have had free memory.
    """
    found: dict[str, dict[str, float]] = {}
    for name, (model, shape) in models.items():
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        each = next(model.parameters()).element_size()
        found[name] = {"parameters": shape.parameters, "bytes": size, "kv_bytes_per_token": shape.kv_cache_bytes(each)}
    if not config.prompt_tokens:
        return found
    grown: dict[str, int] = {}
    for name, (model, _) in models.items():
        with Resident() as resident:  # in the warm-up round, since measuring memory takes time
            _time(model, config)
        grown[name] = resident.growth
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for _ in range(config.rounds):
        for name, (model, _) in models.items():
            rounds[name].append(_time(model, config))
    for name, times in rounds.items():
        memory = max(allocated for _, _, allocated in times)
        cache = found[name]["kv_bytes_per_token"] * (config.prompt_tokens + config.new_tokens)
        found[name] |= {
            "prefill": config.prompt_tokens / median(prefill for prefill, _, _ in times),
            "decode": config.new_tokens / median(decode for _, decode, _ in times),
            "memory_bytes": memory or found[name]["bytes"] + max(grown[name], cache),
        }
    return found


class Resident:
    """Peak growth of this process's resident memory within a context, sampled every millisecond.

    The system's record of the peak is not used: the pipeline resets it for every step.

    Attributes:
        growth: In bytes; set when the context exits.
    """

    def __enter__(self) -> Resident:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()
        self.growth = self._peak - self._before

    def _sample(self) -> None:
        while not self._done.wait(1e-3):
            self._peak = max(self._peak, self._process.memory_info().rss)


@torch.no_grad()
def _time(model: PreTrainedModel, config: EfficiencyConfig) -> tuple[float, float, float]:
    """Seconds to process the prompt, seconds to generate after it (greedy), and peak bytes allocated by CUDA."""
    device = model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, int(model.config.vocab_size), (1, config.prompt_tokens), generator=generator)
    ids = ids.to(device)
    output: Any = None

    def read() -> None:
        nonlocal output
        output = model(input_ids=ids, use_cache=True)

    def write() -> None:
        nonlocal output
        for _ in range(config.new_tokens):
            following = output.logits[:, -1:].argmax(dim=-1)
            output = model(input_ids=following, past_key_values=output.past_key_values, use_cache=True)

    prefill, decode = _seconds(read, device), _seconds(write, device)
    return prefill, decode, float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0.0


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    """Wait until CUDA has finished what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
