"""The export targets: requirements, checks and cost of each, and the module that writes its files.

A new format is an entry here, and a module with `export(formats, job, console)`, which returns the record of each
format: `file`, `nbytes` and figures of its agreement with the model.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError
from prunus.gguf.metadata import check_planned
from prunus.gguf.mixtures import TYPES, bytes_of, needs_ggml
from prunus.gguf.vocabulary import read_vocabulary
from prunus.llamacpp import ggml
from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape

_HEADS = 16  # onnxruntime's attention needs head_dim in multiples of this


def _accept(*_: Any) -> None:
    """The check of a target that supports everything."""


@dataclass(frozen=True)
class Part:
    """Description of a format that is a folder, for its model card.

    Attributes:
        what: What it is, as the beginning of a sentence.
        library: The library that loads it, by the hub's `library_name`.
    """

    what: str
    library: str


@dataclass(frozen=True)
class Target:
    """A kind of files.

    Attributes:
        nbytes: For each of its formats, a function: parameters -> approximate bytes of the file.
        needs: The modules that it needs; the extra that installs them has the target's name.
        writer: The module with `export`.
        check: (config.json, shape, name of the option); raises RecipeError for an unsupported model.
        check_tokenizer: (folder of a tokenizer, vocabulary size); raises RecipeError for an unsupported tokenizer.
        check_here: (format, name of the option); raises RecipeError if it cannot be written on this machine.
        parts: Its formats that are folders.
    """

    nbytes: Mapping[str, Callable[[int], int]]
    needs: tuple[str, ...]
    writer: str
    check: Callable[[Mapping[str, Any], Shape, str], None] = _accept
    check_tokenizer: Callable[[Path, int], Any] = _accept
    check_here: Callable[[str, str], None] = _accept
    parts: Mapping[str, Part] = field(default_factory=dict)

    def export(self, *arguments: Any) -> dict[str, Any]:
        """Call the writer's `export`; see the module's docstring."""
        records: dict[str, Any] = importlib.import_module(self.writer).export(*arguments)
        return records


def _check_onnx(config: Mapping[str, Any], shape: Shape, where: str) -> None:
    """Refuse models that the builder or onnxruntime does not support."""
    if not shape.family.onnx:
        known = ", ".join(name for name, family in FAMILIES.items() if family.onnx)
        raise RecipeError(
            f"{where}: onnxruntime-genai's builder does not support {shape.family.model_type}; allowed: {known}. What "
            "works: torchao-int8, or the plain folder"
        )
    if shape.head_dim % _HEADS:
        raise RecipeError(
            f"{where}: head_dim is {shape.head_dim}; onnxruntime's attention needs a multiple of {_HEADS}. What "
            "works: gguf, torchao-int8, or the plain folder"
        )


def _check_quantiser(name: str, where: str) -> None:
    if needs_ggml(name) and not ggml.can_quantise():
        allowed = ", ".join(known for known in TYPES if not needs_ggml(known))
        raise RecipeError(
            f"{where}: {name} needs llama.cpp's quantiser, which xllamacpp does not export on this system; allowed "
            f"here: {allowed}"
        )


def _times(width: float) -> Callable[[int], int]:
    """A function: parameters -> bytes, at `width` bytes per parameter."""
    return lambda parameters: int(parameters * width)


def _gguf_bytes(name: str) -> Callable[[int], int]:
    return lambda parameters: bytes_of(name, parameters)


TARGETS = {
    "gguf": Target(
        nbytes={name: _gguf_bytes(name) for name in TYPES},
        needs=("gguf", "xllamacpp"),
        writer="prunus.steps.export.proof",
        check=check_planned,
        check_tokenizer=read_vocabulary,
        check_here=_check_quantiser,
    ),
    "onnx": Target(
        nbytes={"onnx-fp32": _times(4), "onnx-int4": _times(0.6)},
        needs=("onnx", "onnx_ir", "onnxruntime_genai"),
        writer="prunus.steps.export.onnx",
        check=_check_onnx,
        parts={
            "onnx-fp32": Part("The float32 ONNX form, for onnxruntime-genai,", "onnxruntime-genai"),
            "onnx-int4": Part("The ONNX form with 4-bit weights, for onnxruntime-genai,", "onnxruntime-genai"),
        },
    ),
    "torchao": Target(
        nbytes={"torchao-int8": _times(1)},
        needs=("torchao",),
        writer="prunus.steps.export.torchao",
        parts={
            "torchao-int8": Part(
                "The form with int8 weights (one scale a row), by torchao for transformers,", "transformers"
            ),
        },
    ),
}
"""Every target, by the first part of its formats' names."""

FORMATS = {name: target for target in TARGETS.values() for name in target.nbytes}
"""The target of each format."""


def by_target(formats: Iterable[str]) -> dict[str, list[str]]:
    """Formats by the name of their target."""
    found = {kind: [name for name in formats if name in target.nbytes] for kind, target in TARGETS.items()}
    return {kind: names for kind, names in found.items() if names}


def check_formats(formats: Iterable[str], where: str) -> None:
    """Refuse formats whose packages are not installed, without importing them.

    Args:
        formats: Such as `gguf-q4_k_m`.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the package, and how to install it.
    """
    for name in formats:
        for module in FORMATS[name].needs:
            if importlib.util.find_spec(module) is None:
                extra = name.partition("-")[0]
                raise RecipeError(
                    f"{where}: {name} needs {module}, which is not installed; `pip install 'prunus[{extra}]'`"
                )
        FORMATS[name].check_here(name, where)
