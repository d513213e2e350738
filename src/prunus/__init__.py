"""Prunus makes a small language model out of a large one. The public names are loaded on first use."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Console": "prunus.console",
    "ModelFolder": "prunus.models.folder",
    "PrunusError": "prunus.errors",
    "Recipe": "prunus.pipeline.recipe",
    "Runtime": "prunus.runtime",
    "Shape": "prunus.models.shape",
    "load_recipe": "prunus.pipeline.recipe",
    "make_plan": "prunus.pipeline.plan",
    "run_plan": "prunus.pipeline.run",
    "write_report": "prunus.report.step",
}

_VERBS = (
    "score", "search", "prune", "generate", "correct", "distill", "cutout", "align", "merge", "evaluate", "export",
    "convert",
)  # fmt: skip
"""The commands of one step, as functions."""
_HOMES |= dict.fromkeys(_VERBS, "prunus.verbs")

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first access."""
    if name not in _HOMES:
        raise AttributeError(f"module 'prunus' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
