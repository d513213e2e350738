"""The origin of a folder: the GGUF file's name, digest and metadata; for model cards and readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from prunus.files import replace_json, replace_text
from prunus.llamacpp.reading import GgufFile
from prunus.yaml12 import dump_yaml

ORIGIN, CARD = "gguf.json", "README.md"
_METADATA = (
    "name",
    "author",
    "organization",
    "license",
    "license.name",
    "license.link",
    "url",
    "repo_url",
    "source.url",
)


def origin_of(file: GgufFile, digest: str) -> dict[str, Any]:
    """The record of a folder's origin.

    Args:
        file: The file.
        digest: The digest of its content.
    """
    types = Counter(tensor.type_name for tensor in file.tensors.values())
    metadata = {key: file.keys.get(f"general.{key}") for key in _METADATA}
    return {
        "file": file.path.name,
        "bytes": sum(part.stat().st_size for part in file.files),
        "xxh3": digest,
        "architecture": file.architecture,
        "types": dict(sorted(types.items())),
        **{key: str(value) for key, value in metadata.items() if value},
    }


def write_origin(folder: Path, origin: dict[str, Any]) -> None:
    """Write the origin as `gguf.json`, and a model card with the licence that the file names."""
    replace_json(folder / ORIGIN, origin)
    front = {"license": "license", "license_name": "license.name", "license_link": "license.link"}
    licence = {key: origin[name] for key, name in front.items() if name in origin}
    metadata = {"library_name": "transformers", "pipeline_tag": "text-generation", **licence}
    types = ", ".join(f"{count} {name}" for name, count in origin["types"].items())
    text = (
        f"---\n{dump_yaml(metadata)}---\n\n# {origin.get('name', origin['file'])}\n\n"
        f"Made by Prunus from the GGUF file `{origin['file']}` ({origin['bytes']} bytes, xxh3 {origin['xxh3']}; "
        f"tensors: {types}). Its values are the file's: what quantisation lost is not restored.\n"
    )
    replace_text(folder / CARD, text)
