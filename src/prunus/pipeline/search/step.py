"""The `search` step: candidates within a budget are cut, recovered, measured and halved, and the result is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from prunus import distributed
from prunus.console import Console
from prunus.errors import ArtifactError
from prunus.files import read_object, replace_json
from prunus.models.shape import Shape
from prunus.pipeline.search.candidates import Candidate, candidates_of, proportional, trial_order
from prunus.pipeline.search.config import RECORD, SearchConfig, ShapeSearch
from prunus.pipeline.search.evolve import breed
from prunus.pipeline.search.halving import rank_correlation, ranking, regret, rung_sizes, settled, survivors
from prunus.pipeline.search.pareto import front
from prunus.pipeline.search.space import key_of
from prunus.pipeline.search.workshop import BEFORE, Trials, Workshop
from prunus.runtime import Runtime

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """Inputs of the step.

    Attributes:
        model: The teacher's folder.
        tokens: The stream that candidates are recovered on.
        ranking: The stream that they are ranked on.
        scores: The teacher's scores, by which the shapes are thinned.
        trials: The same inputs as steps, and everything else that candidates are made from.
    """

    model: Path
    tokens: Path
    ranking: Path
    scores: Path
    trials: Trials


@dataclass
class _Search:
    """A running search: its candidates, and their figures by rung and name."""

    config: SearchConfig
    workshop: Workshop
    console: Console
    teacher: Shape
    tried: dict[str, Candidate] = field(default_factory=dict)
    rungs: dict[int, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)

    def losses(self, rung: int) -> dict[str, float]:
        """The ranking metric of every candidate after a rung."""
        return {name: figures[self.config.measure]["value"] for name, figures in self.rungs.get(rung, {}).items()}

    def measure(self, names: Sequence[str], rung: int) -> None:
        """Measure candidates after a rung: each process measures its share, then reads the results of all."""
        share = list(names)[distributed.rank() :: distributed.count()]
        label = "search: before recovery" if rung == BEFORE else f"search: rung {rung + 1}"
        with self.console.progress(label, len(share), "candidates") as progress:
            for i, name in enumerate(share, start=1):
                self.workshop.measure(self.tried[name], rung)
                progress.update(i)
        distributed.wait()
        results = {name: self.workshop.measure(self.tried[name], rung) for name in names}
        self.rungs.setdefault(rung, {}).update(results)

    def add(self, shapes: Sequence[Shape]) -> list[str]:
        """Add the candidates of some shapes. Returns the names of the new ones."""
        made = [one for shape in shapes for one in self.candidates_of(shape)]
        new = {one.name: one for one in made if one.name not in self.tried}
        self.tried |= new
        return list(new)

    def candidates_of(self, shape: Shape) -> list[Candidate]:
        """The candidates of a shape: one for each cutting schedule and each set of dropped layers."""
        return candidates_of(self.teacher, shape, self.config.ways, self.other_layers(shape))

    def fitting(self, shapes: Sequence[Shape], places: int) -> list[Shape]:
        """The first of `shapes`, as many as make at most `places` candidates."""
        ends = accumulate(len(self.candidates_of(shape)) for shape in shapes)
        return [shape for shape, _ in zip(shapes, takewhile(lambda end: end <= places, ends), strict=False)]

    def other_layers(self, shape: Shape) -> list[tuple[int, ...]]:
        """Sets of layers to drop instead of the set that the scores choose."""
        if self.config.layer_choices == 1 or shape.num_hidden_layers == self.teacher.num_hidden_layers:
            return []
        return self.workshop.layer_choices(shape)[1 : self.config.layer_choices]

    def first_rung(self, shapes: Sequence[Shape]) -> None:
        """Cut some shapes, and recover them for the first rung."""
        names = self.add(shapes)
        self.measure(names, BEFORE)
        self.measure(names, 0)

    def evolve(self) -> None:
        """Fill the places that thinning left free, generation by generation."""
        space, draw = self.workshop.space(self.teacher, fine=True), np.random.default_rng(self.config.seed)
        for left in range(self.config.generations, 0, -1):
            places = max(0, self.config.candidates - len(self.tried)) // left
            order = ranking(self.losses(0))
            parents = list({key_of(self.tried[name].shape): self.tried[name].shape for name in order}.values())
            best = parents[: max(2, len(parents) // 2)]
            known = {key_of(one.shape) for one in self.tried.values()}
            self.first_rung(self.fitting(breed(best, places, space, known, draw), places))

    def halve(self) -> int:
        """Train the better candidates further, rung by rung. Returns the last rung."""
        sizes = rung_sizes(len(self.tried), self.config.eta, self.config.rungs)
        remaining = list(self.tried)
        for rung in range(1, len(sizes)):
            kept = survivors({name: self.losses(rung - 1)[name] for name in remaining}, self.config.eta)
            self.remove_weights([name for name in remaining if name not in kept], len(sizes))
            self.measure(kept, rung)
            self.remove_weights(kept, rung)
            remaining = kept
        self.remove_weights(remaining, len(sizes))
        return len(sizes) - 1

    def remove_weights(self, names: Sequence[str], rung: int) -> None:
        """Remove weights that no later rung starts from; measurements are kept."""
        distributed.wait()
        if distributed.rank() == 0:
            for name in names:
                self.workshop.remove_weights(self.tried[name], rung)


def run(config: ShapeSearch, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Search, and write `search.json`; see `find`.

    Raises:
        RecipeError: No shape meets the budget.
        PrunusError: Raised by cutting or training.
    """
    workshop = Workshop(config, inputs.trials, runtime)
    scores = read_object(inputs.scores / "scores.json", ArtifactError)
    return find(config, workshop, workshop.teacher.shape, scores, out, console)


def find(
    config: SearchConfig,
    workshop: Workshop,
    teacher: Shape,
    scores: Mapping[str, Any] | None,
    out: Path,
    console: Console,
) -> dict[str, float]:
    """Search, and write `search.json`: every candidate's figures and losses, the ranking of every rung, the best.

    Args:
        config: The options.
        workshop: Makes and measures candidates.
        teacher: The shape that is cut.
        scores: The record of the teacher's scores, by which the shapes are thinned; None: by how evenly they are cut.
        out: The folder to write to.
        console: Where progress is printed.

    Returns:
        The number of shapes in the budget, the number of candidates, the best one's loss after the last rung, and how
        the ranking before recovery compares with the first rung's: rank correlation, and regret of choosing by it.

    Raises:
        RecipeError: No shape meets the budget.
    """
    shapes = workshop.space(teacher).all()
    search, order = _Search(config, workshop, console, teacher), trial_order(teacher, shapes, scores)
    first = search.fitting(order, config.candidates)
    evolves = len(first) < len(shapes) and config.generations > 0
    if evolves:
        first = search.fitting(order, config.candidates - config.candidates // 2)
    first = first or order[:1]  # a single shape may have more candidates than allowed
    console.say(f"{len(shapes)} shapes meet the budget; the first {len(first)} are tried now")
    search.first_rung(first)
    if evolves:
        search.evolve()
    last = search.halve()
    record = _record(search, last, shapes)
    if distributed.rank() == 0:
        replace_json(out / RECORD, record)
    console.say(f"best: {record['best']['name']}")
    metrics = {
        "shapes": len(shapes),
        "candidates": len(search.tried),
        "loss": record["best"]["loss"],
        "settled_at_tokens": record["settled_at_tokens"],
        "regret_before_recovery": record["before"]["regret"],
    }
    correlation = record["before"]["rank_correlation"]
    return metrics if correlation is None else {**metrics, "correlation_before_recovery": correlation}


def _record(search: _Search, last: int, shapes: Sequence[Shape]) -> dict[str, Any]:
    """The record of a search: plain values for JSON."""
    config, workshop = search.config, search.workshop
    space = workshop.space(search.teacher)
    rungs = [search.losses(rung) for rung in range(last + 1)]
    before = search.losses(BEFORE)
    final = {name: losses[name] for losses in rungs for name in losses}  # each candidate's last
    best = ranking(rungs[-1])[0]
    figures = {name: space.meter.figures(config.budget, one.shape) for name, one in search.tried.items()}
    tightest = space.meter.tightest(config.budget, search.tried[best].shape).label
    return {
        "measure": config.measure,
        "budget": [{"label": limit.label, "at_most": space.meter.bound(limit)} for limit in config.budget],
        "teacher": space.meter.figures(config.budget, search.teacher),
        "shapes": len(shapes),
        "tokens": [workshop.tokens(rung) for rung in range(last + 1)],
        "best": {"name": best, "loss": rungs[-1][best], **workshop.sizes(search.tried[best])},
        "proportional": next(
            name for name, one in search.tried.items() if one.shape == proportional(search.teacher, shapes)
        ),
        "settled_at_tokens": workshop.tokens(settled(rungs)),
        "before": {
            "rank_correlation": rank_correlation(before, rungs[0]),
            "chosen": ranking(before)[0],
            "regret": regret(before, rungs[0]),
        },
        "rank_correlations": [rank_correlation(a, b) for a, b in pairwise(rungs)],
        "cost": tightest,
        "pareto": front({name: (figures[name][tightest], loss) for name, loss in rungs[0].items()}),
        "order": [ranking(before), *(ranking(losses) for losses in rungs)],
        "candidates": {
            name: {
                "way": one.way,
                "cut": workshop.sizes(one),
                "dimensions": one.shape.dimensions(),
                "figures": figures[name],
                "before": search.rungs[BEFORE][name],
                "rungs": [search.rungs[rung][name] for rung in range(last + 1) if name in search.rungs[rung]],
                "loss": final[name],
            }
            for name, one in search.tried.items()
        },
    }
