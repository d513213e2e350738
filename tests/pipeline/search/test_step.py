"""The step: how many candidates are made of the places there are."""

import json
from pathlib import Path
from typing import Any

import pytest

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.shape import Shape
from prunus.pipeline.search.candidates import Candidate
from prunus.pipeline.search.config import RECORD, SearchConfig
from prunus.pipeline.search.space import Space
from prunus.pipeline.search.step import find
from tests.pipeline.search.making import space_of


class Sized:
    """Candidates that lose as much as they are small, with three choices of the layers that go."""

    def __init__(self, teacher: Shape) -> None:
        self.teacher = teacher

    def space(self, teacher: Shape, fine: bool = False) -> Space:
        return space_of("non-embedding <= 50%", teacher, within=0.2)

    def layer_choices(self, shape: Shape) -> list[tuple[int, ...]]:
        gone = self.teacher.num_hidden_layers - shape.num_hidden_layers
        return [tuple(range(first, first + gone)) for first in range(min(3, shape.num_hidden_layers + 1))]

    def tokens(self, rung: int) -> int:
        return rung + 1

    def measure(self, candidate: Candidate, rung: int) -> dict[str, dict[str, float]]:
        return {"kl": {"value": 1 / candidate.shape.parameters + 1e-9 * sum(candidate.dropped)}}

    def remove_weights(self, candidate: Candidate, rung: int) -> None:
        pass

    def sizes(self, candidate: Candidate) -> dict[str, Any]:
        return {"prune": {"drop_layers": candidate.dropped}}


@pytest.mark.parametrize("generations", [0, 2])
@pytest.mark.parametrize("options", [{}, {"layer_choices": 3}, {"ways": ["once", "depth_first", "halfway"]}])
@pytest.mark.parametrize("places", [2, 7, 16])
def test_candidates_take_the_places_and_no_more(
    teacher: Path, tmp_path: Path, generations: int, options: dict[str, Any], places: int
) -> None:
    config = SearchConfig(budget="non-embedding <= 50%", candidates=places, generations=generations, **options)
    shape = ModelFolder(teacher).shape
    find(config, Sized(shape), shape, None, tmp_path, Console(quiet=True))
    tried = json.loads((tmp_path / RECORD).read_text())["candidates"]
    dearest = 1 if not options else 3  # what the first shape takes, even where that is more than the places
    assert len(tried) <= max(places, dearest)
    assert len(tried) > places - dearest - (generations > 0)  # a share that is too small for a shape stays empty
