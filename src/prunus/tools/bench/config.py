"""Options of the comparison of speeds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prunus.config import Config, Seed


class BenchConfig(Config):
    """How fast models read and write, side by side in one run."""

    prompt_tokens: int = Field(default=512, ge=1)
    """Tokens of the prompt that is read (prefill)."""
    new_tokens: int = Field(default=64, ge=1)
    """Tokens that are written after it, one after the other (decode)."""
    rounds: int = Field(default=7, ge=1)
    """Times that each model is measured, all of them in turn in each round, after one round that does not count."""
    engine: Literal["llama.cpp", "transformers"] = "llama.cpp"
    """What runs all of them. For llama.cpp a folder is first written as `format`; transformers takes folders alone."""
    format: Literal["gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_k_m"] = "gguf-f16"
    """What folders are written as for llama.cpp."""
    seed: Seed = 0
    """Seed of the prompt's tokens."""
