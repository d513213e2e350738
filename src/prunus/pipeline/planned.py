"""What a plan is."""

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
    """A recipe made ready: steps in an order in which they can be done, and the shapes that they lead to.

    Attributes:
        references: The shapes of the other models that are measured, by their steps' subject.
        missing: What a preview could not look at, since the hub has it and cannot be reached.
        waiting: The students whose shape the search decides, and has not yet; none of their steps is among these.
        rest: Makes the plan anew when it has; None where nothing waits.
        previews: What was seen of chat data, each source once.
        origin: What the GGUF file says of itself that the teacher is in; empty for another teacher.
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
    origin: Mapping[str, Any] = field(default_factory=dict)
