"""Licences of models by their names on the hub, and their conditions for sharing a derived model.

A summary: the text of each licence prevails, and nothing here is legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError
from prunus.yaml12 import parse_yaml

_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(\r?\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Licence:
    """A licence, and its conditions for a model derived from one under it.

    Attributes:
        identifier: Its name on the hub, such as `llama3.1`; empty if unknown.
        title: Its common name.
        obligations: Its conditions, one sentence each.
        prefix: The required beginning of a derived model's name.
        notice: The notice that must be displayed with the model.
        name: The hub's `license_name`, if the identifier is `other`.
        link: The hub's `license_link`.
    """

    identifier: str
    title: str
    obligations: tuple[str, ...] = ()
    prefix: str = ""
    notice: str = ""
    name: str = ""
    link: str = ""

    def metadata(self) -> dict[str, str]:
        """Its entries in a model card's YAML."""
        result = {"license": self.identifier, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in result.items() if value}


def _llama(version: str) -> Licence:
    return Licence(
        f"llama{version}",
        f"Llama {version} Community License",
        (
            'Display "Built with Llama" prominently where the model is made available.',
            'Begin the name of the model with "Llama".',
            "Pass on a copy of the licence and keep its attribution notice.",
            "Comply with Meta's Acceptable Use Policy.",
            "Request a licence from Meta if your products had over 700 million monthly active users at its release.",
        ),
        prefix="Llama",
        notice=(
            f"Built with Llama. Llama {version} is licensed under the Llama {version} Community License, "
            "Copyright © Meta Platforms, Inc. All Rights Reserved."
        ),
    )


KNOWN = {
    licence.identifier: licence
    for licence in (
        Licence(
            "apache-2.0",
            "Apache License 2.0",
            ("Pass on the licence and any NOTICE file.", "State that the files were changed."),
        ),
        Licence("mit", "MIT License", ("Pass on the copyright notice and the licence.",)),
        Licence(
            "llama2",
            "Llama 2 Community License",
            (
                "Pass on a copy of the licence and keep its attribution notice.",
                "Do not use the model or its outputs to improve other large language models.",
                "Comply with Meta's Acceptable Use Policy.",
            ),
            notice=(
                "Llama 2 is licensed under the LLAMA 2 Community License, Copyright © Meta Platforms, Inc. All Rights "
                "Reserved."
            ),
        ),
        *(_llama(version) for version in ("3", "3.1", "3.2", "3.3")),
        Licence(
            "gemma",
            "Gemma Terms of Use",
            (
                "Give every recipient a copy of the terms, including the use restrictions.",
                "State that the files were changed.",
            ),
            notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.",
        ),
        Licence(
            "cc-by-nc-4.0",
            "CC BY-NC 4.0",
            ("Credit the authors and state what was changed.", "No commercial use."),
        ),
        Licence("cc-by-4.0", "CC BY 4.0", ("Credit the authors and state what was changed.",)),
        Licence(
            "cc-by-sa-4.0",
            "CC BY-SA 4.0",
            ("Credit the authors and state what was changed.", "Share derivatives under the same licence."),
        ),
    )
}
UNKNOWN = Licence("", "not known")

_TEXTS = (
    (r"LLAMA 3\.3 COMMUNITY LICENSE", "llama3.3"),
    (r"LLAMA 3\.2 COMMUNITY LICENSE", "llama3.2"),
    (r"LLAMA 3\.1 COMMUNITY LICENSE", "llama3.1"),
    (r"(META )?LLAMA 3 COMMUNITY LICENSE", "llama3"),
    (r"LLAMA 2 COMMUNITY LICENSE", "llama2"),
    (r"Gemma Terms of Use", "gemma"),
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"\bMIT License\b|Permission is hereby granted, free of charge", "mit"),
)


def licence_named(metadata: Mapping[str, Any]) -> Licence:
    """The licence named in a model card's YAML. An unknown one keeps its name; its condition is to read its text."""
    identifier = metadata.get("license")
    if isinstance(identifier, list):
        identifier = identifier[0] if identifier else None
    if not isinstance(identifier, str) or not identifier:
        return UNKNOWN
    name, link = (str(metadata.get(key) or "") for key in ("license_name", "license_link"))
    known = KNOWN.get(identifier) or KNOWN.get(name)
    if known is not None:
        return known
    return Licence(
        identifier, name or identifier, ("Read its text: Prunus does not know its conditions.",), name=name, link=link
    )


def licence_of(folder: Path) -> Licence:
    """The licence of the model in a folder: from its model card, else from the text of its LICENSE file.

    A card with invalid YAML counts as one without a licence.
    """
    card = folder / "README.md"
    if card.is_file():
        try:
            result = licence_named(front_matter(card))
        except RecipeError:
            result = UNKNOWN
        if result is not UNKNOWN:
            return result
    for file in sorted(folder.glob("LICENSE*")):
        text = file.read_text(encoding="utf-8", errors="replace")
        for pattern, identifier in _TEXTS:
            if re.search(pattern, text, re.IGNORECASE):
                return KNOWN[identifier]
    return UNKNOWN


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the top of a model card; empty if there is none.

    Raises:
        RecipeError: It is invalid or not a mapping; the message names the line.
    """
    match = _FRONT.match(card.read_text(encoding="utf-8-sig", errors="replace"))
    if not match:
        return {}
    result = parse_yaml(match[1], RecipeError, str(card), before=1)
    if result is None:
        return {}
    if not isinstance(result, dict):
        raise RecipeError(f"{card}: its YAML holds {type(result).__name__}; expected a mapping")
    return result
