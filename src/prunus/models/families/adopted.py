"""Model types without a family that are cut by another's table, after `prunus inspect --family` checked that they can.

They are listed in a file of the cache, for this machine: `families.json`, model_type -> the family's model_type and the
class in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from prunus.files import cache_folder, read_cache, write_cache
from prunus.models.families.family import Family


def adopted_file() -> Path:
    """The file that lists them."""
    return cache_folder() / "families.json"


def renamed(family: Family, model_type: str, class_name: str) -> Family:
    """A family's table for models of another type; what is known of its export does not hold for them."""
    return replace(
        family,
        name=f"{model_type} (by the table of {family.name})",
        model_type=model_type,
        class_name=class_name,
        models="",
        about="",
        gguf=None,
        onnx=False,
    )


def adopt(family: Family, model_type: str, class_name: str) -> None:
    """Cut models of a type by a family's table from now on."""
    write_cache(adopted_file(), {**read_cache(adopted_file()), model_type: [family.model_type, class_name]})


def adopted(model_type: str, families: Mapping[str, Family]) -> Family | None:
    """The family by whose table models of a type are cut; None if none was adopted."""
    match read_cache(adopted_file()).get(model_type):
        case [str(like), str(class_name)] if like in families:
            return renamed(families[like], model_type, class_name)
    return None
