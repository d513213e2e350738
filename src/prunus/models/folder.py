"""A model folder as anyone's loader sees it: config, headers, the files that go along, and what they amount to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prunus.errors import ModelError
from prunus.fingerprint import digest, fingerprint_files
from prunus.models.axes import Family
from prunus.models.checkpoint import TensorInfo, read_tensors
from prunus.models.compatible import make_compatible, with_older_names
from prunus.models.families import family_of
from prunus.models.shape import Shape

TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
ALONG = (*TOKENIZER, "generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")
"""What a student takes over from its teacher unchanged."""

BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias")
"""Endings of tensors that old checkpoints hold and that are no weights."""


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model folder, read as far as headers."""

    path: Path

    @classmethod
    def to_be(cls, path: Path, config: Mapping[str, Any], shape: Shape, dtype: str | None = None) -> ModelFolder:
        """A folder as it will be: what headers will say of a shape, before there are any weights.

        Args:
            path: Where it would stand.
            config: The config.json of what it is cut from; its sizes and per-layer lists are cut to the shape's.
            shape: The dimensions.
            dtype: The type of its weights, by the format's name; None where nobody asks for them.
        """
        folder, layers = cls(path), shape.num_hidden_layers
        lists = [key for key in (*shape.family.lists, "layer_types") if isinstance(config.get(key), list)]
        settings = {**config, **shape.config_values(config), **{key: config[key][:layers] for key in lists}}
        folder.__dict__.update(config=settings, family=shape.family, shape=shape)
        if dtype is not None:
            tensors = {name: TensorInfo(name, dtype, size, path, 0) for name, size in shape.tensors()}
            folder.__dict__["tensors"] = tensors
        return folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json.

        Raises:
            ModelError: The folder or the file is missing, or is not a JSON object.
        """
        file = self.path / "config.json"
        if not self.path.is_dir():
            raise ModelError(f"{self.path}: there is no such folder")
        if not file.is_file():
            raise ModelError(f"{self.path}: not a model folder: there is no config.json")
        try:
            config = json.loads(file.read_text())
        except ValueError as error:
            raise ModelError(f"{file}: not JSON: {error}") from None
        if not isinstance(config, dict):
            raise ModelError(f"{file}: holds {type(config).__name__}, not an object")
        return config

    @cached_property
    def family(self) -> Family:
        """The axis table of this model."""
        return family_of(self.config, str(self.path))

    @cached_property
    def shape(self) -> Shape:
        """Its dimensions."""
        return Shape.from_config(self.config, self.family, str(self.path))

    @property
    def context(self) -> int:
        """The longest context that it was made for, in tokens."""
        return self.shape.max_position_embeddings

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Its tensors by name, from the headers alone."""
        return read_tensors(self.path)

    @cached_property
    def weights(self) -> dict[str, TensorInfo]:
        """Those of its tensors that are weights, by their names in the family's table."""
        named = ((self._canonical(name), info) for name, info in self.tensors.items())
        return {name: info for name, info in named if name is not None}

    @property
    def dtype(self) -> str:
        """The type that most of its bytes are in, by the format's name, such as `BF16`."""
        totals: dict[str, int] = {}
        for info in self.tensors.values():
            totals[info.dtype] = totals.get(info.dtype, 0) + info.nbytes
        return max(totals, key=lambda dtype: totals[dtype])

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(info.nbytes for info in self.tensors.values())

    def check(self) -> None:
        """Hold the headers against the table: every weight there, none unknown, each of its shape.

        Raises:
            ModelError: Names the first weight that is missing, unknown or of another shape.
        """
        expected = dict(self.shape.tensors())
        found = {name: info.shape for name, info in self.weights.items()}
        for name in sorted(expected.keys() - found.keys()):
            raise ModelError(f"{self.path}: the weight {name} is missing; its config asks for {expected[name]}")
        for name in sorted(found.keys() - expected.keys()):
            raise ModelError(
                f"{self.path}: the weight {name} is not one that a {self.family.name} with this config has"
            )
        for name, shape in found.items():
            if shape != expected[name]:
                raise ModelError(f"{self.path}: {name} is {list(shape)}; its config asks for {list(expected[name])}")

    def _canonical(self, name: str) -> str | None:
        """The table's name for a tensor, or None for one that loaders drop: a tied head's copy, an old buffer."""
        place = self.family.place(name)
        if place is None:
            return None if name.endswith(BUFFERS) else name
        exists = place.weight.exists(self.shape.flags)
        return self.family.name_of(place.key, place.layer, place.expert) if exists else None

    def fingerprint(self) -> str:
        """A digest of config, tokenizer and weights: the same for a copy elsewhere, another for another model."""
        weights = {info.file for info in self.tensors.values()}
        config = self.path / "config.json"
        return fingerprint_files([config, *weights, *matching(self.path, TOKENIZER)])

    def tokenizer_fingerprint(self) -> str:
        """A digest of the tokenizer, and of the end of a text that config.json names.

        Raises:
            ModelError: The folder has no tokenizer.
        """
        files = matching(self.path, TOKENIZER)
        if not files:
            raise ModelError(f"{self.path}: there is no tokenizer (tokenizer.json or the like)")
        return digest([fingerprint_files(files), self.config.get("eos_token_id")])


def has_chat_template(folder: Path) -> bool:
    """Whether a folder's tokenizer has a chat template: in a file of its own, or in its config."""
    if matching(folder, ("chat_template*",)):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def shape_of_file(file: Path) -> Shape:
    """The shape that a config.json of any name tells of.

    Raises:
        ModelError: It cannot be read, or is of no known family.
    """
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as a config.json: {error}") from None
    return Shape.from_config(config, family_of(config, str(file)), str(file))


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files of `folder` that match any of `patterns`, sorted, each once."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def copy_along(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, generation config and licences from one model folder to another."""
    for file in matching(source, ALONG):
        shutil.copyfile(file, target / file.name)
    make_compatible(target)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json as transformers does: two spaces, sorted keys; with the names that older readers look for."""
    (folder / "config.json").write_text(json.dumps(with_older_names(config), indent=2, sort_keys=True) + "\n")
