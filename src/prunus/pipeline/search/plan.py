"""Planning of the search: checks before any work, its steps and their cost, and reading its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus import costs
from prunus.config import check_length
from prunus.costs import Cost, CostContext
from prunus.errors import ArtifactError, RecipeError, ShapeError
from prunus.files import read_object
from prunus.fingerprint import digest
from prunus.graph.hub import Hub
from prunus.graph.records import remedy
from prunus.graph.steps import Given, Step
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.pipeline.cutting import between, cuts_of
from prunus.pipeline.machine import hardware
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.search.config import RECORD, ShapeSearch
from prunus.pipeline.search.contamination import check_apart
from prunus.pipeline.search.figures import check_budget
from prunus.pipeline.search.halving import rung_sizes
from prunus.pipeline.search.latency import check_latency
from prunus.pipeline.search.space import sizes_of
from prunus.pipeline.search.workshop import Texts, Trials, space_of, texts_of
from prunus.pipeline.teacher import Teacher
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.score.config import ScoreConfig


@dataclass(frozen=True)
class PlannedSearch:
    """A search with its texts, ready to be planned.

    Attributes:
        config: The options.
        texts: The texts that candidates are recovered and ranked on.
        tokenizer: Tokenizer of the streams.
        corpus: The training stream of the run; candidates are recovered on it too, if `search.text` is set.
        score: Scoring options between two cuts.
        cuts: Cuts that together read all of the teacher's scores that any candidate's cut reads.
        root: The folder of the run; candidates' folders are in `search` below it.
    """

    config: ShapeSearch
    texts: Texts
    tokenizer: Step | Given
    corpus: Step
    score: ScoreConfig
    cuts: Sequence[tuple[PruneConfig, Shape]]
    root: Path

    def steps(self, teacher: Step | Given, scores: Step | Given) -> Iterator[Step]:
        """The steps of the streams, and the search itself."""
        recovery, ranking = self.texts.streams(self.tokenizer)
        if self.config.text:
            recovery = self.corpus
        else:
            yield recovery
        yield ranking
        given: dict[str, Step | Given] = {"model": teacher, "scores": scores, "tokens": recovery, "ranking": ranking}
        trials = Trials(given, self.texts, self.score, self.root)
        timed = any(limit.what == "latency" for limit in self.config.budget)
        made = Given(trials, digest(["trials", self.score.identity(), hardware() if timed else None]))
        yield Step("search", "search", self.config, {**given, "trials": made}, self.root)


def plan_search(recipe: Recipe, teacher: Teacher, corpus: Step, hub: Hub) -> PlannedSearch | None:
    """The checked search of a recipe, or None.

    Raises:
        RecipeError: No shape meets the budget (names the nearest), the evaluation reads the ranking text too, or an
            option is wrong.
    """
    config = recipe.search
    if config is None:
        return None
    folder = teacher.folder if isinstance(teacher.model, Given) else None
    check_search(config, teacher.shape, folder, "search")
    check_apart(config.text, recipe.data, recipe.evaluate, hub)
    for name, student in recipe.students.items():
        if student.prune.shape is not None and config.ways != ("once",):  # it may be cut in two steps as well
            between(config.distill.tokens // 2, student.distill, f"students.{name}.distill")
    texts = texts_of(config, recipe.data, corpus.root, hub)
    cuts = search_cuts(config, teacher.shape)
    return PlannedSearch(config, texts, teacher.tokenizer, corpus, recipe.score, cuts, corpus.root)


def check_search(config: ShapeSearch, teacher: Shape, folder: Path | None, where: str) -> int | None:
    """Refuse a search without a possible result, before any work.

    Args:
        config: The options.
        teacher: The shape that is cut.
        folder: Folder of the teacher's config and tokenizer; None if it does not exist yet.
        where: Name of the section, for messages.

    Returns:
        The number of shapes that meet the budget; None if the teacher does not exist yet or a latency must be measured
        first.

    Raises:
        RecipeError: No shape meets the budget (names the nearest and its figures), or an option is wrong.
    """
    check_budget(config.budget, f"{where}.budget")
    check_length(f"{where}.distill", config.distill.sequence_length, teacher.max_position_embeddings)
    for limit in config.budget:
        check_latency(limit, f"{where}.budget")
    for axis in config.multiples:
        if axis not in config.axes:
            raise RecipeError(f"{where}.multiples: {axis} is not among axes: {', '.join(config.axes)}")
    if "vocab_size" in config.axes and config.prune.heal.explicit:
        raise RecipeError(f"{where}.prune.heal: a student with a cut vocabulary cannot be healed; remove it")
    if folder is None or any(limit.what == "latency" for limit in config.budget):
        return None
    return len(space_of(config, ModelFolder(folder), folder, Runtime()).all())


def search_cuts(config: ShapeSearch, teacher: Shape) -> list[tuple[PruneConfig, Shape]]:
    """Cuts that together read all scores that any candidate's cut reads: one per axis, and one per depth."""
    found = []
    rules = ("contiguous", "single") if config.layer_choices > 1 else (config.prune.drop_layers,)
    for axis, sizes in sizes_of(config, teacher, 1, fine=True).items():
        for size in reversed(sizes[:-1]):
            number = size * teacher.num_key_value_heads if axis == "num_attention_heads" else size
            try:
                for rule in rules:
                    options = config.prune.model_copy(update={axis: number, "drop_layers": rule})
                    found += cuts_of(options, teacher, "search.prune")
            except ShapeError:
                continue
            if axis != "num_hidden_layers":
                break
    return found


def best_options(config: ShapeSearch, student: PruneConfig, folder: Path) -> PruneConfig:
    """The `prune` options of a student with the best shape: those of the candidates, overridden by the student's."""
    best: Any = read_object(folder / RECORD, ArtifactError).get("best")
    if not isinstance(best, dict) or not isinstance(best.get("prune"), dict) or "via" not in best:
        raise ArtifactError(f"{folder / RECORD}: damaged: it names no best shape; {remedy(folder)}")
    named = {name: getattr(student, name) for name in student.model_fields_set}
    cut = {name: tuple(value) if isinstance(value, list) else value for name, value in best["prune"].items()}
    return config.prune.model_copy(update={**named, **cut, "via": best["via"], "shape": None})


def waiting_students(students: Mapping[str, PruneConfig]) -> list[str]:
    """The students whose shape the search decides, directly or through `like`."""
    direct = [name for name, config in students.items() if config.shape is not None]
    return direct + [name for name, config in students.items() if config.like in direct]


def search_step(steps: Sequence[Step]) -> Step | None:
    """The search step of a plan, or None."""
    return next((step for step in steps if step.kind == "search"), None)


def cost(config: ShapeSearch, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost as if every candidate were as large as the teacher: the real sizes are known later.

    Disk holds the weights of a finished rung and of the current one.
    """
    sizes = rung_sizes(config.candidates, config.eta, config.rungs)
    each = [costs.cost(config.recovery(rung), context.teacher, context) for rung in range(len(sizes))]
    tokens = sum(count * one.tokens for count, one in zip(sizes, each, strict=True))
    flops = sum(count * one.flops for count, one in zip(sizes, each, strict=True))
    return Cost(tokens, flops, each[0].memory_bytes, 2 * config.candidates * context.teacher.parameters * 4)
