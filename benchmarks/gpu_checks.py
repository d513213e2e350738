"""Checks of Prunus on a device against the CPU, for gpu.py: the same functions and steps run on both.

Each check returns tensors by name. Their error is ‖a - b‖ / ‖b‖ with b the CPU's values in float32, or the share of
elements that differ for integers, such as tokens. Models and text are those of gpu_made.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_made import QUIET, Made, Where, score_config
from safetensors.torch import load_file
from transformers import GenerationConfig

from prunus.inference.config import GenerationOptions
from prunus.inference.local import generate
from prunus.inference.prompts import Prompt
from prunus.kd.config import GuideConfig
from prunus.kd.divergences import LOSSES, divergence_of
from prunus.kd.kernels import sparse_forward_kl_rows
from prunus.models.folder import ModelFolder
from prunus.models.head import Head
from prunus.models.lineage import read_lineage
from prunus.models.rewarding import load_reward_model
from prunus.runtime import Runtime
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.methods import METHODS
from prunus.steps.align.objective import Preference, Reward
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.steps.distill.step import Inputs as DistillInputs
from prunus.steps.distill.step import run as distill
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.likelihood import likelihoods
from prunus.steps.evaluate.step import Inputs as EvaluateInputs
from prunus.steps.evaluate.step import run as evaluate
from prunus.steps.export.config import ExportConfig
from prunus.steps.export.step import Inputs as ExportInputs
from prunus.steps.export.step import run as export
from prunus.steps.export.targets import FORMATS
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as prune
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as score
from prunus.steps.targets.config import TargetsConfig
from prunus.steps.targets.step import Inputs as TargetsInputs
from prunus.steps.targets.step import run as store_targets
from prunus.training.compiled import compiled
from prunus.training.log_probabilities import token_log_probs
from prunus.training.muon import orthogonal
from prunus.training.objectives import CrossEntropy, Objective

Values = dict[str, torch.Tensor]
GUIDES: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss} for loss in LOSSES},
    "top_k": {"top_k": 64},
    "temperature and cross-entropy": {"temperature": 2.0, "cross_entropy_weight": 0.5},
    "teacher_entropy": {"token_weights": "teacher_entropy"},
    "states": {"states": {"weight": 1.0}},
}


def losses(where: Where) -> Values:
    """Every divergence: its formula, its kernel and the kernel's gradient."""
    student, teacher = where.normal(24, 1152, seed=1), where.normal(24, 1152, seed=2)
    found: Values = {}
    for name, loss in LOSSES.items():
        found[f"{name}, formula"] = loss.formula(student, teacher)
        for temperature in (1.0, 2.0) if loss.scaled else (1.0,):
            gradient = student.clone()
            rows = divergence_of(GuideConfig.model_validate({"loss": name, "temperature": temperature}))
            found[f"{name} at {temperature}"] = rows(gradient, teacher.clone())
            found[f"{name} at {temperature}, gradient"] = gradient
    gradient = student.clone()
    found["top_k"], found["top_k, gradient"] = divergence_of(GuideConfig(top_k=16))(gradient, teacher), gradient
    drawn = torch.arange(24 * 8).view(24, 8).remainder(7).to(where.device)  # an id that is drawn twice adds up
    gradient = student.clone()
    shares = torch.full(drawn.shape, 1 / 8, device=where.device)
    found["samples"], found["samples, gradient"] = sparse_forward_kl_rows(gradient, drawn, shares), gradient
    return found


def compiled_loss(where: Where) -> Values:
    """A divergence by torch.compile, as `runtime.compile: true` has it, against the plain one on the CPU."""
    if where.made.small:
        raise NotHereError("not with --small: compiling takes seconds")
    student, teacher = where.normal(24, 1152, seed=1), where.normal(24, 1152, seed=2)
    rows = divergence_of(GuideConfig())
    if where.device.type != "cpu":
        rows = compiled(rows, 1152, 0, Runtime(compile=True), where.device, QUIET)
    with torch.no_grad():
        return {"losses": rows(student, teacher), "gradient": student}


def guides(where: Where) -> Values:
    """Distillation's objective with every kind of guide: the loss, and its gradient by all weights."""
    made = where.made
    shape = ModelFolder(made.teacher).shape
    lineage = read_lineage(made.student, shape.hidden_size, shape.num_hidden_layers)
    teacher = where.model(made.teacher).requires_grad_(False)
    student = where.model(made.student, torch.float32)
    found: Values = {}
    for name, options in GUIDES.items():
        config = DistillConfig.model_validate({"tokens": 0, "states": "none", **options})
        objective = make_objective(config, student, teacher, lineage if config.compares_states else None)
        found |= loss_and_gradient(name, objective, {"input_ids": made.ids(2, 48)}, where)
    return found


def preferences(where: Where) -> Values:
    """The losses of alignment: the loss of every method that trains on answers, and its gradient by all weights."""
    made = where.made
    ids, draw = made.ids(4, 32), np.random.default_rng(0)
    counts = torch.zeros(4, 32, dtype=torch.bool)
    for row, length in enumerate((9, 14, 20, 11)):
        counts[row, 8 : 8 + length] = True
    pairs = {"input_ids": ids, "counts": counts, "rewards": torch.tensor([3.0, 1.0, 0.5, 0.0])}
    reference = torch.from_numpy(draw.normal(-60, 5, 4).astype(np.float32))
    weights = counts.float() / counts.float().mean()
    sft = CrossEntropy(where.model(made.student, torch.float32))
    found = loss_and_gradient("sft", sft, {"input_ids": ids, "weights": weights}, where)
    for name, method in METHODS.items():
        if method.learns in ("pairs", "labels"):
            objective = Preference(where.model(made.student, torch.float32), AlignConfig(method=name))
            given = {**pairs, **({"reference": reference} if method.refers else {})}
            found |= loss_and_gradient(name, objective.to(where.device), given, where)
    reward = load_reward_model(made.student, where.device, torch.float32, new=True)
    return found | loss_and_gradient("reward", Reward(reward), pairs, where)


def loss_and_gradient(name: str, objective: Objective, inputs: Values, where: Where) -> Values:
    """The loss of a micro-batch, and its gradient by all weights as one vector."""
    objective.zero_grad(set_to_none=True)
    with where.autocast():
        loss = objective(**{key: value.to(where.device) for key, value in inputs.items()})
    loss.backward()
    parts = [parameter.grad.flatten() for parameter in objective.parameters() if parameter.grad is not None]
    return {name: loss.detach(), f"{name}, gradient": torch.cat(parts)}


def log_probabilities(where: Where) -> Values:
    """Log-probabilities by a head with bias, scale and cap, and their gradients."""
    hidden, weight, bias = where.normal(40, 32, seed=1), where.normal(300, 32, seed=2), where.normal(300, seed=3)
    leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    labels = torch.arange(40, device=where.device)
    with where.autocast():
        result = token_log_probs(hidden, Head(weight, bias, 0.5, 5.0), labels)
    (result * where.normal(40, seed=4)).sum().backward()
    gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return {"values": result.detach(), **gradients}


def muon(where: Where) -> Values:
    """Muon's orthogonalisation, of wide and of tall matrices."""
    return {f"{m} x {n}": orthogonal(where.normal(m, n), where.dtype) for m, n in ((96, 256), (256, 96))}


def scores(where: Where) -> Values:
    """The score step: every statistic, with gradients and removals of layers; their order depends on near ties."""
    out = where.made.folder()
    score(score_config(where.made), ScoreInputs(where.made.teacher, where.made.tokens), out, where.runtime, QUIET)
    return {name: value for name, value in load_file(out / "scores.safetensors").items() if value.is_floating_point()}


def cut(way: str, where: Where) -> Values:
    """The prune step with a refit of all linear layers: the student's weights, and its KL."""
    made, out = where.made, where.made.folder()
    heal = {"norms": True, "refit": "all", "samples": 8, "sequence_length": 64}
    sizes = {"num_hidden_layers": 2} if way == "depth" else {**made.width, "method": way}
    config = PruneConfig.model_validate({**sizes, "heal": heal, "check_samples": 2})
    metrics = prune(config, PruneInputs(made.teacher, made.scores, made.tokens), out, where.runtime, QUIET)
    return load_file(out / "model.safetensors") | {"KL": torch.tensor(metrics["kl"])}


def distillation(optimizer: str, where: Where) -> Values:
    """The distill step: the loss of every optimiser step."""
    made, out = where.made, where.made.folder()
    run_distillation(made, optimizer, out, where.runtime)
    return {"losses": losses_of(out)}


def run_distillation(made: Made, optimizer: str, out: Path, runtime: Runtime) -> None:
    """Distil for four steps into `out`."""
    config = DistillConfig.model_validate({
        "tokens": 4 * 4 * 64, "sequence_length": 64, "batch_size": 4, "optimizer": optimizer, "learning_rate": 1e-3,
    })  # fmt: skip
    distill(config, DistillInputs(made.student, made.tokens, made.teacher), out, runtime, QUIET)


def losses_of(out: Path) -> torch.Tensor:
    """The loss of every step of a training."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["loss"] for line in lines])


def targets(where: Where) -> Values:
    """The targets step: the stored probabilities of the likeliest tokens, and the mass of sampled ones."""
    found: Values = {}
    for keep in ("top_k", "samples"):
        out = where.made.folder()
        config = TargetsConfig.model_validate({"keep": keep, "count": 8, "sequence_length": 64, "sequences": 4})
        metrics = store_targets(config, TargetsInputs(where.made.teacher, where.made.tokens), out, where.runtime, QUIET)
        found[f"{keep}, mass"] = torch.tensor(metrics["kept_mass"])
        if keep == "top_k":
            stored = np.load(out / "log_probabilities.npy").astype(np.float32)
            found["probabilities"] = torch.from_numpy(stored).exp()
    return found


def generation(where: Where) -> Values:
    """Tokens that the teacher generates after prompts of different lengths, greedily and sampled by seed."""
    model = where.model(where.made.teacher)
    new = 8 if where.made.small else 32
    ids = where.made.ids(4, 24).tolist()
    prompts = [Prompt(i, row[: 8 + 4 * i], "") for i, row in enumerate(ids)]
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=new, pad_token_id=0)
    modes = {"greedy": GenerationOptions(new), "sampled": GenerationOptions(new, temperature=0.8, top_p=0.9)}
    return {name: torch.tensor(generate(model, prompts, one, set(), None)) for name, one in modes.items()}


def continuations(where: Where) -> Values:
    """Log-likelihoods of continuations, as tasks with choices need them."""
    rows = where.made.ids(6, 40).tolist()
    requests = [(rows[i // 2][: 20 + i // 2], rows[(i + 1) % 6][:5]) for i in range(6)]
    found = dict(likelihoods(where.model(where.made.teacher), requests, 4, 64))
    return {"values": torch.tensor([found[i].value for i in range(6)])}


def evaluation(where: Where) -> Values:
    """The evaluate step of the student beside the teacher: every figure; in float32 also answers to a task."""
    made, out, few = where.made, where.made.folder(), where.made.small
    tasks = {"instruction_following": {"data": "builtin:world", "limit": 8, "max_new_tokens": 48}}
    config = EvaluateConfig.model_validate({
        "sequence_length": 64, "max_tokens": 512 if few else 4096, "max_new_tokens": 4, "prompt_count": 1,
        "prompt_tokens": 8, "resamples": 100, "efficiency": {"prompt_tokens": 8, "new_tokens": 2},
        "tasks": {} if few or where.dtype is torch.bfloat16 else tasks,
    })  # fmt: skip
    metrics = evaluate(config, EvaluateInputs(made.student, made.tokens, made.teacher), out, where.runtime, QUIET)
    del metrics["nll_increase"]  # a difference near 0, whose relative error says nothing
    return {name: torch.tensor(value) for name, value in metrics.items()}


def errors(found: Values, expected: Values) -> dict[str, float]:
    """The error of each value that was found, by name; infinite if it is not finite."""
    return {name: _error(value.cpu(), expected[name].cpu()) for name, value in found.items()}


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    if not expected.is_floating_point():
        return float((found != expected).double().mean())
    a, b = found.double(), expected.double()
    error = float((a - b).norm() / b.norm().clamp_min(1e-30))
    return error if math.isfinite(error) else math.inf


class NotHereError(Exception):
    """A check needs what is not installed."""


def exports(where: Where) -> Values:
    """The export step in all formats that are installed: each file's KL to the model on the device."""
    formats = [name for name in ("gguf-f32", "gguf-q8_0", "torchao-int8") if can_export(name)]
    if not formats:
        raise NotHereError("neither xllamacpp nor torchao is installed")
    made, out = where.made, where.made.folder()
    config = ExportConfig.model_validate({"formats": formats, "check_tokens": 256, "check_length": 64, "new_tokens": 4})
    metrics = export(config, ExportInputs(made.teacher, made.tokens), out, where.runtime, QUIET)
    return {name: torch.tensor(value) for name, value in metrics.items() if name.endswith("perplexity")}


def can_export(name: str) -> bool:
    """Whether the packages of a format are installed."""
    from importlib.util import find_spec

    return all(find_spec(module) for module in FORMATS[name].needs)


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        run: Computes its values in one place.
        float32: The largest error in float32.
        bfloat16: The largest error of bfloat16 on the device against float32 on the CPU; None: not compared.
    """

    run: Callable[[Where], Values]
    float32: float
    bfloat16: float | None = None


# In bfloat16, gradients have errors of a few percent (of the states that score reads, 15), and Muon's iteration
# multiplies them; on a GPU, its products are always in bfloat16. A near tie changes a token of an answer, and then all
# after it, in one of four answers.
CHECKS: dict[str, Check] = {
    "losses": Check(losses, 1e-4),
    "compiled": Check(compiled_loss, 1e-4),
    "guides": Check(guides, 1e-3, 0.2),
    "preferences": Check(preferences, 1e-3, 0.2),
    "log-probabilities": Check(log_probabilities, 1e-4, 0.05),
    "Muon": Check(muon, 1e-3, 0.2),
    "score": Check(scores, 1e-3, 0.4),
    "cut, rotated": Check(partial(cut, "rotate"), 1e-3, 0.1),
    "cut, channels": Check(partial(cut, "minitron"), 1e-3, 0.1),
    "cut, depth": Check(partial(cut, "depth"), 1e-3, 0.1),
    "distill, AdamW": Check(partial(distillation, "adamw"), 1e-3, 0.05),
    "distill, Muon": Check(partial(distillation, "muon"), 0.05, 0.05),
    "targets": Check(targets, 1e-3, 0.05),
    "generation": Check(generation, 0.25),
    "continuations": Check(continuations, 1e-4, 0.02),
    "evaluate": Check(evaluation, 1e-3, 0.05),
    "export": Check(exports, 1e-3),
}
