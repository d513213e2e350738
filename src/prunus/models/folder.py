"""A Hugging Face model folder: config, tensor headers, tokenizer files, and what follows from them."""

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
from prunus.models.axes import TIED
from prunus.models.checkpoint import DTYPES, TensorInfo, read_tensors, same_bytes
from prunus.models.compatible import make_compatible, with_older_names
from prunus.models.families.family import Family
from prunus.models.families.table import family_of, in_plain_keys
from prunus.models.foreign import check_names, check_no_adapter, has_weights
from prunus.models.settings import check_token_ids
from prunus.models.shape import Shape
from prunus.models.texts import check_text, read_model_json, read_optional_json

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
"""The files that a student copies from its teacher unchanged."""


NEST, NORMS = "nest.json", "nest.safetensors"
"""The files that make the checkpoint of a nest's largest size a nest; see `nest`."""


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model folder; of its weights only headers are read."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json.

        Raises:
            ModelError: The folder or the file is missing, the file is not a JSON object, or there is an adapter.
        """
        file = self.path / "config.json"
        if not self.path.is_dir():
            raise ModelError(f"{self.path}: there is no such folder")
        check_no_adapter(self.path)
        if not file.is_file():
            raise ModelError(f"{self.path}: not a model folder: there is no config.json")
        return in_plain_keys(read_model_json(file))

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
        """Its context length in tokens."""
        return self.shape.max_position_embeddings

    @property
    def has_weights(self) -> bool:
        """Whether there are files of weights, in any format."""
        return has_weights(self.path)

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Its tensors by name, from headers."""
        return read_tensors(self.path)

    @cached_property
    def weights(self) -> dict[str, TensorInfo]:
        """Its tensors that are weights, by their full names in the family's table.

        A copy of a tied head is left out, as by loaders, after comparing it with the embedding in pieces.

        Raises:
            ModelError: Two tensors are the same weight; or the config ties the head, but its values differ from the
                embedding's, so that loaders do not tie it.
        """
        result: dict[str, TensorInfo] = {}
        heads: list[tuple[str, TensorInfo]] = []
        for name, info in self.tensors.items():
            place = self.family.place(name)
            if self.family.ignores(name, self.shape.num_hidden_layers):
                continue
            weight = name if place is None else self.family.name_of(place.key, place.layer, place.expert)
            if place is not None and place.weight.condition == TIED and not place.weight.exists(self.shape.flags):
                heads.append((weight, info))
            elif weight in result:
                raise ModelError(f"{self.path}: {result[weight].name} and {name} are the same weight, {weight}")
            else:
                result[weight] = info
        for weight, info in heads:
            self._check_tied(info, result.get(self.family.tied_to(weight)))
        return result

    @property
    def ignored(self) -> list[str]:
        """Weights that transformers ignores, such as those that predict further tokens; without old buffers."""
        family, layers = self.family, self.shape.num_hidden_layers
        return [name for name in self.tensors if family.ignores(name, layers) and not name.endswith(family.buffers)]

    @property
    def dtype(self) -> str:
        """The dtype of most of its bytes, by the format's name, such as `BF16`."""
        totals: dict[str, int] = {}
        for info in self.weights.values():
            totals[info.dtype] = totals.get(info.dtype, 0) + info.nbytes
        return max(totals, key=lambda dtype: totals[dtype])

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(info.nbytes for info in self.tensors.values())

    def check(self) -> None:
        """Compare the folder with the table: no weight missing or unknown, all of the expected shape and floating.

        Also reads tokenizer and generation config, so that a broken file is reported before a student is made.

        Raises:
            ModelError: The message names the broken file, or the first weight that is missing, unknown, or of another
                shape or dtype.
        """
        for file in matching(self.path, (*TOKENIZER, "generation_config.json")):
            check_text(file)
        generation = self.path / "generation_config.json"
        check_token_ids(read_optional_json(generation), str(generation))
        shape = self.shape  # first: an error in config.json says more than one about weights
        check_names(self.tensors, str(self.path))
        check_weights(self.weights, shape, self.path)

    def _check_tied(self, head: TensorInfo, embedding: TensorInfo | None) -> None:
        if embedding is None or not same_bytes(head, embedding):
            raise ModelError(
                f"{self.path}: config.json ties the head to the embedding (tie_word_embeddings is true or unset), "
                f"but {head.name} holds other values, which transformers then keeps; write "
                "`tie_word_embeddings: false` into config.json, or remove that tensor if it is stale"
            )

    def fingerprint(self) -> str:
        """A digest of config, tokenizer and weights, and of what makes it a nest, independent of the folder's path."""
        weights = {info.file for info in self.tensors.values()}
        config = self.path / "config.json"
        return fingerprint_files([config, *weights, *matching(self.path, (*TOKENIZER, NEST, NORMS))])

    def tokenizer_fingerprint(self) -> str:
        """A digest of the tokenizer, and of config.json's `eos_token_id`.

        Raises:
            ModelError: The folder has no tokenizer.
        """
        files = matching(self.path, TOKENIZER)
        if not files:
            raise ModelError(f"{self.path}: there is no tokenizer (tokenizer.json or the like)")
        return digest([fingerprint_files(files), self.config.get("eos_token_id")])


@dataclass(frozen=True)
class PlannedFolder(ModelFolder):
    """A folder that does not exist yet: its future config and headers.

    Attributes:
        path: Its future path.
        source: The config.json of the model that it is pruned from; sizes and per-layer lists are cut to `dimensions`.
        dimensions: The shape.
        stored: The dtype of its weights, by the format's name.
    """

    source: Mapping[str, Any]
    dimensions: Shape
    stored: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        layers = self.dimensions.num_hidden_layers
        names = (*self.dimensions.family.lists, "layer_types")
        lists = {key: self.source[key][:layers] for key in names if isinstance(self.source.get(key), list)}
        if self.dimensions.pattern:
            lists[self.dimensions.family.pattern] = list(self.dimensions.pattern)
        return {**self.source, **self.dimensions.config_values(self.source), **lists}

    @property
    def family(self) -> Family:
        """Its family."""
        return self.dimensions.family

    @property
    def shape(self) -> Shape:
        """Its dimensions."""
        return self.dimensions

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """Its tensors by name."""
        return {name: TensorInfo(name, self.stored, size, self.path, 0) for name, size in self.shape.tensors()}


def check_weights(weights: Mapping[str, TensorInfo], shape: Shape, where: Path) -> None:
    """Compare weights with what a config implies: none missing or unknown, all of the expected shape and floating.

    Raises:
        ModelError: The message names the first weight that is missing, unknown, or of another shape or dtype.
    """
    remaining = dict(weights)
    for name, size in shape.tensors():  # lazily: a wrong config may imply any number of tensors
        info = remaining.pop(name, None)
        if info is None:
            raise ModelError(f"{where}: the weight {name} is missing; its config implies shape {size}")
        if info.shape != size:
            raise ModelError(f"{where}: {name} is {list(info.shape)}; its config implies {list(size)}")
        if info.dtype not in DTYPES.values():
            raise ModelError(
                f"{where}: {name} is of type {info.dtype}, where a {shape.family.name} has floating weights "
                f"({', '.join(DTYPES.values())}); a quantised checkpoint, or damaged"
            )
    for name in sorted(remaining):
        raise ModelError(f"{where}: the weight {name} is not one that a {shape.family.name} with this config has")


def has_chat_template(folder: Path) -> bool:
    """Whether a folder's tokenizer has a chat template, in a separate file or in its config."""
    if matching(folder, ("chat_template*",)):
        return True
    return bool(read_optional_json(folder / "tokenizer_config.json").get("chat_template"))


def shape_of_file(file: Path) -> Shape:
    """The shape described by a config.json, whatever the file's name.

    Raises:
        ModelError: It cannot be read, or its family is unknown.
    """
    config = read_model_json(file)
    return Shape.from_config(config, family_of(config, str(file)), str(file))


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files in `folder` that match any of `patterns`, sorted, without duplicates."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def copy_along(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, generation config and licences, but no code, from one folder to another."""
    for file in matching(source, ALONG):
        if file.suffix == ".py":
            continue
        shutil.copyfile(file, target / file.name)
    make_compatible(target)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json in transformers' format, with the keys for older readers added."""
    text = json.dumps(with_older_names(config), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
