"""Options of the speed comparison."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from prunus.config import Config, Seed


class BenchConfig(Config):
    """Speed of several models, measured in one run."""

    prompt_tokens: int = Field(default=512, ge=1)
    """Prompt tokens to process (prefill)."""
    new_tokens: int = Field(default=64, ge=1)
    """Tokens to generate after the prompt (decode)."""
    rounds: int = Field(default=7, ge=1)
    """Rounds of measurement, after one that is not counted. Each round measures every model in turn."""
    engine: Literal["llama.cpp", "transformers"] = "llama.cpp"
    """Engine that runs all models. For llama.cpp, a folder is first converted to `format`; transformers runs folders
    only."""
    format: Literal["gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_k_m"] = "gguf-f16"
    """Format that folders are converted to for llama.cpp."""
    draft_lengths: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (2, 4, 8)
    """With a draft model: how many tokens it proposes at a time; each number is measured."""
    text_tokens: int = Field(default=8192, ge=2)
    """With a draft model: tokens of the text on which acceptance is measured."""
    seed: Seed = 0
    """Seed of the prompt's tokens."""

    @field_validator("draft_lengths")
    @classmethod
    def _some(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if not lengths or len(set(lengths)) < len(lengths):
            raise ValueError("expected different numbers, such as 2 4 8")
        return lengths
