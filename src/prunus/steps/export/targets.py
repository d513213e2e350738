"""The kinds of files that a student may become: what each takes, refuses and costs, and the module that writes it.

A new format is an entry here, and a module with `export(formats, job, console)`, which returns the record of each
format: `file`, `nbytes` and how it agrees with the model.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunus.errors import RecipeError
from prunus.gguf.metadata import check_shape
from prunus.gguf.mixtures import TYPES, bytes_of
from prunus.gguf.vocabulary import read_vocabulary
from prunus.llamacpp import ggml
from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape

_HEADS = 16  # onnxruntime's attention wants head_dim in multiples of it
_OWN_CODE = ("gguf-q6_k", "gguf-q5_k_m", "gguf-q4_k_m")


def _nothing(*_: Any) -> None:
    """What a target refuses that has everything."""


@dataclass(frozen=True)
class Part:
    """A format that is a folder of its own, as its card describes it.

    Attributes:
        what: What it is, as the beginning of a sentence.
        library: What loads it, by the hub's `library_name`.
    """

    what: str
    library: str


@dataclass(frozen=True)
class Target:
    """A kind of files.

    Attributes:
        nbytes: For each of its formats, from a model's parameters to about how many bytes the file has.
        needs: The modules that it takes; the extra that brings them has the target's name.
        writer: The module with `export`.
        check: From config.json, a shape and the option's name; raises RecipeError for what it does not have.
        check_tokenizer: From the folder of a tokenizer and the size of a vocabulary; raises RecipeError.
        check_here: From a format and the option's name; raises RecipeError where it cannot be written on this machine.
        parts: Its formats that are folders of their own.
    """

    nbytes: Mapping[str, Callable[[int], int]]
    needs: tuple[str, ...]
    writer: str
    check: Callable[[Mapping[str, Any], Shape, str], None] = _nothing
    check_tokenizer: Callable[[Path, int], Any] = _nothing
    check_here: Callable[[str, str], None] = _nothing
    parts: Mapping[str, Part] = field(default_factory=dict)

    def export(self, *arguments: Any) -> dict[str, Any]:
        """See the top of the file."""
        found: dict[str, Any] = importlib.import_module(self.writer).export(*arguments)
        return found


def _check_onnx(config: Mapping[str, Any], shape: Shape, where: str) -> None:
    """Refuse what the builder or onnxruntime has not."""
    if not shape.family.onnx:
        known = ", ".join(name for name, family in FAMILIES.items() if family.onnx)
        raise RecipeError(
            f"{where}: onnxruntime-genai's builder has no {shape.family.model_type}; it has {known}. What works: "
            "torchao-int8, or the plain folder"
        )
    if shape.head_dim % _HEADS:
        raise RecipeError(
            f"{where}: head_dim is {shape.head_dim}, and onnxruntime's attention wants a multiple of {_HEADS}. What "
            "works: gguf, torchao-int8, or the plain folder"
        )


def _check_quantiser(name: str, where: str) -> None:
    if name in _OWN_CODE and not ggml.can_quantise():
        allowed = ", ".join(known for known in TYPES if known not in _OWN_CODE)
        raise RecipeError(
            f"{where}: {name} needs llama.cpp's own quantiser, and xllamacpp exports none on this system; allowed "
            f"here: {allowed}"
        )


def _times(width: float) -> Callable[[int], int]:
    """Bytes of a model whose parameters take so many each."""
    return lambda parameters: int(parameters * width)


def _gguf_bytes(name: str) -> Callable[[int], int]:
    return lambda parameters: bytes_of(name, parameters)


TARGETS = {
    "gguf": Target(
        nbytes={name: _gguf_bytes(name) for name in TYPES},
        needs=("gguf", "xllamacpp"),
        writer="prunus.steps.export.proof",
        check=check_shape,
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
"""By the first part of their formats' names."""

FORMATS = {name: target for target in TARGETS.values() for name in target.nbytes}
"""The target of each format."""


def by_target(formats: Iterable[str]) -> dict[str, list[str]]:
    """Formats by the name of their target."""
    found = {kind: [name for name in formats if name in target.nbytes] for kind, target in TARGETS.items()}
    return {kind: names for kind, names in found.items() if names}


def check_formats(formats: Iterable[str], where: str) -> None:
    """Refuse formats whose tools are not here; nothing is loaded for it.

    Args:
        formats: Such as `gguf-q4_k_m`.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the one, and how to get it.
    """
    for name in formats:
        for module in FORMATS[name].needs:
            if importlib.util.find_spec(module) is None:
                extra = name.partition("-")[0]
                raise RecipeError(
                    f"{where}: {name} needs {module}, which is not installed; `pip install 'prunus[{extra}]'`"
                )
        FORMATS[name].check_here(name, where)
