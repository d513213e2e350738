"""The plan, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.data.preview import Preview
from prunus.graph.steps import Step
from prunus.models.shape import Shape
from prunus.pipeline.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """A recipe's steps in execution order, and the shapes of its models.

    Attributes:
        references: Shapes of the reference models, by subject of their steps.
        missing: What a preview could not check, because the hub cannot be reached.
        waiting: Students whose shape the search has yet to decide; `steps` has none of theirs.
        rest: Makes the full plan after the search; None if no student waits.
        previews: Previews of the chat data, one per source.
        nests: Shapes of the smaller sizes of each student that is a nest, by its name.
        origin: Metadata of the teacher's GGUF file; empty if the teacher is no GGUF file.
    """

    recipe: Recipe
    root: Path
    steps: tuple[Step, ...]
    teacher: Shape
    students: Mapping[str, Shape]
    references: Mapping[str, Shape]
    missing: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    rest: Callable[[], Plan] | None = None
    previews: tuple[Preview, ...] = ()
    nests: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
