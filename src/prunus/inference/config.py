"""Options of text generation: by transformers or a server, and how tokens are sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Address, Config

LOGIT_BYTES = 2**27
"""Bytes of the logits of one model that exist at a time while held-out text is predicted."""


class ServerConfig(Config):
    """A server with OpenAI's completions API, such as vLLM's, that generates instead of transformers."""

    url: Address | None = None
    """Base URL, such as `http://localhost:8000/v1`. If unset, transformers generates. The API key is read from the
    environment variable PRUNUS_API_KEY."""
    model: str | None = None
    """Model name at the server. It must serve the model that would generate here: for `generate` the teacher, after its
    correction if there is one."""
    timeout: Annotated[float, RUNTIME] = Field(default=600.0, gt=0)
    """Seconds to wait for one complete answer."""
    concurrency: Annotated[int, RUNTIME] = Field(default=16, ge=1)
    """Concurrent requests."""

    @model_validator(mode="after")
    def _both(self) -> ServerConfig:
        if (self.url is None) != (self.model is None):
            raise ValueError("url and model: give both, or neither")
        return self


@dataclass(frozen=True)
class GenerationOptions:
    """How a step generates answers.

    Attributes:
        max_new_tokens: The most tokens of an answer.
        temperature: Logits are divided by it before sampling; 0 is greedy.
        top_p: Sample among the likeliest tokens that together have this probability.
        seed: Seeds the sampling of an answer, together with its prompt's number.
        stop: Stop strings; an answer ends before the first of them.
        server: The server that generates; transformers does if its URL is unset.
        where: The option's path that errors name.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    server: ServerConfig = field(default_factory=ServerConfig)
    where: str = "generate"
