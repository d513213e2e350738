"""Options of a judge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Address, Config, Location


class JudgeConfig(Config):
    """A model that grades answers, at any server with OpenAI's chat API."""

    url: Address | None = None
    """Base URL, such as `https://api.openai.com/v1`. The API key is read from the environment variable
    PRUNUS_JUDGE_KEY."""
    model: str | None = None
    """The judge's model name at the server."""
    prompts: Location | None = None
    """File of judge prompts in MT-Bench's format, replacing the built-in ones. Published scores were made with
    FastChat's file of them."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest verdict, in tokens."""
    timeout: Annotated[float, RUNTIME] = Field(default=120.0, gt=0)
    """Seconds to wait for one complete verdict."""
    concurrency: Annotated[int, RUNTIME] = Field(default=8, ge=1)
    """Concurrent requests."""

    @model_validator(mode="after")
    def _both(self) -> JudgeConfig:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model: give both, or neither")
        return self
