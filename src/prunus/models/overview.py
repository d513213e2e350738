"""What works with each family, by its table: the list of `prunus families`, and the first table of docs/families.md."""

from __future__ import annotations

from typing import Any

from prunus.models.families.family import Family
from prunus.models.families.table import FAMILIES
from prunus.models.positions import SCALABLE_ROPES, rope_types
from prunus.models.shape import PRUNABLE

HEADER = ("family", "`model_type`", "models", "not cut", "rotated", "refitted", "GGUF", "ONNX", "particulars")


def overview() -> list[dict[str, Any]]:
    """What works with each family, in alphabetical order of their names.

    Returns:
        For each family: `family` and `model_type`; `models`, published ones; `cuts`, the sizes that pruning can reduce
        in a model with the family's default positions; `heads_with_hidden_size`, whether heads go with the channels;
        `rotation`, see `Family.rotation`; `refit`, whether linear layers can be refitted; `gguf`, llama.cpp's name of
        the architecture, or None; `onnx`, whether onnxruntime-genai's builder has it; and `about`, its particulars.
    """
    return [_row(family) for family in sorted(FAMILIES.values(), key=lambda family: family.name.lower())]


def markdown() -> str:
    """The overview as the table of docs/families.md."""
    rows = [HEADER, ("---",) * len(HEADER), *(cells(row) for row in overview())]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of `overview` in words, under `HEADER`."""
    apart = [] if "head_dim" in row["cuts"] else ["head_dim"]
    apart += ["heads without hidden_size"] if row["heads_with_hidden_size"] else []
    rotated = {"always": "yes", "untied": "if the head is untied", "never": "no"}[row["rotation"]]
    return (
        row["family"],
        f"`{row['model_type']}`",
        row["models"],
        ", ".join(apart),
        rotated,
        _yes(row["refit"]),
        row["gguf"] or "no",
        _yes(row["onnx"]),
        row["about"],
    )


def _row(family: Family) -> dict[str, Any]:
    scalable = family.rotary is None or rope_types({}, family.rotary) <= SCALABLE_ROPES
    scalable = scalable and not family.latent
    lacking = {*family.lacking, *(() if scalable else ("head_dim",))}
    return {
        "family": family.name,
        "model_type": family.model_type,
        "models": family.models,
        "cuts": [size for size in PRUNABLE if size not in lacking],
        "heads_with_hidden_size": family.square,
        "rotation": family.rotation,
        "refit": bool(family.feeds),
        "gguf": family.gguf.architecture if family.gguf else None,
        "onnx": family.onnx,
        "about": family.about,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
