"""How fast a model reads and writes, and what it takes up, on this machine: teacher and student by turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from prunus.evaluate.config import EfficiencyConfig
from prunus.models.shape import Shape


def efficiency(
    models: dict[str, tuple[PreTrainedModel, Shape]], config: EfficiencyConfig
) -> dict[str, dict[str, float]]:
    """The figures of each model, by name.

    `parameters`, `bytes` of the weights as loaded, `kv_bytes_per_token`; and, if it is to be timed, `prefill` and
    `decode` in tokens per second of one sequence, the median of the rounds, and `memory_bytes`: on CUDA the most that
    was allocated, elsewhere the weights and the cache.
    """
    found: dict[str, dict[str, float]] = {}
    for name, (model, shape) in models.items():
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        each = next(model.parameters()).element_size()
        found[name] = {"parameters": shape.parameters, "bytes": size, "kv_bytes_per_token": shape.kv_cache_bytes(each)}
    if not config.prompt_tokens:
        return found
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    for turn in range(config.rounds + 1):
        for name, (model, _) in models.items():
            timed = _time(model, config)
            if turn:  # the first warms up
                rounds[name].append(timed)
    for name, times in rounds.items():
        memory = max(allocated for _, _, allocated in times)
        cache = found[name]["kv_bytes_per_token"] * (config.prompt_tokens + config.new_tokens)
        found[name] |= {
            "prefill": config.prompt_tokens / median(prefill for prefill, _, _ in times),
            "decode": config.new_tokens / median(decode for _, decode, _ in times),
            "memory_bytes": memory or found[name]["bytes"] + cache,
        }
    return found


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
