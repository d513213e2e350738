"""The `search` step: candidates in a budget, each cut, recovered and measured by steps, halved, and put on record."""

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
from prunus.pipeline.search.candidates import Candidate, candidates_of, in_turn, proportional
from prunus.pipeline.search.config import FOUND, SearchConfig, ShapeSearch
from prunus.pipeline.search.evolve import breed
from prunus.pipeline.search.halving import rank_correlation, ranking, regret, rung_sizes, settled, survivors
from prunus.pipeline.search.pareto import front
from prunus.pipeline.search.space import key_of
from prunus.pipeline.search.workshop import BEFORE, Trials, Workshop
from prunus.runtime import Runtime

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """What is searched in.

    Attributes:
        model: The teacher's folder.
        tokens: The stream that candidates are recovered on.
        ranking: The stream that they are ranked on.
        scores: The teacher's scores, by which too many shapes are thinned.
        trials: The same as steps, with all else that candidates are made of.
    """

    model: Path
    tokens: Path
    ranking: Path
    scores: Path
    trials: Trials


@dataclass
class _Search:
    """A search under way: what has been measured, rung by rung, by candidates' names."""

    config: SearchConfig
    workshop: Workshop
    console: Console
    teacher: Shape
    tried: dict[str, Candidate] = field(default_factory=dict)
    rungs: dict[int, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)

    def losses(self, rung: int) -> dict[str, float]:
        """What candidates are ranked by, after a rung."""
        return {name: figures[self.config.measure]["value"] for name, figures in self.rungs.get(rung, {}).items()}

    def measure(self, names: Sequence[str], rung: int) -> None:
        """Measure candidates after a rung, each process its share; all then look up what the others found."""
        mine = list(names)[distributed.rank() :: distributed.count()]
        label = "search: before recovery" if rung == BEFORE else f"search: rung {rung + 1}"
        with self.console.progress(label, len(mine), "candidates") as progress:
            for i, name in enumerate(mine, start=1):
                self.workshop.measure(self.tried[name], rung)
                progress.update(i)
        distributed.wait()
        found = {name: self.workshop.measure(self.tried[name], rung) for name in names}
        self.rungs.setdefault(rung, {}).update(found)

    def add(self, shapes: Sequence[Shape]) -> list[str]:
        """Take shapes up as candidates, each in every way that it can be cut, or at once. Returns their names."""
        made = [one for shape in shapes for one in self.made_of(shape)]
        new = {one.name: one for one in made if one.name not in self.tried}
        self.tried |= new
        return list(new)

    def made_of(self, shape: Shape) -> list[Candidate]:
        """What a shape is tried as: one candidate for each way to cut it and each choice of the layers that go."""
        return candidates_of(self.teacher, shape, self.config.ways, self.other_layers(shape))

    def fitting(self, shapes: Sequence[Shape], places: int) -> list[Shape]:
        """The first of some shapes, as many as make no more candidates than there are places."""
        ends = accumulate(len(self.made_of(shape)) for shape in shapes)
        return [shape for shape, _ in zip(shapes, takewhile(lambda end: end <= places, ends), strict=False)]

    def other_layers(self, shape: Shape) -> list[tuple[int, ...]]:
        """The layers that go in place of those that the scores choose."""
        wanted = self.config.layer_choices > 1 and shape.num_hidden_layers < self.teacher.num_hidden_layers
        return self.workshop.layer_choices(shape)[1 : self.config.layer_choices] if wanted else []

    def first_rung(self, shapes: Sequence[Shape]) -> None:
        """Cut and recover some shapes for the first time."""
        names = self.add(shapes)
        self.measure(names, BEFORE)
        self.measure(names, 0)

    def evolve(self) -> None:
        """Fill the places that thinning left, generation by generation."""
        space, draw = self.workshop.space(self.teacher, fine=True), np.random.default_rng(self.config.seed)
        for left in range(self.config.generations, 0, -1):
            places = max(0, self.config.candidates - len(self.tried)) // left
            order = ranking(self.losses(0))
            parents = list({key_of(self.tried[name].shape): self.tried[name].shape for name in order}.values())
            best = parents[: max(2, len(parents) // 2)]
            known = {key_of(one.shape) for one in self.tried.values()}
            self.first_rung(self.fitting(breed(best, places, space, known, draw), places))

    def halve(self) -> int:
        """Give the better ones more, rung by rung. Returns the last rung."""
        sizes = rung_sizes(len(self.tried), self.config.eta, self.config.rungs)
        going = list(self.tried)
        for rung in range(1, len(sizes)):
            stay = survivors({name: self.losses(rung - 1)[name] for name in going}, self.config.eta)
            self.forget([name for name in going if name not in stay], len(sizes))
            self.measure(stay, rung)
            self.forget(stay, rung)
            going = stay
        self.forget(going, len(sizes))
        return len(sizes) - 1

    def forget(self, names: Sequence[str], rung: int) -> None:
        """Let go of weights that nobody goes on from; what was measured stays."""
        distributed.wait()
        if distributed.rank() == 0:
            for name in names:
                self.workshop.forget(self.tried[name], rung)


def run(config: ShapeSearch, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Search, and write `search.json`; see `find`.

    Raises:
        RecipeError: No shape meets the budget.
        PrunusError: As cutting and training raise.
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
    """Search, and write `search.json`: every candidate with its figures and losses, the order of every rung, the best.

    Args:
        config: The options.
        workshop: Makes and measures candidates.
        teacher: The shape that is cut.
        scores: The record of the teacher's scores, by which too many shapes are thinned; None takes them in turn.
        out: The folder to write to.
        console: Told what is found.

    Returns:
        How many shapes are in the budget, how many candidates were tried, the best one's loss after the last rung, and
        how the ranking before recovery compares: its rank correlation with the last, and what following it costs.

    Raises:
        RecipeError: No shape meets the budget.
    """
    shapes = workshop.space(teacher).all()
    search, order = _Search(config, workshop, console, teacher), in_turn(teacher, shapes, scores)
    first = search.fitting(order, config.candidates)
    evolves = len(first) < len(shapes) and config.generations > 0
    if evolves:
        first = search.fitting(order, config.candidates - config.candidates // 2)
    first = first or order[:1]  # which may be more candidates than were asked for
    console.say(f"{len(shapes)} shapes meet the budget; {len(first)} of them are tried first")
    search.first_rung(first)
    if evolves:
        search.evolve()
    last = search.halve()
    found = _found(search, last, shapes)
    if distributed.rank() == 0:
        replace_json(out / FOUND, found)
    console.say(f"best: {found['best']['name']}")
    facts = {
        "shapes": len(shapes),
        "candidates": len(search.tried),
        "loss": found["best"]["loss"],
        "settled_at_tokens": found["settled_at_tokens"],
        "regret_before_recovery": found["before"]["regret"],
    }
    told = found["before"]["rank_correlation"]
    return facts if told is None else {**facts, "correlation_before_recovery": told}


def _found(search: _Search, last: int, shapes: Sequence[Shape]) -> dict[str, Any]:
    """The record of a search: plain values for JSON."""
    config, workshop = search.config, search.workshop
    space = workshop.space(search.teacher)
    rungs = [search.losses(rung) for rung in range(last + 1)]
    before = search.losses(BEFORE)
    final = {name: losses[name] for losses in rungs for name in losses}  # of each the last that it has
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
