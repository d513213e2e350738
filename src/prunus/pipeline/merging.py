"""Planning of merged students: their models, steps and shapes, and that fitness and evaluation share no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prunus.errors import ModelError, RecipeError, among
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.unpacking import ENDING
from prunus.steps.align.plan import is_model
from prunus.steps.evaluate.plan import skill_items
from prunus.steps.merge.compatibility import check_mergeable, different_tokens
from prunus.steps.merge.config import MergedConfig, name_of
from prunus.steps.merge.plan import check_fitness, given_fitness, one_shape
from prunus.steps.merge.questions import conversation_key

_STAGES = {"pruned": "prune", "distilled": "distill"}


def in_order(recipe: Recipe) -> list[str]:
    """The students' names, merged ones last."""
    return sorted(recipe.students, key=lambda name: recipe.students[name].merge is not None)


def merged_of(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """The students that are merged, directly or through others, from any of `names`."""
    found = list(names)
    for name in in_order(recipe):
        merge = recipe.students[name].merge
        if merge is not None and any(entry.partition(".")[0] in found for _, entry in _entries(merge)):
            found.append(name)
    return found[len(names) :]


def merged_shape(recipe: Recipe, name: str, shapes: Mapping[str, Shape], has_template: bool, hub: Hub) -> Shape:
    """The shape of a merged student; with an evolved layer path, at its maximum depth.

    Args:
        recipe: The recipe.
        name: The student.
        shapes: Shape of the teacher, under `teacher`, and of the students before this one.
        has_template: Whether the teacher's tokenizer has a chat template.
        hub: Source of models that are no students.

    Raises:
        RecipeError: Options do not fit, a name is unknown, or fitness uses items that the evaluation reports.
        ShapeError: The models differ in shape; names the weights.
        ModelError: A model cannot be used.
        DataError: The conversations for fitness cannot be used.
    """
    config, where = _of(recipe, name), f"students.{name}.merge"
    has_template = has_template or recipe.data.template is not None
    found = {}
    for place, entry in _entries(config):
        option = f"{where}.{place}"
        with hub.tolerate_missing():
            found[f"{option}: {entry}"] = _shape(entry, option, recipe, name, shapes, hub)
    first = one_shape(found) if found else shapes["teacher"]
    if not hub.preview:
        _check_outside(recipe, config, where, hub)
    config.check_fits(len(config.of), config.base is not None, first.num_hidden_layers, where)
    if config.evolve.trials:
        reported = {conversation_key(item.messages) for item in skill_items(recipe.evaluate)}
        check_fitness(config.evolve, reported, has_template, where, hub)
    depth = len(config.flow.path()) or None
    if config.method == "flow" and config.evolve.trials:
        depth = config.evolve.max_layers
    return first.with_dimensions({"num_hidden_layers": depth})


def _check_outside(recipe: Recipe, config: MergedConfig, where: str, hub: Hub) -> None:
    """Compare the models that are no students of the recipe with each other, and their tokens with the teacher's."""

    def outside(*entries: str | None) -> list[ModelFolder]:
        known = (*recipe.students, "teacher")
        return [hub.model(entry, where).folder for entry in entries if entry and entry.partition(".")[0] not in known]

    models, bases = outside(*config.of), outside(config.base)
    if models:
        check_mergeable(models, next(iter(bases), None), where)
    if recipe.teacher.path is None or len(models) == len(config.of):
        return
    teacher = hub.model(recipe.teacher.path, "teacher.path", recipe.teacher.revision).folder.path
    for folder in (*models, *bases):
        if faults := different_tokens(teacher, folder.path):
            raise ModelError(
                "\n  ".join([f"{where}: the tokens of {folder.path} differ from the teacher's:", *faults[:8]])
            )


def merge_step(
    recipe: Recipe, name: str, teacher: Step | Given, made: Mapping[str, Sequence[Step]], root: Path, hub: Hub
) -> Step:
    """The step that merges a student.

    Args:
        recipe: The recipe.
        name: The student.
        teacher: The final teacher.
        made: The steps of the students before it.
        root: The folder of the run.
        hub: Source of models that are no students.
    """
    config = _of(recipe, name)
    inputs: dict[str, Step | Given] = {}
    for number, (place, entry) in enumerate(_entries(config)):
        key = "base" if place == "base" else name_of(number)
        inputs[key] = _model(entry, f"students.{name}.merge.{place}", teacher, made, hub)
    return Step(name, "merge", config.options(), {**inputs, **given_fitness(config, hub)}, root)


def _of(recipe: Recipe, name: str) -> MergedConfig:
    config = recipe.students[name].merge
    assert config is not None  # callers pass merged students only
    return config


def _entries(config: MergedConfig) -> list[tuple[str, str]]:
    """(option, name) of every model in `merge`."""
    named = [(f"of.{number}", entry) for number, entry in enumerate(config.of)]
    return [*named, *([("base", config.base)] if config.base is not None else [])]


def _shape(entry: str, where: str, recipe: Recipe, name: str, shapes: Mapping[str, Shape], hub: Hub) -> Shape:
    student, _, stage = entry.partition(".")
    if student in recipe.students and student not in shapes:
        raise RecipeError(f"{where}: {student} is a merged student that comes after {name}; list it before {name}")
    if student not in shapes:
        _check_known(entry, where, [*recipe.students, "teacher"])
        return hub.model(entry, where).folder.shape
    if stage and (stage not in _STAGES or student == "teacher" or recipe.students[student].merge is not None):
        raise RecipeError(f"{where}: {entry!r}; allowed after the name of a student that is cut: {', '.join(_STAGES)}")
    if stage == "distilled" and not recipe.students[student].distill.tokens:
        raise RecipeError(f"{where}: {entry!r}: students.{student}.distill has no tokens")
    return shapes[student]


def _model(entry: str, where: str, teacher: Step | Given, made: Mapping[str, Sequence[Step]], hub: Hub) -> Step | Given:
    student, _, stage = entry.partition(".")
    if entry == "teacher":
        return teacher
    if student not in made:
        return hub.given_model(entry, where)
    plain = [step for step in made[student] if step.label != "qat"]
    models = [step for step in plain if step.kind in ("prune", "merge", "distill") or is_model(step)]
    return next(step for step in models if step.kind == _STAGES[stage]) if stage else models[-1]


def _check_known(entry: str, where: str, names: Sequence[str]) -> None:
    """Refuse an entry that looks like a student's name but is none."""
    elsewhere = "/" in entry or ":" in entry or entry.startswith((".", "~")) or entry.endswith(ENDING)
    if not elsewhere:
        raise RecipeError(f"{where}: {entry!r} is not a student{among(entry, names)}, or a folder")
