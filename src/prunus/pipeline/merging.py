"""Merged students as a plan sees them: what is merged, by which steps, and whether fitness is apart from evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prunus.errors import HubError, ModelError, RecipeError, ShapeError, nearest
from prunus.evaluate.config import EvaluateConfig
from prunus.evaluate.items import read_items
from prunus.graph.steps import Given, Step, given_model, given_sources
from prunus.merge.alike import check_alike, different_tokens
from prunus.merge.config import EvolveConfig, MergeConfig, MergedConfig, name_of
from prunus.merge.questions import asked, check_apart, read_tasks
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located
from prunus.models.shape import Shape
from prunus.pipeline.aligning import is_model
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.references import note
from prunus.pipeline.unpacking import ENDING, find_model
from prunus.verify.skills import SKILLS

_STAGES = {"pruned": "prune", "distilled": "distill"}
_SHARED = ("prune", "distill", "evaluate", "conversations")


def in_order(recipe: Recipe) -> list[str]:
    """The students, those that are merged after those that are not."""
    return sorted(recipe.students, key=lambda name: recipe.students[name].merge is not None)


def has_own_words(recipe: Recipe, name: str) -> bool:
    """Whether a student may not read the teacher's tokens: its vocabulary is cut, or it is merged from other models."""
    student = recipe.students[name]
    if student.merge is None:
        return student.prune.vocab_size is not None
    first = student.merge.of[0].partition(".")[0]
    return has_own_words(recipe, first) if first in recipe.students else first != "teacher"


def merged_of(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """The students that are merged from any of these, or from a student that is."""
    found = list(names)
    for name in in_order(recipe):
        merge = recipe.students[name].merge
        if merge is not None and any(entry.partition(".")[0] in found for _, entry in _entries(merge)):
            found.append(name)
    return found[len(names) :]


def merged_shape(
    recipe: Recipe, name: str, shapes: Mapping[str, Shape], has_template: bool, tentative: bool, unchecked: list[str]
) -> Shape:
    """The shape of a merged student; of an evolved path the deepest that it may be.

    Args:
        recipe: The whole.
        name: The student.
        shapes: Of the teacher, by `teacher`, and of the students that stand before it.
        has_template: Whether the teacher's tokenizer has a chat template.
        tentative: Whether what the hub does not give is left for later, in `unchecked`.
        unchecked: See `tentative`.

    Raises:
        RecipeError: Options do not fit, a name is unknown, or fitness is measured by what is reported.
        ShapeError: The models differ in shape; names the weights.
        ModelError: A model cannot be used.
        DataError: Conversations of fitness cannot be used.
    """
    config, where = _of(recipe, name), f"students.{name}.merge"
    has_template = has_template or recipe.data.template is not None
    found = {}
    for place, entry in _entries(config):
        option = f"{where}.{place}"
        try:
            found[f"{option}: {entry}"] = _shape(entry, option, recipe, name, shapes, tentative)
        except HubError as error:
            note(error, tentative, unchecked)
    first = _one_shape(found) if found else shapes["teacher"]
    if not tentative:
        _check_outside(recipe, config, where)
    config.check_fits(len(config.of), config.base is not None, first.num_hidden_layers, where)
    if config.evolve.trials:
        check_fitness(config.evolve, recipe.evaluate, has_template, where, unchecked if tentative else None)
    depth = len(config.flow.path()) or None
    if config.method == "flow" and config.evolve.trials:
        depth = config.evolve.max_layers
    return first.with_dimensions({"num_hidden_layers": depth})


def _one_shape(shapes: Mapping[str, Shape]) -> Shape:
    """The shape of models that all have the same, by what they are called."""
    (first_name, first), *others = shapes.items()
    for other_name, other in others:
        mine, theirs = dict(first.tensors()), dict(other.tensors())
        names = [weight for weight in {**mine, **theirs} if mine.get(weight) != theirs.get(weight)]
        if names:
            pairs = [f"{name}: {theirs.get(name, 'not there')} and {mine.get(name, 'not there')}" for name in names[:8]]
            more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
            raise ShapeError("\n  ".join([f"{other_name} and {first_name} have other shapes:", *pairs, *more]))
    return first


def _check_outside(recipe: Recipe, config: MergedConfig, where: str) -> None:
    """Hold models that are no students of the recipe against each other, and their tokens against the teacher's."""

    def outside(*entries: str | None) -> list[ModelFolder]:
        strange = [entry for entry in entries if entry and entry.partition(".")[0] not in (*recipe.students, "teacher")]
        return [find_model(entry, None, where).folder for entry in strange]

    models, bases = outside(*config.of), outside(config.base)
    if models:
        check_alike(models, next(iter(bases), None), where)
    if recipe.teacher.path is None or len(models) == len(config.of):
        return
    teacher = find_model(recipe.teacher.path, recipe.teacher.revision, "teacher.path").folder.path
    for folder in (*models, *bases):
        if faults := different_tokens(teacher, folder.path):
            raise ModelError("\n  ".join([f"{where}: {folder.path} and the teacher have other tokens:", *faults[:8]]))


def check_fitness(
    evolve: EvolveConfig, evaluate: EvaluateConfig, has_template: bool, where: str, unchecked: list[str] | None = None
) -> None:
    """Read the conversations of fitness, and refuse those that are reported.

    Args:
        evolve: The options.
        evaluate: What is reported.
        has_template: Whether the models have a chat template.
        where: The option's path, for messages.
        unchecked: Where to note what the hub does not give; None where that is an error.

    Raises:
        RecipeError: They are of a test set, or among what `evaluate` asks; or no model could read them.
        DataError: They cannot be used.
    """
    place = f"{where}.evolve"
    evolve.check_public(place)
    if not has_template:
        raise RecipeError(f"{place}.tasks: conversations, and the models' tokenizer has no chat template")
    try:
        tasks = read_tasks(evolve, place)
    except HubError as error:
        if unchecked is None:
            raise
        unchecked.append(str(error))
        return
    reported = {
        asked(item.messages)
        for name, task in evaluate.asked().items()
        if (task.kind or name) in SKILLS
        for item in read_items(task, task.kind or name, f"evaluate.tasks.{name}")
    }
    check_apart(tasks, reported, evolve, place)


def merge_step(
    recipe: Recipe, name: str, teacher: Step | Given, made: Mapping[str, Sequence[Step]], root: Path, tentative: bool
) -> Step:
    """The step that merges a student.

    Args:
        recipe: The whole.
        name: The student.
        teacher: The teacher as it is at last.
        made: The steps of the students before it.
        root: The run's folder.
        tentative: Whether what the hub does not give is passed over.
    """
    config = _of(recipe, name)
    inputs: dict[str, Step | Given] = {}
    for number, (place, entry) in enumerate(_entries(config)):
        key = "base" if place == "base" else name_of(number)
        inputs[key] = _model(entry, f"students.{name}.merge.{place}", teacher, made, tentative)
    return Step(name, "merge", config.options(), {**inputs, **given_fitness(config, tentative)}, root)


def given_fitness(config: MergeConfig, tentative: bool = False) -> dict[str, Step | Given]:
    """What the conversations of fitness hold, as an input, where evolution asks any."""
    if not config.evolve.trials:
        return {}
    return {"data": given_sources(tuple(config.evolve.tasks.values()), "merge.evolve.tasks", tentative)}


def shared(steps: Sequence[Step]) -> list[Step]:
    """The steps, with those that come to the same result in one place: done once, and found done after that.

    Two students that differ in their alignment alone are cut and distilled alike; all with the teacher's words read the
    same conversations.
    """
    places: dict[str, Path] = {}
    instead: dict[int, Step] = {}
    for step in steps:
        inputs = {
            name: instead.get(id(given), given) if isinstance(given, Step) else given
            for name, given in step.inputs.items()
        }
        place = places.get(step.fingerprint) if step.kind in _SHARED else None
        instead[id(step)] = replace(step, inputs=inputs, place=place)
        places.setdefault(step.fingerprint, step.artifact.path)
    return [instead[id(step)] for step in steps]


def _of(recipe: Recipe, name: str) -> MergedConfig:
    config = recipe.students[name].merge
    assert config is not None  # it is asked of merged students alone
    return config


def _entries(config: MergedConfig) -> list[tuple[str, str]]:
    """Every model that is named, by its option."""
    named = [(f"of.{number}", entry) for number, entry in enumerate(config.of)]
    return [*named, *([("base", config.base)] if config.base is not None else [])]


def _shape(entry: str, where: str, recipe: Recipe, name: str, shapes: Mapping[str, Shape], tentative: bool) -> Shape:
    student, _, stage = entry.partition(".")
    if student in recipe.students and student not in shapes:
        raise RecipeError(f"{where}: {student} is merged itself, and not before {name}; let it stand before")
    if student not in shapes:
        return _outside(entry, where, [*recipe.students, "teacher"], not tentative).folder.shape
    if stage and (stage not in _STAGES or student == "teacher" or recipe.students[student].merge is not None):
        raise RecipeError(f"{where}: {entry!r}; allowed behind a student that is cut: {', '.join(_STAGES)}")
    if stage == "distilled" and not recipe.students[student].distill.tokens:
        raise RecipeError(f"{where}: {entry!r}: students.{student}.distill has no tokens")
    return shapes[student]


def _model(
    entry: str, where: str, teacher: Step | Given, made: Mapping[str, Sequence[Step]], tentative: bool
) -> Step | Given:
    student, _, stage = entry.partition(".")
    if entry == "teacher":
        return teacher
    if student not in made:
        try:
            return given_model(_outside(entry, where, (), not tentative))
        except HubError:
            if not tentative:
                raise
            return Given(entry, entry)
    models = [step for step in made[student] if step.kind in ("prune", "merge", "distill") or is_model(step)]
    return next(step for step in models if step.kind == _STAGES[stage]) if stage else models[-1]


def _outside(entry: str, where: str, names: Sequence[str], weights: bool) -> Located:
    """A model that no student of the recipe is."""
    elsewhere = "/" in entry or ":" in entry or entry.startswith((".", "~")) or entry.endswith(ENDING)
    if names and not elsewhere:
        known = ", ".join(names)
        raise RecipeError(
            f"{where}: {entry!r} is no student{nearest(entry, names)}; there are {known}, or give a folder"
        )
    return find_model(entry, None, where, weights=weights)
