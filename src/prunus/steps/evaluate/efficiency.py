"""How fast a model reads and writes, and what it takes up, on this machine: teacher and student by turns."""

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

    `parameters`, `bytes` of the weights as loaded, `kv_bytes_per_token`; and, if it is to be timed, `prefill` and
    `decode` in tokens per second of one sequence, the median of the rounds, and `memory_bytes`: on CUDA the most that
    was allocated; elsewhere the weights and what the process grew by at most while it read and wrote, at least the
    cache, since the process may have had some room to spare.
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
        with Resident() as resident:  # beside what warms up, for it takes time of its own
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
    """How much this process's resident memory grows at most while the context is open, looked up every millisecond.

    The system's own record of the peak is the pipeline's, which sets it back for every step.

    Attributes:
        growth: In bytes, known once the context is left.
    """

    def __enter__(self) -> Resident:
        self._process, self._done = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()
        self.growth = self._peak - self._before

    def _look(self) -> None:
        while not self._done.wait(1e-3):
            self._peak = max(self._peak, self._process.memory_info().rss)


@torch.no_grad()
def _time(model: PreTrainedModel, config: EfficiencyConfig) -> tuple[float, float, float]:
    """Seconds to read the prompt and to write behind it, greedily, and the bytes that CUDA had allocated at most."""
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, int(model.config.vocab_size), (1, config.prompt_tokens), generator=generator)
    ids = ids.to(model.device)
    output: Any = None

    def read() -> None:
        nonlocal output
        output = model(input_ids=ids, use_cache=True)

    def write() -> None:
        nonlocal output
        for _ in range(config.new_tokens):
            following = output.logits[:, -1:].argmax(dim=-1)
            output = model(input_ids=following, past_key_values=output.past_key_values, use_cache=True)

    prefill, decode = _seconds(read, cuda), _seconds(write, cuda)
    return prefill, decode, float(torch.cuda.max_memory_allocated()) if cuda else 0.0


def _seconds(work: Callable[[], None], cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
