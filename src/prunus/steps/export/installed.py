"""What is installed of what the formats need, and what onnxruntime has; found without loading any of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from prunus.errors import RecipeError
from prunus.llamacpp import ggml
from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape

NEEDED = {"gguf": ("gguf", "xllamacpp"), "onnx": ("onnx", "onnx_ir", "onnxruntime_genai"), "torchao": ("torchao",)}
"""For each kind of format the modules that it needs; the extra that brings them has its name."""

_HEADS = 16  # onnxruntime's attention wants head_dim in multiples of it
_OWN_CODE = ("gguf-q6_k", "gguf-q5_k_m", "gguf-q4_k_m")


def check_formats(formats: Iterable[str], where: str) -> None:
    """Refuse formats whose tools are not here.

    Args:
        formats: Such as `gguf-q4_k_m`.
        where: The name of the option, for messages.

    Raises:
        RecipeError: Names the one, and how to get it.
    """
    for name in formats:
        kind = name.partition("-")[0]
        for module in NEEDED[kind]:
            if importlib.util.find_spec(module) is None:
                raise RecipeError(
                    f"{where}: {name} needs {module}, which is not installed; `pip install 'prunus[{kind}]'`"
                )
        if name in _OWN_CODE and not ggml.can_quantise():
            raise RecipeError(
                f"{where}: {name} needs llama.cpp's own quantiser, and xllamacpp exports none on this system; allowed "
                "here: gguf-f32, gguf-f16, gguf-bf16, gguf-q8_0, gguf-q4_0"
            )


def check_onnx(shape: Shape, where: str) -> None:
    """Refuse what the builder or onnxruntime has not, before any work.

    Raises:
        RecipeError: Names it, and what would work.
    """
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
