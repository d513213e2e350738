"""What a step will cost, before any of it is done: tokens, floating-point operations, memory, disk."""

from __future__ import annotations

from dataclasses import dataclass

from prunus.distill.config import DistillConfig
from prunus.evaluate.config import EvaluateConfig
from prunus.models.shape import Shape
from prunus.pipeline.plan import Plan, Step
from prunus.score.config import ScoreConfig
from prunus.training.config import TrainingConfig

_TRAINED = 16  # bytes a parameter: weight, gradient and AdamW's two moments, in float32
_ACTIVATIONS = 34  # bytes a token, layer and channel at 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, eq. 2)
_LOGITS = 5  # float32 values a token and vocabulary entry: the student's and the teacher's logits, their
# log-probabilities, and the gradient


@dataclass(frozen=True)
class Cost:
    """An estimate. Memory is for one device in float32; evaluation's tokens are an upper bound."""

    tokens: int = 0
    flops: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


def cost_of(step: Step, plan: Plan) -> Cost:
    """Estimate one step of a plan."""
    shape = plan.students.get(step.subject, plan.teacher)
    config = step.config
    weights = shape.parameters * 4
    if isinstance(config, TrainingConfig):
        return _training(config, shape, plan)
    if isinstance(config, ScoreConfig):
        tokens = config.samples * config.sequence_length
        return Cost(tokens, tokens * shape.flops_per_token(config.sequence_length), weights, 0)
    if isinstance(config, EvaluateConfig):
        models = [shape, *([plan.teacher] if "teacher" in step.inputs else [])]
        flops = sum(config.max_tokens * model.flops_per_token(config.sequence_length) for model in models)
        return Cost(config.max_tokens, flops, sum(model.parameters * 4 for model in models), 0)
    return Cost(disk_bytes=weights if step.kind in ("prune", "create") else 0)


def _training(config: TrainingConfig, shape: Shape, plan: Plan) -> Cost:
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = 3 * shape.flops_per_token(config.sequence_length)  # a backward pass costs two forward ones
    portion = min(plan.recipe.runtime.device_batch_size, config.batch_size) * config.sequence_length
    memory = shape.parameters * _TRAINED + 4 * portion * shape.vocab_size * _LOGITS
    memory += 2 * _ACTIVATIONS * portion * shape.num_hidden_layers * shape.hidden_size
    if isinstance(config, DistillConfig) and config.loss != "cross_entropy":
        flops += plan.teacher.flops_per_token(config.sequence_length)
        memory += plan.teacher.parameters * 4
    checkpoints = 2 * shape.parameters * 12  # weights and moments, and the one before until the new one is whole
    return Cost(tokens, tokens * flops, memory, shape.parameters * 4 + checkpoints)
