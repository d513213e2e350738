"""Options of cached targets: which of the teacher's predictions are stored."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import ADDED, RUNTIME, Address, Config, Seed, StepConfig
from prunus.inference.config import ServerConfig
from prunus.models.bits import Bits


class TeacherServerConfig(ServerConfig):
    """A server that serves the teacher and gives log-probabilities of its prompts."""

    url: Address | None = None
    """Base URL, such as `http://localhost:8000/v1`. If unset, the teacher runs here. The API key is read from the
    environment variable PRUNUS_API_KEY."""
    model: str | None = None
    """Model name at the server. It must serve the teacher, after its correction if there is one."""
    api: Annotated[Literal["vllm", "sglang", "llama.cpp"], RUNTIME] = "vllm"
    """What the server is, which decides how it is asked. llama.cpp is asked once per token, since it gives no
    log-probabilities of prompts."""
    compare: Annotated[bool, RUNTIME] = True
    """Before the work, load the teacher here and compare its predictions of one text with the server's. `false` where
    it does not fit."""


class KeptConfig(Config):
    """What to store of the teacher's distribution at each position, for `distill.targets: cached`."""

    keep: Literal["top_k", "samples"] = "top_k"
    """`top_k`: the most likely tokens with their probabilities, and the remaining mass as one bucket. `samples`: tokens
    drawn from the teacher, with equal weights; the gradient is unbiased (arXiv 2503.16870)."""
    count: int = Field(default=64, ge=1)
    """Tokens to store, or to draw, per position; `top_k` stores at most the whole vocabulary."""
    server: Annotated[TeacherServerConfig, ADDED] = TeacherServerConfig()
    """Server that runs the teacher, for `keep: top_k`. If unset, transformers does."""

    @model_validator(mode="after")
    def _whole_distribution(self) -> KeptConfig:
        if self.server.url and self.keep == "samples":
            raise ValueError("keep: samples draws from the whole distribution, and a server gives the likeliest tokens "
                             "only; allowed with server: top_k")  # fmt: skip
        return self


class TargetsConfig(KeptConfig, StepConfig):
    """What to store, and of which sequences. The plan copies the other options from the students."""

    kind: ClassVar[str] = "targets"
    revision: ClassVar[int] = 1

    temperature: float = Field(default=1.0, gt=0)
    """Divides the teacher's logits before the softmax."""
    teacher_bits: Annotated[Bits | None, ADDED] = None
    """Bits of the weights of the teacher's layers in memory."""
    sequence_length: int = Field(ge=2)
    """Tokens per sequence."""
    sequences: int = Field(ge=1)
    """Sequences that training reads, counting repeats. Each is stored once."""
    attend_across_documents: bool = True
    """Let tokens attend to earlier documents of the same sequence."""
    seed: Seed = 0
    """Seed of the order of the data, and of sampling."""
