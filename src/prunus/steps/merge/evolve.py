"""Evolution: ask for vectors, try the models that they stand for, tell what these are worth, and write all down.

CMA-ES (Hansen 2016, arXiv 1604.00772) by the `cmaes` package, on vectors of D numbers; as in Akiba et al. 2024, arXiv
2403.13187, where both spaces are searched by it.
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
"""What a model is worth by each task, from 0 to 1."""
Try = Callable[[MergeConfig, int], Scores]
"""Merges by options and asks the tasks' conversations of a part: 0 those of every trial, 1 those of the finalists."""
JOURNAL = "journal.jsonl"
_KEPT = ("number", "part", "vector", "scores")


@dataclass(frozen=True)
class Trial:
    """One line of the journal.

    Attributes:
        number: From 0, the start; of trials in part 1 the number of the trial that is asked again.
        part: Which conversations were asked.
        vector: What was tried.
        scores: What it is worth, by task.
    """

    number: int
    part: int
    vector: list[float]
    scores: Scores

    @property
    def fitness(self) -> float:
        """The mean over tasks, each counting alike."""
        return sum(self.scores.values()) / len(self.scores)


class Journal:
    """Every trial so far, a line each, in a folder that outlives a kill."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / JOURNAL
        self.trials = {(trial.number, trial.part): trial for trial in _read(self.file)}

    def known(self, number: int, part: int, vector: np.ndarray) -> Trial | None:
        """That trial, if it was made with that very vector."""
        found = self.trials.get((number, part))
        return found if found is not None and found.vector == vector.tolist() else None

    def add(self, trial: Trial, **facts: Any) -> None:
        """Write a trial down; a kill after this does not lose it."""
        line = {**vars(trial), "fitness": trial.fitness, **facts}
        with self.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line, allow_nan=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        (self.file.parent / "complete").touch()  # an unfinished step with this is gone on with, and not removed
        self.trials[trial.number, trial.part] = trial


def evolve(
    genome: Genome, attempt: Try, journal: Journal, on_trial: Callable[[int], None] = lambda _: None
) -> tuple[MergeConfig, dict[str, float]]:
    """The best options that so many trials find.

    The first trial is the start itself. The best of all, and the start, are then asked other conversations, and the
    one with the best mean over both is taken: the best of many trials owes part of its fitness to luck.

    Args:
        genome: What vectors stand for.
        attempt: Merges and asks.
        journal: The trials that an earlier run made, and where new ones go.
        on_trial: Told how many trials are made.

    Returns:
        The options, and `fitness` and `fitness_start` on all conversations.
    """

    def tried(number: int, part: int, vector: np.ndarray) -> Trial:
        found = journal.known(number, part, vector)
        if found is None:
            found = Trial(number, part, vector.tolist(), attempt(genome.decode(vector), part))
            journal.add(found)
        return found

    trials = []
    for number, (vector, tell) in enumerate(_asked(genome)):
        trials.append(tried(number, 0, vector))
        tell(trials[-1].fitness)
        on_trial(len(trials))
    best = sorted(trials[1:], key=lambda trial: -trial.fitness)[: genome.evolve.finalists]
    means = {}
    for trial in (trials[0], *best):
        again = tried(trial.number, 1, np.array(trial.vector))
        means[trial.number] = (trial.fitness + again.fitness) / 2
    chosen = max(means, key=lambda number: means[number])
    figures = {"fitness": means[chosen], "fitness_start": means[0], "chosen_trial": float(chosen)}
    return genome.decode(np.array(trials[chosen].vector)), figures


def _asked(genome: Genome) -> Iterator[tuple[np.ndarray, Callable[[float], None]]]:
    """The vectors of all trials, each with the function that takes its fitness; the start comes first."""
    from cmaes import CMA

    evolve, start = genome.evolve, genome.start()
    population = evolve.population or 4 + math.floor(3 * math.log(len(start)))
    search = CMA(
        mean=start, sigma=evolve.sigma, bounds=genome.bounds(), seed=genome.config.seed, population_size=population
    )
    yield start, lambda _: None
    asked: list[np.ndarray] = []
    worth: list[float] = []
    for _ in range(evolve.trials - 1):
        asked.append(search.ask())
        yield asked[-1], worth.append
        if len(asked) == population:
            search.tell([(vector, -fitness) for vector, fitness in zip(asked, worth, strict=True)])
            asked.clear()
            worth.clear()


def _read(file: Path) -> Iterator[Trial]:
    """The trials of a journal. A line that a kill left unfinished is taken off.

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
                f"{file}: holds a line that is no trial: {str(line)[:80]}; remove the file to try anew"
            ) from None
