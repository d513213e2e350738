"""Nests of tiny teachers, and their sizes written out."""

from pathlib import Path
from typing import Any

from prunus.models.between import norms_between
from prunus.models.families.table import FAMILIES
from prunus.models.folder import ModelFolder
from prunus.models.nest import Nested, read_nest, write_size
from tests.cutting import prune

NESTING = [name for name, family in FAMILIES.items() if family.nests]
THREE = {"num_hidden_layers": 4, "intermediate_size": 20}, {"intermediate_size": 16, "num_hidden_layers": 3}


def sizes_of(teacher: Path) -> dict[str, dict[str, int]]:
    """Three sizes, which between them cut every axis that the family allows."""
    shape = ModelFolder(teacher).shape
    large: dict[str, int] = {"hidden_size": 32 if shape.family.square else 24, **THREE[0]}
    small: dict[str, int] = {"hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2}
    if not shape.family.square:
        groups = shape.num_key_value_heads < shape.num_attention_heads
        small |= {"num_key_value_heads": 1, **({"num_attention_heads": 1} if groups else {})}
        large |= {"num_attention_heads": shape.num_attention_heads} if groups else {}
    if shape.num_experts:
        large, small = {**large, "num_experts": 5}, {**small, "num_experts": 3}
    return {"small": small, "large": large, "medium": {**large, **THREE[1]}}


def cut(teacher: Path, out: Path, scores: Path, **options: Any) -> Path:
    """A student or a nest, without any fit."""
    common = {"importance": "activation", "drop_layers": "single", "heal": "none", "method": "minitron"}
    return prune(teacher, out, scores, **{**common, **options})


def written(nest: Path, size: Nested, out: Path) -> Path:
    """One size of a nest as a folder."""
    out.mkdir(parents=True)
    found = read_nest(nest)
    write_size(found, size, norms_between(found, size), out)
    ModelFolder(out).check()
    return out
