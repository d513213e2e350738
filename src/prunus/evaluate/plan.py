"""What an evaluation costs."""

from __future__ import annotations

from prunus.costs import Around, Cost
from prunus.evaluate.config import EvaluateConfig
from prunus.evaluate.cost import task_costs
from prunus.models.shape import Shape


def cost(config: EvaluateConfig, shape: Shape, around: Around) -> Cost:
    """Estimate held-out text by both models, and items of tasks by one. What the harness fetches is not known."""
    models = [shape, *([around.teacher] if "teacher" in around.inputs else [])]
    tasks = task_costs(config).values()
    asked = sum(task.tokens for task in tasks)
    longest = min(max((task.longest for task in tasks), default=0), shape.max_position_embeddings)
    flops = sum(config.max_tokens * model.flops_per_token(config.sequence_length) for model in models)
    cache = around.device_batch_size * longest * shape.kv_cache_bytes(4)
    memory = sum(model.parameters * 4 for model in models) + cache
    return Cost(config.max_tokens + asked, flops + asked * shape.flops_per_token(max(longest, 2)), memory, 0)
