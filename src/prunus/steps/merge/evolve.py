"""Evolution by CMA-ES: sample vectors, merge and evaluate the models that they describe, and record every trial.

CMA-ES (Hansen 2016, arXiv 1604.00772) by the `cmaes` package, on vectors of D numbers; Akiba et al. 2024, arXiv
2403.13187, use it for both spaces.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from prunus.errors import ArtifactError
from prunus.files import read_json_lines
from prunus.steps.merge.config import MergeConfig
from prunus.steps.merge.genome import Genome

Scores = dict[str, float]
"""A model's mean reward on each task, from 0 to 1."""
Try = Callable[[MergeConfig, int], Scores]
"""Merges with the given options and evaluates on a part of the conversations: 0 for all trials, 1 for finalists."""
JOURNAL = "journal.jsonl"
_KEPT = ("number", "part", "vector", "scores")


@dataclass(frozen=True)
class Trial:
    """One line of the journal.

    Attributes:
        number: Counted from 0, the start; in part 1, the number of the finalist's first trial.
        part: The part of the conversations.
        vector: The vector.
        scores: Its scores, by task.
    """

    number: int
    part: int
    vector: list[float]
    scores: Scores

    @property
    def fitness(self) -> float:
        """The mean over tasks, with equal weights."""
        return sum(self.scores.values()) / len(self.scores)


class Journal:
    """Every trial so far, one per line, in a folder that survives an interruption."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / JOURNAL
        self.trials = {(trial.number, trial.part): trial for trial in _read(self.file)}

    def find(self, number: int, part: int, vector: np.ndarray) -> Trial | None:
        """A recorded trial, if it had the same vector."""
        trial = self.trials.get((number, part))
        return trial if trial is not None and trial.vector == vector.tolist() else None

    def add(self, trial: Trial, **facts: Any) -> None:
        """Record a trial durably."""
        line = {**vars(trial), "fitness": trial.fitness, **facts}
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        (self.file.parent / "complete").touch()  # marks the unfinished step as resumable
        self.trials[trial.number, trial.part] = trial


def evolve(
    genome: Genome, attempt: Try, journal: Journal, on_trial: Callable[[int], None] = lambda _: None
) -> tuple[MergeConfig, dict[str, float]]:
    """The best options of `genome.evolve.trials` trials.

    The first trial is the start itself. The best trials and the start are then evaluated on other conversations, and
    the one with the best mean over both parts is chosen: the best of many trials owes part of its fitness to luck.

    Args:
        genome: Maps vectors to options.
        attempt: Merges and evaluates.
        journal: Trials of an interrupted run; new ones are added.
        on_trial: Called with the number of trials so far.

    Returns:
        The options, and `fitness` and `fitness_start` on all conversations.
    """

    def run(number: int, part: int, vector: np.ndarray) -> Trial:
        trial = journal.find(number, part, vector)
        if trial is None:
            trial = Trial(number, part, vector.tolist(), attempt(genome.decode(vector), part))
            journal.add(trial)
        return trial

    trials = []
    for number, (vector, report) in enumerate(_vectors(genome)):
        trials.append(run(number, 0, vector))
        report(trials[-1].fitness)
        on_trial(len(trials))
    best = sorted(trials[1:], key=lambda trial: -trial.fitness)[: genome.evolve.finalists]
    means = {}
    for trial in (trials[0], *best):
        again = run(trial.number, 1, np.array(trial.vector))
        means[trial.number] = (trial.fitness + again.fitness) / 2
    chosen = max(means, key=lambda number: means[number])
    figures = {"fitness": means[chosen], "fitness_start": means[0], "chosen_trial": float(chosen)}
    return genome.decode(np.array(trials[chosen].vector)), figures


def _vectors(genome: Genome) -> Iterator[tuple[np.ndarray, Callable[[float], None]]]:
    """The vectors of all trials, the start first, each with a function to report its fitness to."""
    from cmaes import CMA

    evolve, start = genome.evolve, genome.start()
    population = evolve.population or 4 + math.floor(3 * math.log(len(start)))
    search = CMA(
        mean=start, sigma=evolve.sigma, bounds=genome.bounds(), seed=genome.config.seed, population_size=population
    )
    yield start, lambda _: None
    vectors: list[np.ndarray] = []
    fitness: list[float] = []
    for _ in range(evolve.trials - 1):
        vectors.append(search.ask())
        yield vectors[-1], fitness.append
        if len(vectors) == population:
            search.tell([(vector, -value) for vector, value in zip(vectors, fitness, strict=True)])
            vectors.clear()
            fitness.clear()


def _read(file: Path) -> Iterator[Trial]:
    """The trials of a journal. An incomplete last line, left by an interruption, is removed.

    Raises:
        ArtifactError: A line before it is damaged.
    """
    if not file.is_file():
        return
    whole = file.read_bytes()
    os.truncate(file, whole.rfind(b"\n") + 1)
    for line in read_json_lines(file, ArtifactError):
        try:
            yield TypeAdapter(Trial).validate_python({name: line[name] for name in _KEPT})
        except (ValidationError, TypeError, LookupError):
            raise ArtifactError(
                f"{file}: damaged: not a trial: {str(line)[:80]}; delete the file to start again"
            ) from None
