"""The `distill` step: the student learns what the teacher says of the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.distill.config import DistillConfig
from prunus.distill.losses import forward_kl
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.load import device_of, dtype_named, inference_dtype, load_model, save_model
from prunus.runtime import Runtime
from prunus.training.loop import Objective, train
from prunus.training.objectives import cross_entropy


@dataclass(frozen=True)
class Inputs:
    """The folders of student and teacher, and the stream of tokens that both read."""

    student: Path
    teacher: Path
    tokens: Path


def run(config: DistillConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Distil the teacher into the student, and write the result to `out` in the student's own type.

    Returns:
        The last loss (nats per token), tokens and tokens per second, and `reload_difference`.

    Raises:
        DataError: The stream does not fill one sequence.
        TrainingError: The loss is not finite.
    """
    folder = ModelFolder(inputs.student)
    torch.manual_seed(config.seed)
    model = load_model(inputs.student, device_of(runtime), torch.float32)
    objective = _objective(config, inputs.teacher, runtime)
    metrics = train(model, objective, Tokens.open(inputs.tokens), config, out, runtime, console, "distill")
    difference = save_model(model, out, dtype_named(folder.config))
    copy_along(inputs.student, out)
    return {**metrics, "reload_difference": difference}


def _objective(config: DistillConfig, teacher: Path, runtime: Runtime) -> Objective:
    if config.loss == "cross_entropy":
        return cross_entropy
    device = device_of(runtime)
    guide = load_model(teacher, device, inference_dtype(runtime, device)).requires_grad_(False)

    def objective(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = guide(input_ids=input_ids, use_cache=False).logits
        return forward_kl(model(input_ids=input_ids, use_cache=False).logits, target, config.temperature)

    return objective
