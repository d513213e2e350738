"""Options of alignment."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from prunus.config import RUNTIME, Length, Size
from prunus.data.config import ChatSource
from prunus.kd.config import GuideConfig
from prunus.steps.align.methods import METHODS, Method, Name, having
from prunus.steps.candidates.config import CandidatesConfig, WriteConfig
from prunus.steps.conversations.config import ConversationsConfig, Wanted
from prunus.training.config import OptimizerConfig

_LENGTH = 4096


class AlignConfig(OptimizerConfig):
    """One stage of alignment."""

    kind: ClassVar[str] = "align"
    revision: ClassVar[int] = 2

    method: Name
    """`sft`; of pairs `rpo`, `dpo`, `cdpo`, `ipo`, `simpo`, `orpo` and `reward`, which trains a reward model; of labels
    `kto`; `distil`, from an aligned teacher; `best_of_n` and `spin`, from what the model writes; `steerlm`, from
    attributes; or, with TRL, online reinforcement learning by `grpo` or `rloo`."""
    data: tuple[ChatSource, ...] = ()
    """Where to learn from; the recipe's `data.chat` if not given."""
    epochs: float = Field(default=1.0, gt=0)
    """How often the data is gone through."""
    rounds: int = Field(default=1, ge=1)
    """How often the stage is done; each round starts from, and refers to, the model of the round before."""
    sequence_length: Length = 0
    """Tokens of a conversation, at most; 0 is 4096, or the model's context if that is less."""
    longer: Literal["refuse", "drop"] = "refuse"
    """What to do with longer ones."""
    write: WriteConfig = WriteConfig()
    """What the model writes before it learns: the prompts of the data, answered several times. `best_of_n` learns the
    best of them, `spin` sets each behind the data's own answer, methods of pairs take the best and the worst."""
    pack: bool = True
    """Whether as many conversations stand in a sequence as fit, each with positions and attention of its own."""
    batch_size: int = Field(default=64, ge=1)
    """Sequences of one optimiser step, or pairs, or answers with labels, over all devices."""
    learning_rate: float = Field(default=0.0, gt=0)
    """Peak learning rate. 0 is the method's own: 2e-5 for `sft` and its like, 9e-6 for `rpo`, 8e-6 for `orpo`, 1e-5 for
    `reward`, 1e-6 for the others."""
    min_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the cosine."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay, on matrices only."""
    beta: float = Field(default=0.0, gt=0)
    """What the log-ratio to the reference is multiplied by: β, or τ of `ipo`. 0 is the method's own: 0.2 for `rpo`, 2
    for `simpo`, whose log-probabilities are per token, 0.1 for the others."""
    eta: float = Field(default=1.0, gt=0)
    """What rewards are multiplied by, with `rpo`."""
    distance: Literal["backward_kl", "forward_kl", "squared"] = "backward_kl"
    """How `rpo` holds the model's gap to that of the rewards."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=0.5)
    """How likely it is that a pair is the wrong way round, with `cdpo`."""
    gamma: float = Field(default=0.5, ge=0)
    """The margin that `simpo` wants."""
    odds_weight: float = Field(default=0.1, gt=0)
    """What `orpo` multiplies the odds ratio's loss by."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """What wanted answers count for, with `kto`."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """What unwanted answers count for, with `kto`."""
    per_token: bool = False
    """Divide log-probabilities by the answer's length, the model's and the reference's."""
    sft_weight: float = Field(default=0.0, ge=0)
    """What -log π(chosen) is multiplied by, beside a loss of pairs; per token with `per_token`."""
    reference: Annotated[str | None, RUNTIME] = None
    """The model that log-ratios are taken to; the one that the stage, or the round, starts from if not given."""
    guide: GuideConfig = GuideConfig()
    """How `distil` holds the model to its teacher, on what the assistant says."""
    teacher: Annotated[str | None, RUNTIME] = None
    """The aligned teacher of `distil`; in a recipe the recipe's own if not given."""

    @model_validator(mode="before")
    @classmethod
    def _by_method(cls, raw: Any) -> Any:
        """Fill in what options are for this method; a method alone stands for a stage."""
        raw = {"method": raw} if isinstance(raw, str) else raw
        if not isinstance(raw, dict):
            return raw
        method = METHODS.get(raw.get("method"))  # type: ignore[arg-type]  # which may be anything yet
        if method is None:
            return raw
        own: dict[str, Any] = {name: getattr(method, name) for name in ("learning_rate", "beta") if not raw.get(name)}
        if method.answers:
            write = raw.get("write") or {}
            write = write.model_dump() if isinstance(write, WriteConfig) else write
            if isinstance(write, dict) and not write.get("answers"):
                own["write"] = {**write, "answers": method.answers}
        return {**raw, **own}

    @model_validator(mode="after")
    def _options_of_the_method(self) -> AlignConfig:
        method = self.spec
        if self.write.answers and not method.may_write:
            written = [name for name, one in METHODS.items() if one.may_write]
            raise ValueError(f"write.answers: is for {', '.join(written)}, and this is {self.method}")
        if method.learns == "online" and (self.optimizer != "adamw" or self.write.reward != "check"):
            raise ValueError(f"method: {self.method} is TRL's, with optimizer: adamw and write.reward: check alone")
        if self.method == "distil" and not self.guide.has_teacher:
            raise ValueError("guide.loss: cross_entropy has no teacher; method: sft learns so")
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.default and name not in method.options and having(name):
                raise ValueError(f"{name}: is for {', '.join(having(name))}, and this is {self.method}")
        return self

    def suited(self, size: Size) -> Self:
        """The same, with conversations that a model of that size has room for."""
        return self.model_copy(update={"sequence_length": self.sequence_length or min(_LENGTH, size.context)})

    @property
    def spec(self) -> Method:
        """What its method is."""
        return METHODS[self.method]

    @property
    def wanted(self) -> Wanted:
        """What the rows of its data must have."""
        return self.spec.rows

    @property
    def read(self) -> ConversationsConfig:
        """How its data is read."""
        return ConversationsConfig(wanted=self.wanted, sequence_length=self.sequence_length, longer=self.longer)

    @property
    def written(self) -> CandidatesConfig | None:
        """How its candidates are written, where the model writes before it learns."""
        if not self.write.answers or self.spec.learns == "online":
            return None
        return CandidatesConfig(
            write=self.write,
            beside=self.spec.against_data,
            sequence_length=self.sequence_length,
            seed=self.seed,
        )
