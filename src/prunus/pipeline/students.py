"""The steps of one student, from its cut to the file that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prunus.data.config import TokensConfig
from prunus.distill.config import DistillConfig, StatesConfig
from prunus.graph.steps import Given, Step, given_sources, tokens_step
from prunus.models.shape import PRUNABLE, Shape
from prunus.pipeline.aligning import is_model, of_student
from prunus.pipeline.cutting import cut_steps, cuts_of
from prunus.pipeline.merging import has_own_words
from prunus.pipeline.recipe import Recipe
from prunus.prune.config import PruneConfig


def prune_config(recipe: Recipe, name: str) -> PruneConfig:
    """The student's own options, with `like` replaced by the other student's shape."""
    own = recipe.students[name].prune
    if own.like is None:
        return own
    shape = {key: getattr(recipe.students[own.like].prune, key) for key in (*PRUNABLE, "drop_layers")}
    return own.model_copy(update={**shape, "like": None})


def distill_config(recipe: Recipe, name: str) -> DistillConfig:
    """The student's own options; one that is drawn anew has no states in common with its teacher."""
    distill = recipe.students[name].distill
    if prune_config(recipe, name).init == "random":
        return distill.model_copy(update={"states": StatesConfig(weight=0)})
    return distill


def cut_from(
    recipe: Recipe, name: str, shape: Shape, given: Mapping[str, Step | Given], score: Step, root: Path
) -> list[Step]:
    """The steps that cut a student from the teacher, which has that shape; the last is the cut."""
    config = prune_config(recipe, name)
    if any(cut.statistics(shape, left) for cut, left in cuts_of(config, shape, name)):
        given = {**given, "scores": score}
    return cut_steps(name, config, shape, given, distill_config(recipe, name), recipe.score, root)


def student_steps(
    recipe: Recipe,
    name: str,
    pruned: Step,
    teacher: Step | Given,
    streams: tuple[Step, Step, Step],
    guide: Mapping[str, Step | Given],
    data: Mapping[str, Step | Given],
    tentative: bool,
) -> Iterator[Step]:
    """What becomes of a student once it is cut or merged."""
    config, distill = prune_config(recipe, name), distill_config(recipe, name)
    corpus, held_out, written = streams
    root, own_words = corpus.root, has_own_words(recipe, name)
    beside: dict[str, Step | Given] = {"teacher": teacher, **data}
    if own_words:  # another vocabulary: other tokens of the same text, so that sums over tokens do not compare
        corpus, held_out = streams_of(recipe, root, pruned, f"-{name}", tentative)
        beside = dict(data)
        yield from (corpus, held_out)
    if config.init == "teacher" or not distill.tokens:
        first = "evaluate-merged" if pruned.kind == "merge" else "evaluate-pruned"
        label = first if distill.tokens or recipe.students[name].align else "evaluate"
        yield Step(name, label, recipe.evaluate, {"model": pruned, "tokens": held_out, **beside}, root)
    last = pruned
    if distill.tokens:
        read = written if distill.data == "teacher" else corpus
        inputs = {"student": pruned, **guide, "tokens": read}
        last = Step(name, "distill", distill, inputs, root)
        yield last
    words = corpus.inputs["tokenizer"]
    aligned = list(of_student(recipe, name, tentative).steps(name, last, teacher, root, words))
    if distill.tokens:
        label = "evaluate-distilled" if aligned else "evaluate"
        yield Step(name, label, recipe.evaluate, {"model": last, "tokens": held_out, **beside}, root)
    yield from aligned
    models = list(filter(is_model, aligned))
    if models:
        last = models[-1]
        yield Step(name, "evaluate", recipe.evaluate, {"model": last, "tokens": held_out, **beside}, root)
    if recipe.export.formats:
        yield Step(name, "export", recipe.export, {"model": last, "tokens": held_out}, root)


def streams_of(recipe: Recipe, root: Path, tokenizer: Step | Given, suffix: str, tentative: bool) -> tuple[Step, Step]:
    """The corpus and the held-out text; one text is parted by its documents' hashes where no second is given."""
    data = recipe.data
    joined = TokensConfig(append_eos=data.append_eos)
    corpus = given_sources(data.corpus, "data.corpus", tentative)
    if data.held_out:
        held_out = given_sources(data.held_out, "data.held_out", tentative)
        train, test = joined.model_copy(update={"max_tokens": data.max_tokens}), joined
    else:
        held_out = corpus
        parted = joined.model_copy(update={"held_out_fraction": data.held_out_fraction, "max_tokens": data.max_tokens})
        train, test = (parted.model_copy(update={"part": part}) for part in ("train", "held_out"))
    return (
        tokens_step(train, corpus, tokenizer, f"corpus{suffix}", root),
        tokens_step(test, held_out, tokenizer, f"held_out{suffix}", root),
    )
