"""Options of chat in the terminal."""

from __future__ import annotations

from pydantic import Field

from prunus.config import Config, Seed


class ChatConfig(Config):
    """How a model answers in the terminal."""

    system: str | None = None
    """System message at the start of the conversation."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature. 0: greedy decoding."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling: sample from the most likely tokens that together have this probability."""
    context: int = Field(default=0, ge=0)
    """Context length for a GGUF file, in tokens. 0: the model's maximum."""
    seed: Seed = 0
    """Seed of sampling."""
