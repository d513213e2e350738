"""Options of alignment."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Length, Size
from prunus.data.config import ChatSource
from prunus.kd.config import GuideConfig
from prunus.steps.align.methods import METHODS, Method, Name, having
from prunus.steps.candidates.config import CandidatesConfig, WriteConfig
from prunus.steps.conversations.config import ConversationsConfig
from prunus.training import pace
from prunus.training.config import LoraConfig, OptimizerConfig

_LENGTH = 4096


def _rank(raw: Any) -> int:
    """The rank in `lora` as it is given; any positive number for what is refused later."""
    value = raw.r if isinstance(raw, LoraConfig) else raw.get("r") if isinstance(raw, dict) else raw
    return 0 if value in (None, 0, "0") else 1


class AlignConfig(OptimizerConfig):
    """One stage of alignment."""

    kind: ClassVar[str] = "align"
    revision: ClassVar[int] = 3

    method: Name
    """Training method. `sft`. From preference pairs: `rpo`, `dpo`, `cdpo`, `ipo`, `simpo`, `orpo`, or `reward` (trains
    a reward model). From labels: `kto`. From an aligned teacher: `distil`. From the model's answers: `best_of_n`,
    `spin`. From attributes: `steerlm`. Online RL, with TRL: `grpo`, `rloo`."""
    data: tuple[ChatSource, ...] = ()
    """Training data. If unset: the recipe's `data.chat`."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data."""
    rounds: int = Field(default=1, ge=1)
    """Repetitions of the stage. Each round starts from the model of the round before, which is also its default
    reference."""
    sequence_length: Length = 0
    """Longest conversation, in tokens. 0: 4096, or the model's context if that is shorter."""
    longer: Literal["refuse", "drop"] = "refuse"
    """What to do with longer conversations."""
    write: WriteConfig = WriteConfig()
    """Generate answers to the prompts of the data before training. `best_of_n` trains on the best of them, methods of
    pairs on the best and the worst; `spin` takes them as rejected, the data's answers as chosen."""
    pack: bool = True
    """Pack as many conversations into a sequence as fit, each with its own positions and attention."""
    batch_size: int = Field(default=64, ge=1)
    """Sequences, pairs or labelled answers per optimiser step, over all devices."""
    learning_rate: float = Field(default=0.0, gt=0)
    """Peak learning rate. 0: follows from the method: 2e-5 for `sft`, `distil`, `best_of_n` and `steerlm`, 9e-6 for
    `rpo`, 8e-6 for `orpo`, 1e-5 for `reward`, 1e-6 for the others. With `lora`, ten times that."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the cosine schedule."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Warm-up: fraction of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay, applied to matrices only."""
    beta: float = Field(default=0.0, gt=0)
    """Factor of the log-ratio to the reference: β, or τ of `ipo`. 0: follows from the method: 0.2 for `rpo`, 2 for
    `simpo` (log-probabilities per token), 0.04 for `grpo`, 0.05 for `rloo`, 0.1 for the others."""
    eta: float = Field(default=1.0, gt=0)
    """`rpo`: factor of the rewards."""
    distance: Literal["backward_kl", "forward_kl", "squared"] = "backward_kl"
    """`rpo`: distance between the model's reward gap and the gap of the given rewards."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    """`cdpo`: probability that chosen and rejected are swapped in a pair."""
    gamma: float = Field(default=0.5, ge=0)
    """`simpo`: target margin."""
    odds_weight: float = Field(default=0.1, gt=0)
    """`orpo`: weight of the odds-ratio loss."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """`kto`: weight of answers labelled true."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """`kto`: weight of answers labelled false."""
    per_token: bool = False
    """Divide log-probabilities by the answer's length, for the model and the reference."""
    sft_weight: float = Field(default=0.0, ge=0)
    """Weight of -log π(chosen), added to the loss of methods of pairs; per token with `per_token`."""
    reference: Annotated[str | None, RUNTIME] = None
    """Model that log-ratios are taken to. If unset: the model that the stage, or the round, starts from."""
    guide: GuideConfig = GuideConfig()
    """`distil`: loss against the teacher, on the assistant's tokens."""
    teacher: Annotated[str | None, RUNTIME] = None
    """`distil`: the aligned teacher. If unset in a recipe: the recipe's teacher."""

    @model_validator(mode="before")
    @classmethod
    def _by_method(cls, raw: Any) -> Any:
        """Fill in the method's defaults. A bare method name becomes a stage."""
        raw = {"method": raw} if isinstance(raw, str) else raw
        if not isinstance(raw, dict):
            return raw
        method = METHODS.get(raw.get("method"))  # type: ignore[arg-type]  # not validated yet
        if method is None:
            return raw
        defaults = {name: getattr(method, name) for name in ("learning_rate", "beta") if not raw.get(name)}
        if "learning_rate" in defaults:
            defaults["learning_rate"] *= pace.lora_factor(_rank(raw.get("lora")))
        if method.answers:
            write = raw.get("write") or {}
            write = write.model_dump() if isinstance(write, WriteConfig) else write
            if isinstance(write, dict) and not write.get("answers"):
                defaults["write"] = {**write, "answers": method.answers}
        return {**raw, **defaults}

    @model_validator(mode="after")
    def _options_of_the_method(self) -> AlignConfig:
        method = self.spec
        if self.write.answers and not method.may_write:
            written = [name for name, one in METHODS.items() if one.may_write]
            raise ValueError(f"write.answers: not an option of {self.method}; allowed with {', '.join(written)}")
        if method.learns == "online" and (self.optimizer != "adamw" or self.write.reward != "check"):
            raise ValueError(f"method: {self.method} runs in TRL, which needs optimizer: adamw and write.reward: check")
        if method.learns in ("online", "reward") and self.lora.r:
            raise ValueError(f"lora: not with method: {self.method}; allowed: with methods that train on given answers")
        if self.method == "distil" and not self.guide.has_teacher:
            raise ValueError("guide.loss: cross_entropy uses no teacher; for that, use method: sft")
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.default and name not in method.options and having(name):
                raise ValueError(f"{name}: not an option of {self.method}; allowed with {', '.join(having(name))}")
        return self

    def with_defaults(self, size: Size) -> Self:
        """A copy whose `sequence_length` fits a model of that size."""
        return self.model_copy(update={"sequence_length": self.sequence_length or min(_LENGTH, size.context)})

    @property
    def spec(self) -> Method:
        """The entry of its method."""
        return METHODS[self.method]

    @property
    def read(self) -> ConversationsConfig:
        """Options of the step that reads its data."""
        return ConversationsConfig(wanted=self.spec.rows, sequence_length=self.sequence_length, longer=self.longer)

    @property
    def written(self) -> CandidatesConfig | None:
        """Options of the step that generates its candidates; None if nothing is generated before training."""
        if not self.write.answers or self.spec.learns == "online":
            return None
        return CandidatesConfig(
            write=self.write,
            beside=self.spec.against_data,
            sequence_length=self.sequence_length,
            seed=self.seed,
        )
