"""What distillation costs."""

from __future__ import annotations

from dataclasses import replace

from prunus.costs import Around, Cost
from prunus.distill.config import DistillConfig
from prunus.models.shape import Shape
from prunus.training.cost import training_cost


def cost(config: DistillConfig, shape: Shape, around: Around) -> Cost:
    """Estimate it: the student's training, and the teacher where it runs beside it."""
    trained = training_cost(config, shape, around)
    if not config.runs_teacher:
        return trained
    passed = around.teacher.flops_per_token(config.sequence_length)
    if config.data == "student":  # which reads what it writes once more to write it
        passed += shape.flops_per_token(config.sequence_length)
    return replace(
        trained,
        flops=trained.flops + trained.tokens * passed,
        memory_bytes=trained.memory_bytes + around.teacher.parameters * 4,
    )
