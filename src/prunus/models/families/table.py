"""The table of families: every module of this folder that has a `FAMILY`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

from prunus.errors import ModelError, among
from prunus.models import families
from prunus.models.families.adopted import adopted
from prunus.models.families.family import Family
from prunus.models.foreign import check_plain, describe_unknown
from prunus.models.settings import check_settings


def find_families() -> Iterator[Family]:
    """The `FAMILY` of each module that has one, in alphabetical order of the modules."""
    for module in sorted(info.name for info in pkgutil.iter_modules(families.__path__)):
        family = getattr(importlib.import_module(f"{families.__name__}.{module}"), "FAMILY", None)
        if family is not None:
            yield family


FAMILIES: dict[str, Family] = {family.model_type: family for family in find_families()}
"""By `model_type`."""


def in_plain_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json in the keys that its family's table is read by; see `Family.plain`."""
    family = FAMILIES.get(str(config.get("model_type")))
    return config if family is None else family.plain(config)


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family of a model's config.json.

    Args:
        config: The contents of config.json.
        where: The folder, for the message.

    Raises:
        ModelError: Its `model_type` has no family, its weights are quantised, or it is an unsupported variant.
    """
    model_type = config.get("model_type")
    if not model_type or not isinstance(model_type, str):
        raise ModelError(f"{where}: config.json names no model_type")
    check_plain(config, where)
    if model_type in FAMILIES:
        check_settings(in_plain_keys(dict(config)), FAMILIES[model_type], where)
        return FAMILIES[model_type]
    if (family := adopted(model_type, FAMILIES)) is not None:
        check_settings(config, family, where)
        return family
    foreign = describe_unknown(config)
    raise ModelError(
        f"{where}: no axis table for model_type {model_type!r:.80}"
        + (f": {foreign}" if foreign else among(model_type, FAMILIES, everything="docs/families.md"))
    )
