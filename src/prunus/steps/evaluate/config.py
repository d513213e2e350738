"""Options of evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from prunus.config import MAX_NAME, RUNTIME, Config, Length, Location, Seed, Size, StepConfig, help_of
from prunus.judging.config import JudgeConfig
from prunus.steps.evaluate.tasks import HARNESS, base_tasks
from prunus.verify.skills import SKILLS
from prunus.world.config import WORLD, WorldConfig

_LENGTH = 2048
_KIND = help_of(
    f"Kind of task: {', '.join(f'`{name}`' for name in SKILLS)}, or a task of lm-evaluation-harness. If unset: its "
    "name in the recipe."
)


class TaskConfig(Config):
    """One task: its data, and how it is run."""

    kind: str | None = Field(default=None, description=_KIND)
    data: Location | None = None
    """Local file or folder of items, or `builtin:world` (its held-out part). Required for a skill; tasks of the harness
    fetch their data from the hub if unset."""
    world: WorldConfig | None = None
    """Options of `builtin:world`. If unset: the default world."""
    gold: Location | None = None
    """File or folder of answers, if separate from the items: MT-Bench's references, BFCL's `possible_answer`."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only the first items, at most this many; in tasks with parts, of each part."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Few-shot examples before each question, for tasks of the harness. If unset: as in the Minitron paper."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest answer, in tokens."""
    samples: int = Field(default=1, ge=1)
    """Answers per item. With several, pass@k is reported: the probability that one of k is right."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature. 0: greedy decoding."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Null means the defaults, and a bare path the task's data."""
        return {} if raw is None else {"data": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _drawn(self) -> TaskConfig:
        if self.samples > 1 and not self.temperature:
            raise ValueError("samples: several answers at temperature 0 are identical; give a temperature")
        if self.world is not None and self.data != WORLD:
            raise ValueError(f"world: applies only to data: {WORLD}; data is {self.data!r}")
        return self


class EfficiencyConfig(Config):
    """Speed of a model and its teacher on this machine, measured alternately."""

    prompt_tokens: int = Field(default=0, ge=0)
    """Prompt tokens to process at once. 0: do not measure speed. The median over `rounds` is reported."""
    new_tokens: int = Field(default=32, ge=1)
    """Tokens to generate one after the other."""
    rounds: int = Field(default=5, ge=1)
    """Measurements of each model, alternating between teacher and student."""


class EvaluateConfig(StepConfig):
    """Evaluation on held-out text and on tasks, paired with the teacher."""

    kind: ClassVar[str] = "evaluate"
    revision: ClassVar[int] = 4

    sequence_length: Length = 0
    """Longest window of a document to process at once, in tokens. 0: 2048, or the model's context if that is
    shorter."""
    max_tokens: int = Field(default=50_000, ge=2)
    """Stop after this many tokens of the held-out text."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap samples per interval."""
    prompts: tuple[str, ...] = ()
    """Texts that every model continues. If unset: the openings of held-out documents."""
    prompt_count: int = Field(default=3, ge=0)
    """Number of openings to use if `prompts` is empty."""
    prompt_tokens: int = Field(default=24, ge=1)
    """Length of each opening, in tokens."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest continuation, in tokens (greedy decoding)."""
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)
    """Tasks by name: a list of names, or a mapping from each name to its options or the path of its data. `base`: the
    tasks of the Minitron paper."""
    references: Annotated[tuple[str, ...], RUNTIME] = ()
    """Other models to evaluate on the same tasks: folders, or ids on the hub."""
    chat_template: Literal["own", "plain"] = "own"
    """Format of conversations: the tokenizer's template (`own`), or a plain one for models that have none."""
    run_code: bool = False
    """Allow `humaneval` and `mbpp` to execute generated code on this machine."""
    judge: JudgeConfig = JudgeConfig()
    """Judge of answers that no rule can grade."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """How speed is measured."""
    seed: Seed = 0
    """Seed of the bootstrap and of sampling."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        """A list of names is a mapping without options."""
        if isinstance(raw, (list, tuple)) and not all(isinstance(name, str) for name in raw):
            raise ValueError("expected a list of names, or a mapping of names to options")
        named = dict.fromkeys(raw) if isinstance(raw, (list, tuple)) else raw
        for name in named if isinstance(named, dict) else ():
            if not re.fullmatch(r"\w[\w.+-]*", str(name)):
                raise ValueError(f"{name!r:.80} is not a valid task name; allowed: letters, digits and _ . + -")
            if len(str(name).encode()) > MAX_NAME:
                raise ValueError(f"{name!r:.80}...: too long for file names; allowed: {MAX_NAME} bytes")
        return named

    @model_validator(mode="after")
    def _skills_have_data(self) -> EvaluateConfig:
        for name, task in self.all_tasks().items():
            kind = task.kind or name
            if kind in SKILLS and task.data is None:
                raise ValueError(f"tasks.{name}.data: missing; {kind} needs a file of items, or `builtin:world`")
            if kind in HARNESS and HARNESS[kind].code and not self.run_code:
                raise ValueError(f"tasks.{name}: executes generated code; allow that with run_code: true")
        return self

    def with_defaults(self, size: Size) -> Self:
        """A copy whose `sequence_length` fits a model of that size."""
        return self.model_copy(update={"sequence_length": self.sequence_length or min(_LENGTH, size.context)})

    def all_tasks(self) -> dict[str, TaskConfig]:
        """The tasks, with `base` replaced by its tasks; a task that is also named itself keeps its options."""
        base = self.tasks.get("base")
        parts = {} if base is None else dict.fromkeys(base_tasks(self.run_code), base)
        return {**parts, **{name: task for name, task in self.tasks.items() if name != "base"}}

    @property
    def converses(self) -> bool:
        """Whether any task is a conversation."""
        return any((task.kind or name) in SKILLS for name, task in self.all_tasks().items())
