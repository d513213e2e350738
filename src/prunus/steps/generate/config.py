"""Options of generation: what the teacher writes for its students to train on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from prunus.config import Seed, StepConfig
from prunus.data.config import Source
from prunus.errors import RecipeError
from prunus.inference.config import ServerConfig, Writing


class GenerateConfig(StepConfig):
    """Text that the teacher writes (synthetic data generation, SDG), for students with `distill.data: teacher`."""

    kind: ClassVar[str] = "generate"
    revision: ClassVar[int] = 3

    samples: int = Field(default=1024, ge=1)
    """Prompts to answer, one document each."""
    prompts: tuple[Source, ...] = ()
    """Where to take prompts from, first rows first, from all sources in turn or by their weights: a column of texts, or
    of conversations as lists of {role, content}, whose last answer is left out. Without any, the teacher goes on from
    the openings of documents of the corpus, drawn at random."""
    prompt_tokens: int = Field(default=32, ge=1)
    """Tokens of an opening that the teacher goes on from."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Tokens of an answer, at most. Prompts that leave no room for them in the model's context are passed over."""
    temperature: float = Field(default=1.0, ge=0)
    """What logits are divided by before a token is drawn; 0 takes the likeliest."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability."""
    seed: Seed = 0
    """Seed of the choice of documents and of every draw."""
    server: ServerConfig = ServerConfig()
    """Who writes, if not transformers."""

    @model_validator(mode="after")
    def _all_or_none_weighted(self) -> GenerateConfig:
        if len({source.weight is None for source in self.prompts}) > 1:
            raise ValueError("prompts: either every source has a weight, or none has")
        return self

    @property
    def writing(self) -> Writing:
        """How the answers are written."""
        return Writing(self.max_new_tokens, self.temperature, self.top_p, self.seed, server=self.server)

    def check_context(self, context: int, where: str) -> None:
        """Refuse answers that a model has no room for.

        Raises:
            RecipeError: Names the option and the longest that is allowed.
        """
        prompt = 1 if self.prompts else self.prompt_tokens
        if prompt + self.max_new_tokens > context:
            raise RecipeError(
                f"{where}.max_new_tokens: {self.max_new_tokens} after a prompt of {prompt} or more is longer than the "
                f"model's context of {context} tokens; at most {max(context - prompt, 0)} fit"
            )
