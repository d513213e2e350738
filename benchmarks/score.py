"""The cost of scoring compared with a plain forward pass over the same tokens: all width axes in one pass, as a ratio.

    python benchmarks/score.py [--json FILE]

A Llama of random weights. Each repetition times the plain pass and the scoring passes alternately, and the ratio is
that of the medians. Statistics that need a backward pass are compared with a forward and backward pass of the
activations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware, versions
from prunus.steps.score.statistics import Statistics
from prunus.steps.score.step import forward_and_backward
from prunus.training.objectives import CrossEntropy

CONFIG = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 8192,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "plain": None,
    "all width axes (mean)": ("mean",),
    "and the covariance": ("mean", "covariance"),
    "all three aggregations": ("mean", "l2", "variance"),
}
BACKWARD: dict[str, tuple[str, ...] | None] = {
    "forward and backward": None,
    "gradients": ("mean", "gradients"),
    "gradient covariance": ("mean", "covariance", "gradient_covariance"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval().requires_grad_(False)
    ids = torch.randint(0, CONFIG["vocab_size"], (options.batch_size, options.sequence_length))
    loss = CrossEntropy(model)
    seconds: dict[str, list[float]] = {name: [] for name in [*VARIANTS, *BACKWARD]}
    for _ in range(options.repetitions + 1):  # the first warms up
        for name, collect in VARIANTS.items():
            seconds[name].append(forward(model, ids, collect))
        for name, collect in BACKWARD.items():
            seconds[name].append(timed(model, collect, lambda: forward_and_backward(loss, ids)))
    found = {name: median(times[1:]) for name, times in seconds.items()}
    ratios = {name: found[name] / found["plain"] for name in VARIANTS}
    ratios |= {name: found[name] / found["forward and backward"] for name in BACKWARD}
    print(f"{hardware()}, {options.threads} threads, {options.batch_size} x {options.sequence_length} tokens")
    for name, ratio in ratios.items():
        print(f"{name:28}{found[name]:8.3f} s {ratio:8.3f}")
    if options.json:
        facts: dict[str, Any] = {"hardware": hardware(), "versions": versions(), "options": CONFIG, "seconds": found}
        facts |= {"tokens": ids.numel(), "threads": options.threads, "ratios": ratios}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def forward(model: LlamaForCausalLM, ids: torch.Tensor, collect: tuple[str, ...] | None) -> float:
    with torch.no_grad():
        return timed(model, collect, lambda: model.base_model(input_ids=ids, use_cache=False))


def timed(model: LlamaForCausalLM, collect: tuple[str, ...] | None, work: Callable[[], Any]) -> float:
    """Seconds of one pass, with the statistics if any are collected."""
    shape = Shape.from_config(CONFIG, LLAMA, "benchmark")
    statistics = Statistics(shape, collect, torch.device("cpu")) if collect else None
    with statistics.hooked(model) if statistics else nullcontext():
        start = time.perf_counter()
        work()
        if statistics:
            statistics.end_batch()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
