"""Options of talking to a model."""

from __future__ import annotations

from pydantic import Field

from prunus.config import Config, Seed


class ChatConfig(Config):
    """How a model answers in the terminal."""

    system: str | None = None
    """What it is told before the conversation."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Tokens of an answer, at most."""
    temperature: float = Field(default=0.7, ge=0)
    """What logits are divided by before a token is drawn; 0 takes the likeliest."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability."""
    context: int = Field(default=0, ge=0)
    """The longest conversation with a GGUF file, in tokens; 0 for what the model was made for."""
    seed: Seed = 0
    """Seed of the draws."""
