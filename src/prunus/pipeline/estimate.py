"""What a step will cost, before any of it is done: tokens, floating-point operations, memory, disk."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from prunus.align.config import LIKELIHOOD, AlignConfig
from prunus.config import StepConfig
from prunus.distill.config import DistillConfig
from prunus.evaluate.config import EvaluateConfig
from prunus.evaluate.cost import task_costs
from prunus.export.config import ExportConfig
from prunus.generate.config import GenerateConfig
from prunus.merge.config import MergeConfig
from prunus.models.shape import Shape
from prunus.pipeline.exporting import export_cost
from prunus.pipeline.plan import Plan
from prunus.pipeline.shapes import ShapeSearch
from prunus.pipeline.steps import Step
from prunus.prune.config import PruneConfig
from prunus.score.config import GRADIENTS, ScoreConfig
from prunus.search.halving import rung_sizes
from prunus.targets.config import TargetsConfig
from prunus.training.config import TrainingConfig

_TRAINED = 16  # bytes a parameter: weight, gradient and AdamW's two moments, in float32
_ACTIVATIONS = 34  # bytes a token, layer and channel at 16 bits (Korthikanti et al. 2022, arXiv 2205.05198, eq. 2)
_CHUNK = 2048  # tokens whose logits exist at a time, at most; see `training.head`
_LOGITS = 2  # float32 values a token of a chunk and vocabulary entry: the student's logits and the teacher's

_HEALING = (
    4  # forward passes that healing everything comes to: of each layer six parts, the next layer's input, and fits
)
_WRITTEN = 16  # bytes a generated token: its id and its text, both as kept while at work and as saved


@dataclass(frozen=True)
class Cost:
    """An estimate. Memory is for one device in float32; evaluation's tokens are an upper bound."""

    tokens: int = 0
    flops: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


def cost_of(step: Step, plan: Plan) -> Cost:
    """Estimate one step of a plan."""
    shape = {**plan.students, **plan.references}.get(step.subject, plan.teacher)
    config = step.config
    weights = shape.parameters * 4
    if isinstance(config, TrainingConfig):
        return _training(config, shape, plan)
    if isinstance(config, EvaluateConfig):
        return _evaluating(config, shape, [plan.teacher] if "teacher" in step.inputs else [], plan)
    if isinstance(config, PruneConfig) and (config.heals(plan.teacher, shape) or config.refits_blocks):
        return _healing(config, shape, plan)
    if isinstance(config, ExportConfig):
        return Cost(*export_cost(config, shape, shape.max_position_embeddings))
    if isinstance(config, MergeConfig):
        return _merging(config, shape, len(step.inputs))
    made = _aligning(config, shape, plan) if isinstance(config, AlignConfig) else _asking(config, shape, plan)
    return made or Cost(disk_bytes=weights if step.kind in ("prune", "create", "expand") else 0)


def _searching(config: ShapeSearch, plan: Plan) -> Cost:
    """As if every candidate were as large as the teacher: what fits the budget is known when it is looked at.

    Disk holds the weights of one rung, and of the one that is under way.
    """
    sizes = rung_sizes(config.candidates, config.eta, config.rungs)
    each = [_training(config.recovery(rung), plan.teacher, plan) for rung in range(len(sizes))]
    tokens = sum(count * cost.tokens for count, cost in zip(sizes, each, strict=True))
    flops = sum(count * cost.flops for count, cost in zip(sizes, each, strict=True))
    return Cost(tokens, flops, each[0].memory_bytes, 2 * config.candidates * plan.teacher.parameters * 4)


def _asking(config: StepConfig, shape: Shape, plan: Plan) -> Cost | None:
    """What only asks the teacher, or is made of other steps."""
    if isinstance(config, ShapeSearch):
        return _searching(config, plan)
    if isinstance(config, ScoreConfig):
        return _scoring(config, shape, plan)
    if isinstance(config, GenerateConfig):
        return _generating(config, shape, plan)
    return _targets(config, shape, plan) if isinstance(config, TargetsConfig) else None


def _evaluating(config: EvaluateConfig, shape: Shape, beside: list[Shape], plan: Plan) -> Cost:
    """Held-out text by both models, and the items of tasks by one; those that the harness fetches are not known."""
    models, tasks = [shape, *beside], task_costs(config).values()
    asked = sum(task.tokens for task in tasks)
    longest = min(max((task.longest for task in tasks), default=0), shape.max_position_embeddings)
    flops = sum(config.max_tokens * model.flops_per_token(config.sequence_length) for model in models)
    cache = plan.recipe.runtime.device_batch_size * longest * shape.kv_cache_bytes(4)
    memory = sum(model.parameters * 4 for model in models) + cache
    return Cost(config.max_tokens + asked, flops + asked * shape.flops_per_token(max(longest, 2)), memory, 0)


def _scoring(config: ScoreConfig, shape: Shape, plan: Plan) -> Cost:
    per_token, tokens = shape.flops_per_token(config.sequence_length), config.samples * config.sequence_length
    backward = bool(GRADIENTS & set(config.collect))
    passes = 1 + backward  # backward to the activations alone costs another forward
    layers = shape.num_hidden_layers
    removals = sum(layers - block + 1 for block in config.blocks if block < layers)
    losses = removals * ("lm_loss" in config.collect)
    if "logit_nmse" in config.collect:  # each beside the whole model
        losses += 2 * (removals + layers * (layers + 1) // 2 - 1)
    few = min(config.layer_samples, config.samples) * config.sequence_length * losses
    portion = min(plan.recipe.runtime.device_batch_size, config.samples) * config.sequence_length
    memory = shape.parameters * 4 + (_held(shape, portion) if backward else 0)
    return Cost(tokens + few, (tokens * passes + few) * per_token, memory, 0)


def _generating(config: GenerateConfig, shape: Shape, plan: Plan) -> Cost:
    """Every answer as long as it may be; what a server does is done elsewhere, and the length of prompts is unknown."""
    length = config.max_new_tokens + (0 if config.prompts else config.prompt_tokens)
    tokens = config.samples * length
    if config.server.url:
        return Cost(tokens, disk_bytes=tokens * _WRITTEN)
    cache = min(plan.recipe.runtime.device_batch_size, config.samples) * length * shape.kv_cache_bytes(4)
    return Cost(tokens, tokens * shape.flops_per_token(length), shape.parameters * 4 + cache, tokens * _WRITTEN)


def _targets(config: TargetsConfig, shape: Shape, plan: Plan) -> Cost:
    """As if no sequence were read twice; how many there are is known when the text is tokenised."""
    tokens = config.sequences * config.sequence_length
    kept = min(config.count, shape.vocab_size) if config.keep == "top_k" else config.count
    per_token = kept * (2 if shape.vocab_size <= 2**16 else 4) + (2 * (kept + 1) if config.keep == "top_k" else 0)
    portion = min(plan.recipe.runtime.device_batch_size, config.sequences) * config.sequence_length
    memory = shape.parameters * 4 + _ACTIVATIONS * portion * shape.hidden_size
    return Cost(tokens, tokens * shape.flops_per_token(config.sequence_length), memory, tokens * per_token)


def _healing(config: PruneConfig, shape: Shape, plan: Plan) -> Cost:
    read, models = config.heal.samples * config.heal.sequence_length, (plan.teacher, shape)
    blocks = shape.num_hidden_layers + 1 if config.refits_blocks else 0  # of which each is tried
    tokens = read * (blocks + config.heals(plan.teacher, shape))
    flops = tokens * sum(model.flops_per_token(config.heal.sequence_length) for model in models) * _HEALING
    streams = read * (2 * plan.teacher.hidden_size + shape.hidden_size) * 4
    return Cost(tokens, flops, sum(model.parameters * 4 for model in models) + streams, shape.parameters * 4)


def _aligning(config: AlignConfig, shape: Shape, plan: Plan) -> Cost:
    """Memory and disk alone: how much there is to learn from is known when it has been read."""
    portion = min(plan.recipe.runtime.device_batch_size, config.batch_size) * config.sequence_length
    portion *= 1 if config.method in LIKELIHOOD else 2
    return Cost(memory_bytes=_trained(shape, portion), disk_bytes=_kept(shape))


def _merging(config: MergeConfig, shape: Shape, inputs: int) -> Cost:
    """One weight of every model in memory; of an evolution the answers of all trials, as long as they may be."""
    evolve, weights = config.evolve, shape.parameters * 4
    if not evolve.trials:
        return Cost(memory_bytes=inputs * 4 * max(prod(size) for _, size in shape.tensors()), disk_bytes=weights)
    tokens = (evolve.trials + evolve.finalists + 1) * len(evolve.tasks) * evolve.items * evolve.max_new_tokens
    return Cost(tokens, tokens * shape.flops_per_token(evolve.max_new_tokens), weights, 2 * weights)


def _trained(shape: Shape, portion: int) -> int:
    """Bytes of a model in training, and of what it holds of so many tokens."""
    return shape.parameters * _TRAINED + _held(shape, portion)


def _held(shape: Shape, portion: int) -> int:
    """Bytes of what a backward pass over so many tokens reads, and of a chunk's logits."""
    logits = 4 * min(portion, _CHUNK) * shape.vocab_size * _LOGITS
    return logits + 2 * _ACTIVATIONS * portion * shape.num_hidden_layers * shape.hidden_size


def _kept(shape: Shape) -> int:
    """Bytes of a trained model, and of checkpoints: weights and moments, and the one before until the new is whole."""
    return shape.parameters * 4 + 2 * shape.parameters * 12


def _training(config: TrainingConfig, shape: Shape, plan: Plan) -> Cost:
    tokens = config.steps * config.batch_size * config.sequence_length
    flops = 3 * shape.flops_per_token(config.sequence_length)  # a backward pass costs two forward ones
    portion = min(plan.recipe.runtime.device_batch_size, config.batch_size) * config.sequence_length
    memory = _trained(shape, portion)
    if isinstance(config, DistillConfig) and config.runs_teacher:
        flops += plan.teacher.flops_per_token(config.sequence_length)
        if config.data == "student":  # which reads what it writes once more to write it
            flops += shape.flops_per_token(config.sequence_length)
        memory += plan.teacher.parameters * 4
    return Cost(tokens, tokens * flops, memory, _kept(shape))
