"""Defaults of a recipe that depend on the size of its models."""

from __future__ import annotations

from dataclasses import replace

from prunus.config import Size
from prunus.errors import ShapeError
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe, StudentConfig
from prunus.pipeline.students import prune_config


def with_defaults(recipe: Recipe, teacher: Shape) -> Recipe:
    """The recipe with its unset options resolved.

    Args:
        recipe: The recipe as read.
        teacher: The teacher's shape.

    Raises:
        RecipeError: The given options leave no training step.
    """
    size = teacher.size()
    stages = tuple(stage.with_defaults(size) for stage in recipe.teacher.align)
    changed = {
        "teacher": recipe.teacher.model_copy(update={"align": stages}),
        "correct": recipe.correct.with_defaults(size),
        "score": recipe.score.with_defaults(size),
        "evaluate": recipe.evaluate.with_defaults(size),
        "distill": recipe.distill.with_defaults(size),
        "qat": recipe.qat.with_defaults(replace(size, cut=0.0)),
        "align": tuple(stage.with_defaults(size) for stage in recipe.align),
        "students": {name: _student(recipe, name, teacher) for name in recipe.students},
    }
    if recipe.search is not None:
        distill, prune = recipe.search.distill.with_defaults(size), recipe.search.prune.with_defaults(size)
        changed["search"] = recipe.search.model_copy(update={"distill": distill, "prune": prune})
    return recipe.model_copy(update=changed)


def _student(recipe: Recipe, name: str, teacher: Shape) -> StudentConfig:
    student, size = recipe.students[name], _size(recipe, name, teacher)
    changed = {
        "prune": student.prune.with_defaults(size),
        "distill": student.distill.with_defaults(size),
        "align": tuple(stage.with_defaults(size) for stage in student.align),
        "qat": student.qat.with_defaults(replace(size, cut=0.0)),  # of a student that is near its teacher
    }
    return student.model_copy(update=changed)


def _size(recipe: Recipe, name: str, teacher: Shape) -> Size:
    """The size of a student; its teacher's if it is not known yet, or if it is invalid, which is refused later."""
    student, prune = recipe.students[name], prune_config(recipe, name)
    if student.merge is not None or prune.shape is not None:
        return teacher.size()
    try:
        target = prune.target(teacher, name)
    except ShapeError:
        return teacher.size()
    return target.size(teacher if prune.init == "teacher" else None)
