"""The steps that cut a student: one; or up to four, if it is cut twice with a distillation in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from prunus.config import parse
from prunus.errors import RecipeError
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.steps.distill.config import DistillConfig
from prunus.steps.prune.config import PruneConfig
from prunus.steps.score.config import ScoreConfig, Statistic
from prunus.steps.score.plan import given_task


def scored(config: ScoreConfig, teacher: Shape, cuts: Sequence[tuple[PruneConfig, Shape]]) -> ScoreConfig:
    """The scoring options, with the statistics added that the students' cuts read.

    Raises:
        RecipeError: A cut needs a task's accuracy, and no task is given.
    """
    read = {name for cut, shape in cuts for name in cut.statistics(teacher, shape)}
    dropped = {
        teacher.num_hidden_layers - shape.num_hidden_layers if cut.drop_layers == "contiguous" else 1
        for cut, shape in cuts
        if cut.importance.layers in cut.statistics(teacher, shape)
    }
    known = get_args(Statistic)
    collect = tuple(name for name in known if name in {*config.collect, *read})
    blocks = tuple(sorted({*config.blocks, *dropped}))
    return parse(ScoreConfig, {**config.model_dump(), "collect": collect, "blocks": blocks}, "score")


def cuts_of(config: PruneConfig, teacher: Shape, where: str) -> list[tuple[PruneConfig, Shape]]:
    """The cuts that read the teacher's scores, with their target shapes: the only cut, the first of two, or a nest's.

    Raises:
        ShapeError: The sizes in `via` cannot be cut, or are not between those of teacher and student.
    """
    if config.nest:
        return [(config.of_size(name, teacher), shape) for name, shape in config.nested(teacher, where).items()]
    target = config.target(teacher, where)
    if not config.via:
        return [(config, target)]
    first = config.first_cut()
    return [(first, first.target(teacher, f"{where}.via"))]


def check_via(config: PruneConfig, teacher: Shape, distill: DistillConfig, where: str) -> None:
    """Refuse a `via` that is not a shape between teacher and student.

    Raises:
        ShapeError: A size in `via` is larger than the teacher's or smaller than the student's.
        RecipeError: It is the shape of one of the two, or its tokens are too few for one step.
    """
    if not config.via:
        return
    (_, middle), target = cuts_of(config, teacher, where)[0], config.target(teacher, where)
    config.model_copy(update={"via": {}}).target(middle, where)
    if middle in (teacher, target):
        raise RecipeError(f"{where}.via: {config.via}: is the teacher's own shape or the student's; give one between")
    between(config.via["tokens"], distill, f"{where}.via")


def between(tokens: int, distill: DistillConfig, where: str) -> DistillConfig:
    """The distillation between two cuts: the student's options, with a warm-up of at most half of the steps.

    Raises:
        RecipeError: The tokens are too few for one step.
    """
    changed = {"tokens": tokens, "data": "corpus", "targets": "online", "warmup_steps": 0, "validation": 0}
    changed["quantise"] = None
    short = parse(DistillConfig, {**distill.model_dump(), **changed}, where)
    return short.model_copy(update={"warmup_steps": min(distill.resolved_warmup, short.steps // 2)})


def cut_steps(
    subject: str,
    config: PruneConfig,
    teacher: Shape,
    given: Mapping[str, Step | Given],
    distill: DistillConfig,
    score: ScoreConfig,
    root: Path,
) -> list[Step]:
    """The steps that cut a student; the last one is the final cut.

    Args:
        subject: Name of the model that the steps belong to.
        config: The options of the cut.
        teacher: The shape that is cut.
        given: `model` (the teacher), `tokens` (the corpus), and `scores` if the cut reads any.
        distill: Options of the distillation between two cuts; its tokens are replaced.
        score: Scoring options before the second cut.
        root: The folder of the run.
    """

    def cut(label: str, options: PruneConfig, **read: Step | Given) -> Step:
        needed = {name: one for name, one in read.items() if name != "tokens" or options.takes_text}
        return Step(subject, label, options, needed, root)

    if not config.via:
        return [cut("prune", config, **given)]
    first, second = config.first_cut(), config.model_copy(update={"via": {}})
    middle, target = first.target(teacher, "prune.via"), config.target(teacher, "prune")
    begun = cut("prune-via", first, **given)
    read = {"student": begun, "teacher": given["model"], "tokens": given["tokens"]}
    healed = Step(subject, "distill-via", between(config.via["tokens"], distill, "prune.via"), read, root)
    steps, model = [begun, healed], {"model": healed, "tokens": given["tokens"]}
    options = scored(score, middle, [(second, target)])
    if second.statistics(middle, target):
        steps.append(Step(subject, "score-via", options, {**model, **given_task(options)}, root))
        model["scores"] = steps[-1]
    return [*steps, cut("prune", second, **model, base=given["model"])]
