"""What nobody gave, as it suits the models of a recipe or of a command."""

from __future__ import annotations

from prunus.config import Size
from prunus.errors import ShapeError
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe, StudentConfig
from prunus.pipeline.students import prune_config


def size_of(shape: Shape, teacher: Shape | None = None) -> Size:
    """What options follow from of a model, and of its teacher where it is a student."""
    widest = max(shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim)
    size = Size(shape.hidden_size, shape.max_position_embeddings, widest)
    if teacher is None:
        return size
    cut = 1 - shape.non_embedding_parameters / teacher.non_embedding_parameters
    return Size(size.hidden_size, size.context, size.widest, max(cut, 0.0))


def suited(recipe: Recipe, teacher: Shape) -> Recipe:
    """The recipe with all that it leaves open.

    Args:
        recipe: As it was read.
        teacher: The teacher's shape.

    Raises:
        RecipeError: What is given leaves no step.
    """
    size = size_of(teacher)
    own = recipe.teacher
    changed = {
        "teacher": own.model_copy(update={"align": tuple(stage.suited(size) for stage in own.align)}),
        "correct": recipe.correct.suited(size),
        "score": recipe.score.suited(size),
        "evaluate": recipe.evaluate.suited(size),
        "distill": recipe.distill.suited(size),
        "align": tuple(stage.suited(size) for stage in recipe.align),
        "students": {name: _student(recipe, name, teacher) for name in recipe.students},
    }
    if recipe.search is not None:
        distill, prune = recipe.search.distill.suited(size), recipe.search.prune.suited(size)
        changed["search"] = recipe.search.model_copy(update={"distill": distill, "prune": prune})
    return recipe.model_copy(update=changed)


def _student(recipe: Recipe, name: str, teacher: Shape) -> StudentConfig:
    student, size = recipe.students[name], _size(recipe, name, teacher)
    changed = {
        "prune": student.prune.suited(size),
        "distill": student.distill.suited(size),
        "align": tuple(stage.suited(size) for stage in student.align),
    }
    return student.model_copy(update=changed)


def _size(recipe: Recipe, name: str, teacher: Shape) -> Size:
    """Of a student; of its teacher where its own is not known yet, or cannot be, which is refused later."""
    student, prune = recipe.students[name], prune_config(recipe, name)
    if student.merge is not None or prune.shape is not None:
        return size_of(teacher)
    try:
        target = prune.target(teacher, name)
    except ShapeError:
        return size_of(teacher)
    return size_of(target, teacher if prune.init == "teacher" else None)
