"""Checks of a whole recipe before any work, in addition to the checks of each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from prunus.config import StepConfig, check_length
from prunus.data.config import Source, TokensConfig
from prunus.data.documents import check_source
from prunus.data.mixture import check_not_empty
from prunus.data.preview import Preview, Reader, preview
from prunus.data.template import read_template
from prunus.errors import HubError, Mistakes, ModelError, RecipeError
from prunus.files import read_object
from prunus.gguf.mixtures import IGNORE_MATRIX
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.students import Student
from prunus.pipeline.teacher import Teacher
from prunus.steps.align.plan import Alignment
from prunus.steps.distill.plan import check_quantise, check_validation
from prunus.steps.evaluate.check import check_chat, check_tasks
from prunus.steps.export.plan import check_export
from prunus.steps.generate.prompts import check_prompts
from prunus.training.plan import check_rank


def check_lengths(recipe: Recipe, context: int, mistakes: Mistakes) -> None:
    """Note sequence lengths beyond the teacher's context."""
    lengths = {
        "correct": recipe.correct.sequence_length if recipe.correct.tokens else 0,
        "score": recipe.score.sequence_length,
        "evaluate": recipe.evaluate.sequence_length,
    }
    for name, student in recipe.students.items():
        for step in ("distill", "qat"):
            options = getattr(student, step)
            lengths[f"students.{name}.{step}"] = options.sequence_length if options.tokens else 0
    for name, length in lengths.items():
        with mistakes.collect():
            check_length(name, length, context)


def check_targets(recipe: Recipe, mistakes: Mistakes) -> None:
    """Note a server of targets that no student reads."""
    cached = (one.distill.tokens and one.distill.targets == "cached" for one in recipe.students.values())
    if recipe.targets.server.url and not any(cached):
        with mistakes.collect():
            raise RecipeError(
                "targets.server: no student trains on stored targets, so the server would not be asked; allowed: with "
                "distill.targets: cached"
            )


def check_ranks(recipe: Recipe, teacher: Teacher, students: Mapping[str, Student], mistakes: Mistakes) -> None:
    """Note training by LoRA that a model's sizes do not allow."""
    trained: list[tuple[str, StepConfig, Shape]] = [("correct", recipe.correct, teacher.shape)]
    trained += [(f"teacher.align.{i}", stage, teacher.shape) for i, stage in enumerate(recipe.teacher.align)]
    for name, student in students.items():
        own = recipe.students[name]
        trained.append((f"students.{name}.distill", own.distill, student.shape))
        trained += [
            (f"students.{name}.align.{i}", stage, shape)
            for i, stage in enumerate(own.align)
            for shape in student.finished.values()
        ]
    for where, config, shape in trained:
        with mistakes.collect():
            check_rank(config, shape, where)


def check_validations(recipe: Recipe, teacher: Teacher, hub: Hub, mistakes: Mistakes) -> None:
    """Note measurements during training that cannot work."""
    for name, student in recipe.students.items():
        for step in ("distill", "qat"):
            own, common = getattr(student, step), getattr(recipe, step)
            where = step if own.validation == common.validation else f"students.{name}.{step}"
            with mistakes.collect():
                check_validation(own, recipe.runtime, teacher.may_chat, where, hub)


def check_files(recipe: Recipe, teacher: Teacher, students: Mapping[str, Student], mistakes: Mistakes) -> None:
    """Note students that cannot be exported in the requested formats."""
    if recipe.export.formats and students:
        shapes = {
            f"export.formats: students.{name}": shape
            for student in students.values()
            for name, shape in student.finished.items()
        }
        with mistakes.collect():
            check_export(recipe.export, _inherited(recipe, teacher), teacher.folder, shapes)


def _inherited(recipe: Recipe, teacher: Teacher) -> Mapping[str, Any] | None:
    """The config.json that students inherit; None if the hub cannot be reached."""
    if teacher.folder is not None:
        return read_object(teacher.folder / "config.json", ModelError)
    return None if recipe.teacher.create is None else recipe.teacher.create.model_config_json()


def check_quantised(recipe: Recipe, teacher: Teacher, students: Mapping[str, Student], mistakes: Mistakes) -> None:
    """Note students that cannot be trained for the quantised file that they are meant for."""
    formats = recipe.export.formats
    for name, student in students.items():
        with mistakes.collect():
            inherited = _inherited(recipe, teacher)
            check_quantise(student.distill, inherited, student.shape, f"students.{name}.distill.quantise")
            for finished, shape in student.finished.items():
                check_quantise(student.qat, inherited, shape, f"students.{finished}.qat.quantise")
        qat = student.qat
        with mistakes.collect():
            if qat.tokens and formats and qat.quantise not in formats:
                raise RecipeError(
                    f"students.{name}.qat.quantise: {qat.quantise} is not among export.formats, {', '.join(formats)}; "
                    "allowed: one of the quantised formats that are written"
                )
        for step, config in (("distill", student.distill), ("qat", qat)):
            quantise = config.quantise if config.tokens and formats else None
            with mistakes.collect():
                if recipe.export.weighted and quantise is not None and quantise not in IGNORE_MATRIX:
                    raise RecipeError(
                        f"students.{name}.{step}.quantise: {quantise}; not with an importance matrix (export.imatrix, "
                        "export.imatrix_file), which training does not have: the file's numbers would be others. "
                        "Allowed: either, or gguf-q8_0"
                    )


def check_sources(recipe: Recipe, teacher: Teacher, hub: Hub, mistakes: Mistakes) -> list[Preview]:
    """Read the first document of every text source and the first prompt; note those that cannot be used.

    Returns:
        Previews of the sources of conversations.
    """
    previews: list[Preview] = []
    for part in ("corpus", "held_out"):
        for i, source in enumerate(getattr(recipe.data, part)):
            with mistakes.collect(), hub.tolerate_missing():
                check_source(source, f"data.{part}.{i}")
                if source.rows == "chat":
                    previews += _previewed(source, f"data.{part}.{i}", recipe, teacher)
    check_generation(recipe, teacher, hub, mistakes)
    return previews


def _previewed(source: Source, where: str, recipe: Recipe, teacher: Teacher) -> list[Preview]:
    """The preview of a source of conversations; none of a source on the hub.

    Raises:
        RecipeError: There is no chat template, or the teacher is new and has no tokenizer to render with.
        DataError: The chat template does not render the first row.
    """
    template = read_template(recipe.data.template)
    if recipe.teacher.create is not None:
        raise RecipeError(f"{where}.rows: chat: not with teacher.create, whose tokenizer is trained on text; allowed: "
                          "rows: text, or conversations in data.chat")  # fmt: skip
    if template is None and not teacher.may_chat:
        raise RecipeError(f"{where}.rows: chat: the model's tokenizer has no chat template; set data.template: a file, "
                          "or `builtin:plain`")  # fmt: skip
    reader = Reader.of(teacher.folder, template) if teacher.folder is not None else None
    seen = preview(source.as_chat(), where, reader, "answers", judged=False)
    return [seen] if seen else []


def check_generation(recipe: Recipe, teacher: Teacher, hub: Hub, mistakes: Mistakes) -> None:
    """Note lengths and prompts with which the teacher cannot generate text, if a student trains on such text."""
    if not any(student.distill.reads_teacher for student in recipe.students.values()):
        return
    with mistakes.collect():
        recipe.generate.check_context(teacher.context, "generate")
    for i, source in enumerate(recipe.generate.prompts):
        with mistakes.collect(), hub.tolerate_missing():
            check_prompts(source, f"generate.prompts.{i}", teacher.may_chat)


def check_alignments(alignments: Iterable[Alignment], teacher: Teacher, mistakes: Mistakes) -> list[Preview]:
    """Check the stages and the first rows of their data. Returns the previews, equal ones once."""
    previews: dict[Preview, None] = {}
    for alignment in alignments:
        if alignment.stages:
            with mistakes.collect():
                previews |= dict.fromkeys(alignment.check(teacher.context, teacher.tokenizer))
    return list(previews)


def check_evaluation(recipe: Recipe, teacher: Teacher, mistakes: Mistakes) -> None:
    """Note tasks that cannot be measured at all, or not with this teacher."""
    with mistakes.collect():
        check_tasks(recipe.evaluate)
    with mistakes.collect():
        check_chat(recipe.evaluate, teacher.may_chat, "the teacher")


def check_texts(steps: Iterable[Step]) -> None:
    """Refuse text of which a `data` step would keep no document. Errors of the hub were noted earlier.

    Raises:
        DataError: Names the step, its sources and the part that is empty.
    """
    seen: set[tuple[str, str]] = set()
    for step in steps:
        sources = step.inputs.get("sources")
        if isinstance(step.config, TokensConfig) and isinstance(sources, Given):
            if (sources.fingerprint, step.config.part) not in seen:
                with suppress(HubError):
                    check_not_empty(sources.value, step.config, step.name)
            seen.add((sources.fingerprint, step.config.part))
