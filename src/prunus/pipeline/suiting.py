"""What a recipe leaves open, as it suits its models."""

from __future__ import annotations

from prunus.config import Size
from prunus.errors import ShapeError
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe, StudentConfig
from prunus.pipeline.students import prune_config


def suited(recipe: Recipe, teacher: Shape) -> Recipe:
    """The recipe with all that it leaves open.

    Args:
        recipe: As it was read.
        teacher: The teacher's shape.

    Raises:
        RecipeError: What is given leaves no step.
    """
    size = teacher.size()
    own = recipe.teacher
    changed = {
        "teacher": own.model_copy(update={"align": tuple(stage.with_defaults(size) for stage in own.align)}),
        "correct": recipe.correct.with_defaults(size),
        "score": recipe.score.with_defaults(size),
        "evaluate": recipe.evaluate.with_defaults(size),
        "distill": recipe.distill.with_defaults(size),
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
    }
    return student.model_copy(update=changed)


def _size(recipe: Recipe, name: str, teacher: Shape) -> Size:
    """Of a student; of its teacher where its own is not known yet, or cannot be, which is refused later."""
    student, prune = recipe.students[name], prune_config(recipe, name)
    if student.merge is not None or prune.shape is not None:
        return teacher.size()
    try:
        target = prune.target(teacher, name)
    except ShapeError:
        return teacher.size()
    return target.size(teacher if prune.init == "teacher" else None)
