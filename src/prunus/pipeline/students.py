"""The students of a recipe: their options, shapes and stages, resolved once and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunus.errors import Mistakes, RecipeError
from prunus.graph.hub import Hub
from prunus.models.bits import check_bits
from prunus.models.shape import PRUNABLE, Shape
from prunus.pipeline.cutting import check_via
from prunus.pipeline.merging import in_order, merged_shape
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.teacher import Teacher
from prunus.steps.align.plan import Alignment
from prunus.steps.distill.config import DistillConfig, QatConfig, StatesConfig
from prunus.steps.distill.nest_plan import check_nest
from prunus.steps.distill.plan import check_cached
from prunus.steps.merge.config import MergedConfig
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.plan import check_cut


@dataclass(frozen=True)
class Student:
    """A student whose shape is known.

    Attributes:
        name: Its name in the recipe.
        shape: Its final dimensions; with an evolved layer path, at its maximum depth.
        prune: How it is cut, with `like` replaced by the other student's sizes.
        distill: How it is distilled; without a loss on states if its weights are random.
        alignment: Its stages.
        qat: How it is trained for a quantised file.
        merge: How it is merged; None if it is cut.
        sizes: Of a nest, the shapes of its sizes by name, the largest first, which is also `shape`; otherwise empty.
        own_tokens: Whether its tokens differ from the teacher's: its vocabulary is cut, or it is merged from models
            with another tokenizer.
    """

    name: str
    shape: Shape
    prune: PruneConfig
    distill: DistillConfig
    alignment: Alignment
    qat: QatConfig
    merge: MergedConfig | None
    sizes: Mapping[str, Shape]
    own_tokens: bool

    @property
    def finished(self) -> dict[str, Shape]:
        """The shapes of the models that result, by name: the student, or the sizes of a nest."""
        return {f"{self.name}-{size}": shape for size, shape in self.sizes.items()} or {self.name: self.shape}


def prune_config(recipe: Recipe, name: str) -> PruneConfig:
    """The student's `prune` options, with `like` replaced by the other student's sizes."""
    own = recipe.students[name].prune
    if own.like is None:
        return own
    shape = {key: getattr(recipe.students[own.like].prune, key) for key in (*PRUNABLE, "drop_layers")}
    return own.model_copy(update={**shape, "like": None})


def alignment_of(recipe: Recipe, name: str, hub: Hub) -> Alignment:
    """A student's stages. Those inherited from the recipe are named `align`, so that mistakes are reported once."""
    stages = recipe.students[name].align
    where = "align" if stages == recipe.align else f"students.{name}.align"
    return Alignment(stages, recipe.data.chat, recipe.data.template, hub, where)


def find_students(
    recipe: Recipe, teacher: Teacher, hub: Hub, waiting: Sequence[str], mistakes: Mistakes
) -> dict[str, Student]:
    """The students that wait for no search, merged ones last. Mistakes are noted."""
    found: dict[str, Student] = {}
    for name in in_order(recipe):
        merge = recipe.students[name].merge
        if name in waiting or (merge is not None and mistakes.errors):  # after a mistake, its models may have no shape
            continue
        with mistakes.collect():
            found[name] = _student(recipe, name, teacher, found, hub)
    return found


def _student(recipe: Recipe, name: str, teacher: Teacher, others: Mapping[str, Student], hub: Hub) -> Student:
    prune, merge = prune_config(recipe, name), recipe.students[name].merge
    distill = recipe.students[name].distill
    if prune.init == "random":
        distill = distill.model_copy(update={"states": StatesConfig(weight=0)})
    if merge is None:
        shape = prune.target(teacher.shape, f"students.{name}.prune")
        own_tokens = prune.vocab_size is not None
        _check(recipe, name, prune, distill, teacher.shape, shape)
    else:
        shapes = {"teacher": teacher.shape, **{other: student.shape for other, student in others.items()}}
        shape = merged_shape(recipe, name, shapes, teacher.may_chat, hub)
        first = merge.of[0].partition(".")[0]
        own_tokens = others[first].own_tokens if first in others else first != "teacher"
    sizes = prune.nested(teacher.shape, f"students.{name}.prune") if prune.nest else {}
    check_nest(recipe.students[name].distill, sizes, recipe.runtime, f"students.{name}.distill")
    alignment, qat = alignment_of(recipe, name, hub), recipe.students[name].qat
    return Student(name, shape, prune, distill, alignment, qat, merge, sizes, own_tokens)


def _check(recipe: Recipe, name: str, prune: PruneConfig, distill: DistillConfig, teacher: Shape, shape: Shape) -> None:
    """Refuse options by which a student cannot be cut or distilled."""
    where, given = f"students.{name}", recipe.students[name].distill
    check_cut(prune, teacher, shape, f"{where}.prune")
    check_via(prune, teacher, given, f"{where}.prune")
    if prune.vocab_size is not None and distill.reads_teacher:
        raise RecipeError(
            f"{where}.distill.data: the teacher writes with its full vocabulary, but this student's is cut; "
            "allowed: corpus"
        )
    if distill.tokens:
        check_bits(distill.teacher_bits, teacher, f"{where}.distill.teacher_bits")
    given.states.pairs(teacher.num_hidden_layers, shape.num_hidden_layers, ())  # refuses layers that do not exist
    if distill.tokens and distill.targets == "cached":
        check_cached(distill, prune.vocab_size is None, recipe.targets.server.url is not None, f"{where}.distill")
