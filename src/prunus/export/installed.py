"""What is installed of what the formats need, found without loading any of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from prunus.errors import RecipeError
from prunus.llamacpp import ggml

NEEDED = {"gguf": ("gguf", "xllamacpp")}
"""For each kind of format the modules that it needs; the extra that brings them has its name."""

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
