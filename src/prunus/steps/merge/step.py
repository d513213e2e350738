"""The `merge` step: models of one shape are merged weight by weight, with given or evolved options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.environment import as_written
from prunus.errors import NotFiniteError
from prunus.files import replace_json, replace_text
from prunus.models.checkpoint import write_tensors
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.lineage import BASIS, KEPT, copy_lineage
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.merge.compatibility import check_mergeable
from prunus.steps.merge.config import MergeConfig, name_of
from prunus.steps.merge.evolve import JOURNAL, Journal, Scores, evolve
from prunus.steps.merge.fitness import Fitness
from prunus.steps.merge.flow import flow_config, flowing
from prunus.steps.merge.genome import Genome
from prunus.steps.merge.questions import read_tasks
from prunus.steps.merge.stream import merged

MERGED = "merge.json"


class Inputs:
    """The models to merge.

    Args:
        base: Their common ancestor, for methods that need one.
        data: The conversations for fitness; unused here, but part of the result's fingerprint.
        models: `model`, `model_1`, `model_2` and so on: the folders, in order.
    """

    def __init__(self, base: Path | None = None, data: Any = None, **models: Path) -> None:
        self.base = base
        self.models = [models[name_of(number)] for number in range(len(models))]


def run(config: MergeConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the merged model to `out`, with `merge.json`, the options of the merge.

    An evolution also writes `journal.jsonl`, a line for every trial, and `parents.json`, the fitness of each input
    model. An interrupted evolution resumes from its journal.

    Returns:
        Parameters, total and non-embedding; for an evolution also the number of trials, and the fitness of the start,
        of the best input model and of the chosen trial.

    Raises:
        ModelError: The models differ in more than their weights' values, or merged values are not finite.
        DataError: The conversations for fitness cannot be used.
        ArtifactError: The disk is too full.
    """
    models = [ModelFolder(path) for path in inputs.models]
    base = ModelFolder(inputs.base) if inputs.base is not None else None
    config.check_fits(len(models), base is not None, models[0].shape.num_hidden_layers, "merge")
    for note in check_mergeable(models, base, "merge"):
        console.warn(f"merge: {note}")
    figures: dict[str, float] = {}
    if config.evolve.trials:
        config, figures = _evolved(config, models, base, out, runtime, console)
    with console.progress("merge", sum(info.nbytes for info in models[0].weights.values()), "bytes") as progress:
        write_merged(config, models, base, out, progress.update)
    if config.method != "flow" and len({_lineage(model.path) for model in models}) == 1:
        copy_lineage(models[0].path, out)
    options = json.dumps(config.model_dump(mode="json", exclude_defaults=True), indent=2)
    replace_text(out / MERGED, as_written(options) + "\n")
    remove_checkpoints(out)
    device = device_of(runtime)
    load_model(out, device, inference_dtype(runtime, device))  # a final check that transformers loads it
    shape = ModelFolder(out).shape
    sizes = {"parameters": shape.parameters, "non_embedding_parameters": shape.non_embedding_parameters}
    return {**sizes, **figures}


def write_merged(
    config: MergeConfig, models: Sequence[ModelFolder], base: ModelFolder | None, out: Path, on_progress: Any = None
) -> None:
    """Write a merged model's folder, and check its headers against its config.

    Raises:
        ModelError: A value is not finite.
        ArtifactError: The disk is too full.
    """
    first = models[0]
    weights = [model.weights for model in models]
    settings = dict(first.config)
    if config.method == "flow":
        path = config.flow.path()
        plans = flowing(path, config.flow.scales, weights, first.family)
        settings = flow_config(first.config, first.shape, path)
    else:
        plans = merged(config, weights, base.weights if base is not None else None, first.family)
    copy_along(first.path, out)
    write_tensors(out, plans, on_progress=on_progress or (lambda _: None))
    write_config(out, settings)
    ModelFolder(out).check()


def _evolved(
    config: MergeConfig, models: Sequence[ModelFolder], base: ModelFolder | None, out: Path, runtime: Runtime,
    console: Console,
) -> tuple[MergeConfig, dict[str, float]]:  # fmt: skip
    """The options that evolution finds, and its figures."""
    folder = out / "checkpoints" / "evolve"
    trial = out / "trial"
    device = device_of(runtime)
    fitness = Fitness(
        read_tasks(config.evolve, "merge.evolve"), load_tokenizer(models[0].path), config.evolve, models[0].context,
        device, inference_dtype(runtime, device), runtime,
    )  # fmt: skip

    def attempt(options: MergeConfig, part: int) -> Scores:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir()
        write_merged(options, models, base, trial)
        try:
            return fitness.of(trial, part)
        except NotFiniteError:  # weights far from the input models' may overflow; their fitness is 0
            return dict.fromkeys(fitness.tasks, 0.0)

    journal = Journal(folder)
    if config.evolve.i_am_tuning_on_the_test_set:
        console.warn("evolution may tune on the test set; scores on it say nothing about other data")
    parents = [{str(part): fitness.of(model.path, part) for part in (0, 1)} for model in models]
    genome = Genome(config, len(models), models[0].shape.num_hidden_layers)
    with console.progress("evolve", config.evolve.trials, "trials") as progress:
        options, figures = evolve(genome, attempt, journal, progress.update)
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copyfile(journal.file, out / JOURNAL)
    replace_json(out / "parents.json", parents)
    means = [sum(sum(part.values()) / len(part) for part in parent.values()) / 2 for parent in parents]
    return options, {"trials": float(config.evolve.trials), "fitness_best_parent": max(means), **figures}


def _lineage(folder: Path) -> tuple[bytes, ...]:
    """The files of a student's lineage, for comparison."""
    return tuple(file.read_bytes() for name in (KEPT, BASIS) if (file := folder / name).is_file())
