"""The plan: from a recipe to steps in order, each with its inputs, its name and its cost; mistakes end here.

Nothing here reads a weight or imports torch: shapes come from config.json and headers, text from its first document.
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
    check_sources,
    check_texts,
)
from prunus.pipeline.layout import Layout
from prunus.pipeline.merging import merged_of
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.references import find_references
from prunus.pipeline.search.plan import found_options, lookup, waiting_of
from prunus.pipeline.students import alignment_of, find_students
from prunus.pipeline.suiting import suited
from prunus.pipeline.teacher import find_teacher
from prunus.pipeline.unpacking import find_model, origin_in
from prunus.steps.align.plan import Alignment
from prunus.training.plan import check_runtime


def make_plan(recipe: Recipe, root: Path, preview: bool = False) -> Plan:
    """Check all of a recipe and lay out its steps.

    Args:
        recipe: What to do.
        root: The folder of the run.
        preview: Plan only: fetch no weights, and go on without what the hub does not give.

    Raises:
        RecipeError: An option asks for what cannot be had.
        ModelError: The teacher cannot be used, or a student's shape not be cut from it (`ShapeError`).
        DataError: Text is missing, or not as described.
        HubError: Something is neither here nor to be had from the hub.
    """
    waiting = waiting_of({name: student.prune for name, student in recipe.students.items()})
    waiting += merged_of(recipe, waiting)
    plan = _plan(recipe, root, Hub(find_model, preview), waiting)
    if not waiting:
        return plan
    search = lookup(plan.steps)
    if search is None or recipe.search is None or not search.artifact.is_done():
        return replace(plan, waiting=tuple(waiting), rest=partial(make_plan, recipe, root, preview))
    students = dict(recipe.students)
    for name in waiting:
        own = students[name].prune
        if own.shape is not None:
            found = found_options(recipe.search, own, search.artifact.path)
            students[name] = students[name].model_copy(update={"prune": found})
    return _plan(recipe.model_copy(update={"students": students}), root, Hub(find_model, preview))


def _plan(recipe: Recipe, root: Path, hub: Hub, waiting: Sequence[str] = ()) -> Plan:
    """The plan of a recipe, but for the steps of students whose shape is not known yet."""
    mistakes = Mistakes()
    with mistakes.collect():
        check_runtime(recipe.runtime, [recipe.correct, *(student.distill for student in recipe.students.values())])
    if not hub.preview:  # before a teacher is fetched or unpacked
        mistakes.check(recipe.name)
    teacher = find_teacher(recipe, root, hub)
    recipe = suited(recipe, teacher.shape)
    check_lengths(recipe, teacher.context, mistakes)
    students = find_students(recipe, teacher, hub, waiting, mistakes)
    check_files(recipe, teacher, students, mistakes)
    check_sources(recipe, teacher, hub, mistakes)
    own = Alignment(recipe.teacher.align, recipe.data.chat, recipe.data.template, hub, "teacher.align")
    alignments = [own, *(alignment_of(recipe, name, hub) for name in recipe.students)]
    previews = check_alignments(alignments, teacher, mistakes)
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
        {name: student.shape for name, student in students.items()},
        {name: model.folder.shape for name, model in references.items()},
        tuple(hub.missing),
        previews=tuple(previews),
        origin=origin_in(recipe.teacher.path),
    )
