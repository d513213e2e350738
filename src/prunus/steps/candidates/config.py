"""Options of writing candidates: answers of the model itself, to be judged and learnt from."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Config, Seed, StepConfig
from prunus.inference.config import ServerConfig
from prunus.judging.config import JudgeConfig


class WriteConfig(Config):
    """What a stage of alignment has the model write, before it learns from that."""

    answers: int = Field(default=0, ge=0)
    """Answers to each prompt; 0 has it write none. The default is 4 for `best_of_n`, and 1 for `spin`."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Tokens of an answer, at most."""
    temperature: float = Field(default=1.0, ge=0)
    """What logits are divided by before a token is drawn."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together have this probability."""
    reward: Annotated[str, RUNTIME] = "check"
    """What tells what an answer is worth: `check`, the rule that each row has; `stage`, the reward model that an
    earlier stage trained; a reward model's folder; or `judge`, which grades from 1 to 10."""
    judge: JudgeConfig = JudgeConfig()
    """The judge of `reward: judge`."""
    server: ServerConfig = ServerConfig()
    """Who writes, if not transformers."""

    @model_validator(mode="after")
    def _several(self) -> WriteConfig:
        if self.answers > 1 and not self.temperature:
            raise ValueError(f"answers: {self.answers} would all be alike at temperature: 0")
        return self

    @model_validator(mode="after")
    def _judged(self) -> WriteConfig:
        if self.reward == "judge" and self.judge.url is None:
            raise ValueError("judge.url: missing; reward: judge asks a server that speaks OpenAI's chat API")
        if self.reward != "judge" and self.judge != JudgeConfig():
            raise ValueError(f"judge: is for reward: judge, and this is {self.reward}")
        return self


class CandidatesConfig(StepConfig):
    """Answers that a model writes to the prompts of chat data, with rewards."""

    kind: ClassVar[str] = "candidates"
    revision: ClassVar[int] = 3

    write: WriteConfig = WriteConfig()
    """What is written."""
    beside: bool = False
    """Set each beside the answer of the data, which is then the better one, and ask for no reward."""
    template: str | None = None
    """The chat template itself; the tokenizer's own if not given."""
    sequence_length: int = 4096
    """Tokens of prompt and answer, at most; prompts that leave no room are passed over."""
    seed: Seed = 0
    """Seed of every draw."""
