"""The plan: from a recipe to steps in order, each with its inputs, its name and its cost; mistakes end here.

Nothing here reads a weight or imports torch: shapes come from config.json and headers, text from its first document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prunus.create.config import CreateConfig
from prunus.data.preview import Preview
from prunus.data.sources import check_source
from prunus.errors import HubError, Mistakes, RecipeError
from prunus.evaluate.check import check_chat, check_tasks, tasks_fingerprint
from prunus.evaluate.config import EvaluateConfig
from prunus.export.plan import check_export
from prunus.fingerprint import digest
from prunus.generate.config import GenerateConfig
from prunus.generate.prompts import check_prompts
from prunus.graph.steps import Given, Step, given_model, given_sources, given_tokenizer
from prunus.models.families.table import family_of
from prunus.models.folder import has_chat_template, shape_of_file
from prunus.models.locate import Located
from prunus.models.shape import Shape
from prunus.pipeline.aligning import is_model, of_student, of_teacher
from prunus.pipeline.checks import check_cached, check_cut, check_length, check_runtime, check_texts
from prunus.pipeline.cutting import check_via, cuts_of, given_task, scored
from prunus.pipeline.merging import in_order, merge_step, merged_of, merged_shape, shared
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe, TeacherConfig
from prunus.pipeline.references import find_references, note
from prunus.pipeline.searching import found_options, lookup, plan_search, waiting_of
from prunus.pipeline.students import cut_from, distill_config, prune_config, streams_of, student_steps
from prunus.pipeline.suiting import suited
from prunus.pipeline.unpacking import find_model, origin_in
from prunus.targets.config import TargetsConfig


def make_plan(recipe: Recipe, root: Path, tentative: bool = False) -> Plan:
    """Check all of a recipe and lay out its steps.

    Args:
        recipe: What to do.
        root: The folder of the run.
        tentative: Plan only: fetch no weights, and go on without what the hub does not give.

    Raises:
        RecipeError: An option asks for what cannot be had.
        ModelError: The teacher cannot be used, or a student's shape not be cut from it (`ShapeError`).
        DataError: Text is missing, or not as described.
        HubError: Something is neither here nor to be had from the hub.
    """
    waiting = waiting_of({name: student.prune for name, student in recipe.students.items()})
    waiting += merged_of(recipe, waiting)
    if not waiting:
        return _plan(recipe, root, tentative)
    plan = _plan(recipe, root, tentative, waiting)
    search = lookup(plan.steps)
    if search is None or recipe.search is None or not search.artifact.is_done():
        return replace(plan, waiting=tuple(waiting), rest=partial(make_plan, recipe, root, tentative))
    students = dict(recipe.students)
    for name in waiting:
        own = students[name].prune
        if own.shape is not None:
            found = found_options(recipe.search, own, search.artifact.path)
            students[name] = students[name].model_copy(update={"prune": found})
    return _plan(recipe.model_copy(update={"students": students}), root, tentative)


def _plan(recipe: Recipe, root: Path, tentative: bool, waiting: Sequence[str] = ()) -> Plan:
    """The plan of a recipe, but for the steps of students whose shape is not known yet."""
    unchecked: list[str] = []
    mistakes = Mistakes()
    with mistakes.noted():
        check_runtime(recipe.runtime, [recipe.correct, *(student.distill for student in recipe.students.values())])
    if not tentative:  # before a teacher is fetched or unpacked
        mistakes.check(recipe.name)
    shape, base, tokenizer = _teacher(recipe, root, tentative, unchecked)
    recipe = suited(recipe, shape)
    _check_lengths(recipe, shape.max_position_embeddings, mistakes)
    students = _shapes(recipe, shape, _may_chat(tokenizer), tentative, unchecked, waiting, mistakes)
    _check_files(recipe, tokenizer, students, mistakes)
    _check_sources(recipe, shape.max_position_embeddings, _may_chat(tokenizer), tentative, unchecked, mistakes)
    previews: dict[Preview, None] = {}
    for alignment in (of_teacher(recipe, tentative), *(of_student(recipe, one, tentative) for one in recipe.students)):
        if alignment.stages:
            with mistakes.noted():
                looked = alignment.check(shape.max_position_embeddings, tokenizer)
                unchecked += looked.unseen
                previews |= dict.fromkeys(looked.previews)
    with mistakes.noted():
        check_tasks(recipe.evaluate)
    with mistakes.noted():
        check_chat(recipe.evaluate, _may_chat(tokenizer), "the teacher")
    references: dict[str, Located] = {}
    with mistakes.noted():
        references = find_references(recipe, tentative, unchecked)
    mistakes.check(recipe.name)
    steps = tuple(shared(list(_steps(recipe, root, base, tokenizer, shape, students, references, tentative))))
    check_texts(steps)
    shapes = {name: model.folder.shape for name, model in references.items()}
    return Plan(
        recipe, root, steps, shape, students, shapes, tuple(unchecked), previews=tuple(previews),
        origin=origin_in(recipe.teacher.path),
    )  # fmt: skip


def _check_files(recipe: Recipe, tokenizer: Step | Given, students: Mapping[str, Shape], mistakes: Mistakes) -> None:
    """Look whether the students can be written as the files that are asked for."""
    if recipe.export.formats and students:
        kept = recipe.teacher.create or (tokenizer.value if isinstance(tokenizer, Given) else None)
        with mistakes.noted():
            check_export(
                recipe.export,
                kept if isinstance(kept, (Path, CreateConfig)) else None,
                {f"export.formats: students.{name}": target for name, target in students.items()},
            )


def _check_sources(
    recipe: Recipe, context: int, chats: bool, tentative: bool, unchecked: list[str], mistakes: Mistakes
) -> None:
    """Look at the first document of every source of text, and at the first prompt."""
    for part in ("corpus", "held_out"):
        for i, source in enumerate(getattr(recipe.data, part)):
            with mistakes.noted():
                try:
                    check_source(source, f"data.{part}.{i}")
                except HubError as error:
                    note(error, tentative, unchecked)
    if not _written(recipe):
        return
    with mistakes.noted():
        recipe.generate.check_context(context, "generate")
    for i, source in enumerate(recipe.generate.prompts):
        with mistakes.noted():
            try:
                check_prompts(source, f"generate.prompts.{i}", chats)
            except HubError as error:
                note(error, tentative, unchecked)


def _shapes(
    recipe: Recipe,
    teacher: Shape,
    chats: bool,
    tentative: bool,
    unchecked: list[str],
    waiting: Sequence[str],
    mistakes: Mistakes,
) -> dict[str, Shape]:
    """The shapes of the students that wait for nothing, checked, in the order in which they can be made."""
    found: dict[str, Shape] = {}
    for name in in_order(recipe):
        if name in waiting:
            continue
        merged = recipe.students[name].merge is not None
        if merged and mistakes.found:  # what it is merged from may have no shape
            continue
        with mistakes.noted():
            if merged:
                shapes = {"teacher": teacher, **found}
                found[name] = merged_shape(recipe, name, shapes, chats, tentative, unchecked)
            else:
                found[name] = _target(recipe, name, teacher)
    return found


def _target(recipe: Recipe, name: str, teacher: Shape) -> Shape:
    """The shape of a student, checked."""
    target = prune_config(recipe, name).target(teacher, f"students.{name}.prune")
    check_cut(prune_config(recipe, name), teacher, target, f"students.{name}.prune")
    distill = recipe.students[name].distill
    check_via(prune_config(recipe, name), teacher, distill, f"students.{name}.prune")
    if prune_config(recipe, name).vocab_size is not None and name in _written(recipe):
        raise RecipeError(
            f"students.{name}.distill.data: the teacher writes in its own vocabulary, and this student's is cut; "
            "allowed: corpus"
        )
    distill.states.pairs(teacher.num_hidden_layers, target.num_hidden_layers, ())  # refuses layers that are not there
    if distill.tokens and distill.targets == "cached":
        shares_vocabulary = prune_config(recipe, name).vocab_size is None
        check_cached(distill_config(recipe, name), shares_vocabulary, f"students.{name}.distill")
    return target


def _written(recipe: Recipe) -> list[str]:
    """The students that train on what the teacher writes."""
    distill = {name: student.distill for name, student in recipe.students.items()}
    return [name for name, config in distill.items() if config.tokens and config.data == "teacher"]


def _may_chat(tokenizer: Step | Given) -> bool:
    """Whether a teacher's tokenizer has a chat template, or cannot be looked at; one made here may be given one."""
    if isinstance(tokenizer, Step):
        return isinstance(tokenizer.config, CreateConfig) and tokenizer.config.chat
    return not isinstance(tokenizer.value, Path) or has_chat_template(tokenizer.value)


def given_data(config: EvaluateConfig) -> dict[str, Step | Given]:
    """What the tasks' local data hold, as an input, where there are any."""
    found = tasks_fingerprint(config)
    return {} if found is None else {"data": Given(None, found)}


def given_prompts(config: GenerateConfig, tentative: bool = False) -> dict[str, Step | Given]:
    """The prompts that the teacher answers, as an input, where they are not the corpus's openings."""
    if not config.prompts:
        return {}
    return {"prompts": given_sources(config.prompts, "generate.prompts", tentative)}


def _teacher(
    recipe: Recipe, root: Path, tentative: bool, unchecked: list[str]
) -> tuple[Shape, Step | Given, Step | Given]:
    """The teacher's shape, itself as an input, and its tokenizer as one."""
    config = recipe.teacher
    if config.create is not None:
        raw = config.create.model_config_json()
        shape = Shape.from_config(raw, family_of(raw, "teacher.create"), "teacher.create")
        shape.check_loadable("teacher.create")
        if not recipe.correct.tokens:
            raise RecipeError("correct.tokens: 0, but teacher.create makes random weights; they need training")
        sources = given_sources(recipe.data.corpus, "data.corpus", tentative)
        step = Step("teacher", "create", config.create, {"sources": sources}, root)
        return shape, step, step
    shape, model, tokenizer = _located(config, tentative, unchecked)
    if config.expand is None:
        return shape, model, tokenizer
    if not recipe.correct.tokens and not config.align:
        raise RecipeError("correct.tokens: 0, but what teacher.expand adds does nothing until it is trained")
    step = Step("teacher", "expand", config.expand, {"model": model}, root)
    return config.expand.target(shape, "teacher.expand"), step, tokenizer


def _located(config: TeacherConfig, tentative: bool, unchecked: list[str]) -> tuple[Shape, Given, Given]:
    """The same of a teacher that is somewhere already."""
    assert config.path is not None  # TeacherConfig takes one of the two
    try:
        model = find_model(config.path, config.revision, "teacher.path", weights=not tentative)
    except HubError as error:
        if config.config is None:
            raise
        note(error, tentative, unchecked)
        stand_in = Given(config.path, digest([config.path, config.revision]))
        return shape_of_file(Path(config.config)), stand_in, stand_in
    if not (tentative and model.source):
        model.folder.check()
    return model.folder.shape, given_model(model), given_tokenizer(model)


def _check_lengths(recipe: Recipe, context: int, mistakes: Mistakes) -> None:
    lengths = {
        "correct": recipe.correct.sequence_length if recipe.correct.tokens else 0,
        "score": recipe.score.sequence_length,
        "evaluate": recipe.evaluate.sequence_length,
    }
    for name, student in recipe.students.items():
        lengths[f"students.{name}.distill"] = student.distill.sequence_length if student.distill.tokens else 0
    for name, length in lengths.items():
        with mistakes.noted():
            check_length(name, length, context)


def _steps(
    recipe: Recipe,
    root: Path,
    base: Step | Given,
    tokenizer: Step | Given,
    teacher_shape: Shape,
    students: Mapping[str, Shape],
    references: Mapping[str, Located],
    tentative: bool,
) -> Iterator[Step]:
    """All steps, each after those that it needs."""
    data = given_data(recipe.evaluate)
    corpus, held_out = streams_of(recipe, root, tokenizer, "", tentative)
    if isinstance(base, Step):
        yield base
    yield corpus
    yield held_out
    teacher = base
    if recipe.correct.tokens:
        teacher = Step("teacher", "correct", recipe.correct, {"model": base, "tokens": corpus}, root)
        if recipe.teacher.create is None:
            inputs = {"model": base, "tokens": held_out, **data}
            yield Step("teacher", "evaluate-original", recipe.evaluate, inputs, root)
        yield teacher
    for step in of_teacher(recipe, tentative).steps("teacher", teacher, None, root, tokenizer):
        yield step
        teacher = step if is_model(step) else teacher
    measured = Step("teacher", "evaluate", recipe.evaluate, {"model": teacher, "tokens": held_out, **data}, root)
    yield measured
    if recipe.evaluate.tasks:
        data["beside"] = measured
    for name, model in references.items():
        stream = streams_of(recipe, root, given_tokenizer(model), f"-{name}", tentative)[1]
        yield stream
        inputs = {"model": given_model(model), "tokens": stream, **data}
        yield Step(name, "evaluate", recipe.evaluate, inputs, root)
    by_cut = [name for name in students if recipe.students[name].merge is None]
    cuts = [cut for name in by_cut for cut in cuts_of(prune_config(recipe, name), teacher_shape, name)]
    search = plan_search(recipe, base, tokenizer, teacher_shape, corpus, tentative)
    cuts += search.cuts if search else []
    config = scored(recipe.score, teacher_shape, cuts)
    score = Step("teacher", "score", config, {"model": teacher, "tokens": corpus, **given_task(config)}, root)
    if search or any(cut.statistics(teacher_shape, shape) for cut, shape in cuts):
        yield score
    if search:
        yield from search.steps(teacher, score)
    written = corpus
    if _written(recipe):
        asked = given_prompts(recipe.generate, tentative) or {"tokens": corpus}
        written = Step("teacher", "generate", recipe.generate, {"model": teacher, **asked}, root)
        yield written
    asked_before = _targets(recipe, teacher, corpus, written)
    yield from {id(step): step for step in asked_before.values()}.values()
    yield from _of_students(
        recipe, students, teacher_shape, teacher, score, (corpus, held_out, written), asked_before, data, tentative
    )


def _of_students(
    recipe: Recipe,
    students: Mapping[str, Shape],
    teacher_shape: Shape,
    teacher: Step | Given,
    score: Step,
    streams: tuple[Step, Step, Step],
    asked_before: Mapping[str, Step],
    data: Mapping[str, Step | Given],
    tentative: bool,
) -> Iterator[Step]:
    """The steps of all students, those that are merged after those that they are merged from."""
    root = streams[0].root
    made: dict[str, list[Step]] = {}
    for name in students:
        guide: dict[str, Step | Given] = {"teacher": teacher}
        if name in asked_before:
            guide = {"targets": asked_before[name]}
        if recipe.students[name].merge is None:
            begun = cut_from(recipe, name, teacher_shape, {"model": teacher, "tokens": streams[0]}, score, root)
        else:
            begun = [merge_step(recipe, name, teacher, made, root, tentative)]
        made[name] = [*begun, *student_steps(recipe, name, begun[-1], teacher, streams, guide, data, tentative)]
        yield from made[name]


def _targets(recipe: Recipe, teacher: Step | Given, corpus: Step, written: Step) -> dict[str, Step]:
    """The step that asks the teacher before, of each student that wants one; those who read alike share it."""
    steps: dict[str, Step] = {}
    shared: dict[str, Step] = {}
    for name, student in recipe.students.items():
        distill = student.distill
        if not distill.tokens or distill.targets != "cached":
            continue
        config = TargetsConfig(
            **recipe.targets.model_dump(),
            temperature=distill.temperature,
            sequence_length=distill.sequence_length,
            sequences=distill.steps * distill.batch_size,
            attend_across_documents=distill.attend_across_documents,
            seed=distill.seed,
        )
        read = written if distill.data == "teacher" else corpus
        step = Step("teacher", "targets", config, {"model": teacher, "tokens": read}, corpus.root)
        steps[name] = shared.setdefault(step.fingerprint, step)
    return steps
