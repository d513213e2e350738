"""From a recipe to a plan: steps in order, each with its inputs. All mistakes in the recipe are reported here.

Planning reads no weights and imports no torch: shapes come from config.json and headers, text from its first document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prunus.errors import Mistakes
from prunus.graph.hub import Hub
from prunus.models.locate import Located
from prunus.pipeline.checks import (
    check_alignments,
    check_evaluation,
    check_files,
    check_lengths,
    check_quantised,
    check_ranks,
    check_sources,
    check_targets,
    check_texts,
    check_validations,
)
from prunus.pipeline.defaults import with_defaults
from prunus.pipeline.layout import Layout
from prunus.pipeline.merging import merged_of
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.references import find_references
from prunus.pipeline.search.plan import best_options, search_step, waiting_students
from prunus.pipeline.students import alignment_of, find_students
from prunus.pipeline.teacher import find_teacher
from prunus.pipeline.unpacking import find_model, origin_in
from prunus.steps.align.plan import Alignment
from prunus.training.plan import check_runtime


def make_plan(recipe: Recipe, root: Path, preview: bool = False) -> Plan:
    """Check a whole recipe and build its steps.

    Args:
        recipe: The recipe.
        root: The folder of the run.
        preview: Fetch no weights, and skip what the hub does not provide.

    Raises:
        RecipeError: An option cannot be satisfied.
        ModelError: The teacher cannot be used, or a student's shape cannot be cut from it (`ShapeError`).
        DataError: Text is missing or not as described.
        HubError: A model or text is neither local nor available from the hub.
    """
    waiting = waiting_students({name: student.prune for name, student in recipe.students.items()})
    waiting += merged_of(recipe, waiting)
    plan = _plan(recipe, root, Hub(find_model, preview), waiting)
    if not waiting:
        return plan
    search = search_step(plan.steps)
    if search is None or recipe.search is None or not search.artifact.is_done():
        return replace(plan, waiting=tuple(waiting), rest=partial(make_plan, recipe, root, preview))
    students = dict(recipe.students)
    for name in waiting:
        prune = students[name].prune
        if prune.shape is not None:
            prune = best_options(recipe.search, prune, search.artifact.path)
            students[name] = students[name].model_copy(update={"prune": prune})
    return _plan(recipe.model_copy(update={"students": students}), root, Hub(find_model, preview))


def _plan(recipe: Recipe, root: Path, hub: Hub, waiting: Sequence[str] = ()) -> Plan:
    """The plan of a recipe, without the steps of `waiting` students, whose shape is not known yet."""
    mistakes = Mistakes()
    with mistakes.collect():
        trained = recipe.students.values()
        stages = [*recipe.teacher.align, *(stage for student in trained for stage in student.align)]
        distilled = [config for student in trained for config in (student.distill, student.qat)]
        check_runtime(recipe.runtime, [recipe.correct, *distilled, *stages])
    if not hub.preview:  # before a teacher is fetched or unpacked
        mistakes.check(recipe.name)
    teacher = find_teacher(recipe, root, hub)
    recipe = with_defaults(recipe, teacher.shape)
    check_lengths(recipe, teacher.context, mistakes)
    check_targets(recipe, mistakes)
    students = find_students(recipe, teacher, hub, waiting, mistakes)
    check_ranks(recipe, teacher, students, mistakes)
    check_validations(recipe, teacher, hub, mistakes)
    check_files(recipe, teacher, students, mistakes)
    check_quantised(recipe, teacher, students, mistakes)
    previews = check_sources(recipe, teacher, hub, mistakes)
    own = Alignment(recipe.teacher.align, recipe.data.chat, recipe.data.template, hub, "teacher.align")
    alignments = [own, *(alignment_of(recipe, name, hub) for name in recipe.students)]
    previews += check_alignments(alignments, teacher, mistakes)
    check_evaluation(recipe, teacher, mistakes)
    references: dict[str, Located] = {}
    with mistakes.collect():
        references = find_references(recipe, hub)
    mistakes.check(recipe.name)
    steps = Layout(recipe, root, hub, teacher, own, students, references).all()
    check_texts(steps)
    return Plan(
        recipe,
        root,
        tuple(steps),
        teacher.shape,
        {name: shape for one in students.values() for name, shape in ({one.name: one.shape} | one.finished).items()},
        {name: model.folder.shape for name, model in references.items()},
        tuple(hub.missing),
        previews=tuple(previews),
        origin=origin_in(recipe.teacher.path),
        nests={name: tuple(student.sizes.values())[1:] for name, student in students.items() if student.sizes},
    )
