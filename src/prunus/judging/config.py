"""Options of a judge."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Address, Config, Path


class JudgeConfig(Config):
    """A model that grades answers, at any server that speaks OpenAI's chat API."""

    url: Address | None = None
    """Its address, such as `https://api.openai.com/v1`. The key that it wants is read from the environment variable
    PRUNUS_JUDGE_KEY."""
    model: str | None = None
    """Its name there."""
    prompts: Path | None = None
    """A file of judge prompts in MT-Bench's form, in place of our own wording. Published figures come by those."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Tokens of a verdict, at most."""
    timeout: Annotated[float, RUNTIME] = Field(default=120.0, gt=0)
    """Seconds to wait for one verdict, to its last byte."""
    concurrency: Annotated[int, RUNTIME] = Field(default=8, ge=1)
    """Requests under way at a time."""

    @model_validator(mode="after")
    def _both(self) -> JudgeConfig:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model: give both, or neither")
        return self
