"""One step of distillation at the shapes of Llama-3.1 8B to its 4B student by width, for gpu.py: time by part, memory.

Weights are random. A step is what training does: the teacher in bfloat16, the student with weights in float32 under
autocast, Prunus's objective, clipping, and the optimizer.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.training.config import OptimizerConfig
from prunus.training.optimizers import MuonWithAdamW

CONFIG = json.loads((Path(__file__).parents[1] / "recipes" / "configs" / "llama-3.1-8b.json").read_text())
WIDTH = {"hidden_size": 3072, "intermediate_size": 9216}  # of recipes/llama-3.1-minitron-4b.yaml
PARTS = ("teacher forward", "student forward", "head and loss", "backward", "optimizer")
WARM, MEASURED = 2, 4


@dataclass(frozen=True)
class Size:
    """The size of a step.

    Attributes:
        teacher: The teacher's config.json.
        student: The student's.
        layers: Numbers of layers to measure with; both models have the same.
        tokens: Tokens of a step, in one sequence.
    """

    teacher: dict[str, Any]
    student: dict[str, Any]
    layers: tuple[int, ...]
    tokens: int

    @classmethod
    def full(cls, layers: tuple[int, ...], tokens: int) -> Size:
        """The shapes of 8B and 4B."""
        return cls(CONFIG, {**CONFIG, **WIDTH}, layers, tokens)

    @classmethod
    def small(cls) -> Size:
        """The same family, tiny."""
        teacher = {**CONFIG, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
        teacher |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        return cls(teacher, {**teacher, "hidden_size": 48, "intermediate_size": 96}, (1, 2), 64)


def now(device: torch.device) -> float:
    """The time in seconds, once the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock:
    """Times at the ends of a step's parts: events of CUDA, which wait for nothing, or the time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.marks = device, list[Any]()

    def mark(self, *_: Any) -> None:
        """The end of a part; also a forward hook."""
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """The time of each part since the last call."""
        now(self.device)
        cuda = self.device.type == "cuda"
        spans = [a.elapsed_time(b) / 1000 if cuda else b - a for a, b in zip(self.marks, self.marks[1:], strict=False)]
        self.marks.clear()
        return dict(zip(PARTS, spans, strict=True))


def measure(size: Size, layers: int, optimizer: str, device: torch.device, peak: float | None) -> dict[str, Any]:
    """One row: a step with that number of layers.

    Args:
        size: The shapes.
        layers: The layers of both models.
        optimizer: `adamw` or `muon`.
        device: Where.
        peak: The device's peak in TFLOP/s in bfloat16, for the utilisation; None if it is not known.
    """
    release(device)
    teacher = build(size.teacher, layers, torch.bfloat16, device).requires_grad_(False).eval()
    student = build(size.student, layers, torch.float32, device).train()
    config = DistillConfig.model_validate({"tokens": 0, "states": "none"})
    objective = make_objective(config, student, teacher, None)
    stepper = make_optimizer(optimizer, objective)
    clock = Clock(device)
    objective.guide.register_forward_hook(clock.mark)
    student.base_model.register_forward_hook(clock.mark)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size.student["vocab_size"], (1, size.tokens), generator=generator).to(device)
    times = [step(objective, stepper, ids, clock) for _ in range(WARM + MEASURED)][WARM:]
    parts = {name: median(one[name] for one in times) for name in PARTS}
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    seconds = sum(parts.values())
    products = sum(products_seconds(model, size.tokens, passes) for model, passes in ((teacher, 1), (student, 3)))
    flops = sum(flops_of(model, size.tokens, passes) for model, passes in ((teacher, 1), (student, 3)))
    return {
        "layers": layers,
        "optimizer": optimizer,
        "tokens_per_second": size.tokens / seconds,
        "of_products": products / seconds,
        "tflops": flops / seconds / 1e12,
        "of_peak": None if peak is None else flops / seconds / 1e12 / peak,
        "gigabytes": memory,
        "seconds": seconds,
        **parts,
    }


def release(device: torch.device) -> None:
    """Free what the row before left, and count the peak of memory from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def build(config: dict[str, Any], layers: int, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A model of random weights, made on the device."""
    settings = AutoConfig.for_model(**{**config, "num_hidden_layers": layers})
    with torch.device(device):
        return AutoModelForCausalLM.from_config(settings, dtype=dtype)


def make_optimizer(name: str, objective: nn.Module) -> torch.optim.Optimizer:
    """The optimizer as training has it."""
    if name == "muon":
        return MuonWithAdamW(objective, OptimizerConfig(optimizer="muon", learning_rate=1e-5))
    return torch.optim.AdamW(objective.parameters(), lr=1e-5, fused=True)


def step(objective: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor, clock: Clock) -> dict[str, float]:
    """Take a step, and return the seconds of its parts."""
    clock.mark()
    with torch.autocast(ids.device.type, torch.bfloat16):
        loss = objective(ids)
    clock.mark()
    loss.backward()
    clock.mark()
    nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    clock.mark()
    return clock.seconds()


def linear(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear modules of the layers, and the head."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def flops_of(model: PreTrainedModel, tokens: int, passes: int) -> float:
    """FLOP of a forward pass (3 passes: and backward) over one sequence: products by weights, and causal attention."""
    weights = sum(module.weight.numel() for module in linear(model))
    config = model.config
    attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim * tokens
    return 2.0 * passes * tokens * (weights + attention)


def products_seconds(model: PreTrainedModel, tokens: int, passes: int) -> float:
    """Seconds of the products by weights alone, in bfloat16: outputs, and with 3 passes both gradients."""
    total = 0.0
    for module in linear(model):
        n, m = module.in_features, module.out_features
        total += sum(
            product_seconds(*sizes, model.device) for sizes in ((tokens, n, m), (tokens, m, n), (m, tokens, n))[:passes]
        )
    return total


@cache
def product_seconds(m: int, k: int, n: int, device: torch.device) -> float:
    """The median time of a product [m, k] x [k, n] in bfloat16."""
    a, b = (torch.randn(*size, device=device, dtype=torch.bfloat16) for size in ((m, k), (k, n)))
    return median(_seconds(partial(torch.mm, a, b), device) for _ in range(5))


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    repeats = 10 if device.type == "cuda" else 1
    work()
    begin = now(device)
    for _ in range(repeats):
        work()
    return (now(device) - begin) / repeats


def by_layers(rows: list[dict[str, Any]], size: Size) -> dict[str, float]:
    """The line through the times of a step by its layers: seconds of a layer and of the rest, and the full depth."""
    layers, seconds = ([row[name] for row in rows] for name in ("layers", "seconds"))
    slope, rest = np.polyfit(layers, seconds, 1)
    full = size.teacher["num_hidden_layers"]
    return {"layer_seconds": float(slope), "other_seconds": float(rest), "layers": full,
            "tokens_per_second": size.tokens / float(rest + slope * full)}  # fmt: skip
