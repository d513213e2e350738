"""Options of candidates: answers of the model itself, which get rewards and are trained on."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Config, Seed, StepConfig
from prunus.inference.config import ServerConfig
from prunus.judging.config import JudgeConfig


class WriteConfig(Config):
    """Answers that the model generates before a stage of alignment trains on them."""

    answers: int = Field(default=0, ge=0)
    """Answers per prompt. 0: follows from the method: 4 for `best_of_n`, 1 for `spin`, 8 for `grpo` and `rloo`, none
    for the others."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: sample from the most likely tokens that together have this probability."""
    reward: Annotated[str, RUNTIME] = "check"
    """Source of an answer's reward: `check`, the rule in its row; `stage`, the reward model trained by an earlier
    stage; the folder of a reward model; or `judge`, which grades from 1 to 10."""
    judge: JudgeConfig = JudgeConfig()
    """The judge of `reward: judge`."""
    server: ServerConfig = ServerConfig()
    """Server that generates the answers. If unset: transformers."""

    @model_validator(mode="after")
    def _several(self) -> WriteConfig:
        if self.answers > 1 and not self.temperature:
            raise ValueError(f"answers: {self.answers} answers at temperature 0 would be identical; give a temperature")
        return self

    @model_validator(mode="after")
    def _judged(self) -> WriteConfig:
        if self.reward == "judge" and self.judge.url is None:
            raise ValueError("judge.url: missing; reward: judge needs a server with OpenAI's chat API")
        if self.reward != "judge" and self.judge != JudgeConfig():
            raise ValueError(f"judge: not an option with reward: {self.reward}; allowed with reward: judge")
        return self


class CandidatesConfig(StepConfig):
    """Answers that a model generates to the prompts of chat data, with rewards."""

    kind: ClassVar[str] = "candidates"
    revision: ClassVar[int] = 3

    write: WriteConfig = WriteConfig()
    """How answers are generated and rewarded."""
    beside: bool = False
    """Pair each answer with the data's as the rejected one, without rewards."""
    template: str | None = None
    """Text of the chat template. If unset: the tokenizer's."""
    sequence_length: int = 4096
    """Longest prompt with answer, in tokens. Prompts that leave no room for an answer are skipped."""
    seed: Seed = 0
    """Seed of sampling."""
