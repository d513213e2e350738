"""Options of evaluation."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from prunus.config import MAX_NAME, RUNTIME, Config, Length, Path, Seed, Size, StepConfig, help_of
from prunus.judging.config import JudgeConfig
from prunus.steps.evaluate.tasks import HARNESS, base_tasks
from prunus.verify.skills import SKILLS
from prunus.world.config import WORLD, WorldConfig

_LENGTH = 2048
_KIND = help_of(
    f"What it is: {', '.join(f'`{name}`' for name in SKILLS)}, or a task of lm-evaluation-harness; its name in the "
    "recipe if not given."
)


class TaskConfig(Config):
    """One task: where its items are, and how many are asked."""

    kind: str | None = Field(default=None, description=_KIND)
    data: Path | None = None
    """A local file or folder of its items, or `builtin:world`, the held-out part of the built-in world. A skill needs
    one; the harness fetches its own from the hub without."""
    world: WorldConfig | None = None
    """Which world `builtin:world` is; the default one if not given."""
    gold: Path | None = None
    """Where answers stand that are not beside their questions: MT-Bench's references, BFCL's `possible_answer`."""
    limit: int | None = Field(default=None, ge=1)
    """Ask the first so many items; of tasks in parts, of each part."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Worked examples before each question, in tasks of the harness; the Minitron paper's number if not given."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Tokens of an answer, at most."""
    samples: int = Field(default=1, ge=1)
    """Answers to each item. With several, pass@k is reported: how likely one of k is right."""
    temperature: float = Field(default=0.0, ge=0)
    """What logits are divided by before a token is drawn; 0 takes the likeliest."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Nothing stands for the defaults, and a path alone for its data."""
        return {} if raw is None else {"data": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _drawn(self) -> TaskConfig:
        if self.samples > 1 and not self.temperature:
            raise ValueError("samples: several answers at temperature 0 are the same answer; give a temperature")
        if self.world is not None and self.data != WORLD:
            raise ValueError(f"world: says which world {WORLD} is, and data is {self.data!r}")
        return self


class EfficiencyConfig(Config):
    """How fast a model reads and writes on this machine, in turn with its teacher."""

    prompt_tokens: int = Field(default=0, ge=0)
    """Tokens that are read at once; 0 measures no speed. What is kept is the median of the rounds."""
    new_tokens: int = Field(default=32, ge=1)
    """Tokens that are written, one after the other."""
    rounds: int = Field(default=5, ge=1)
    """How often each is measured, teacher and student by turns."""


class EvaluateConfig(StepConfig):
    """How a model is measured: on held-out text and by tasks, beside its teacher."""

    kind: ClassVar[str] = "evaluate"
    revision: ClassVar[int] = 4

    sequence_length: Length = 0
    """Longest stretch of one document that is read at once; 0 is 2048, or the model's context if that is less."""
    max_tokens: int = Field(default=50_000, ge=2)
    """Stop after so many tokens of the held-out text."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap samples that an interval is read from."""
    prompts: tuple[str, ...] = ()
    """Texts for every model to continue; without any, the openings of held-out documents."""
    prompt_count: int = Field(default=3, ge=0)
    """How many openings to take where `prompts` is empty."""
    prompt_tokens: int = Field(default=24, ge=1)
    """Tokens of such an opening."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Tokens of an answer, at most; decoding is greedy."""
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)
    """What to ask, by name: a list of names, or each with its options or the path of its data. `base` stands for the
    Minitron paper's tasks."""
    references: Annotated[tuple[str, ...], RUNTIME] = ()
    """Other models to put on the same tasks: folders, or ids on the hub."""
    chat_template: Literal["own", "plain"] = "own"
    """How conversations are put to a model: by its tokenizer's template, or by a plain one for models without."""
    run_code: bool = False
    """Let `humaneval` and `mbpp` run what the model writes, on this machine."""
    judge: JudgeConfig = JudgeConfig()
    """Who grades answers that no rule can judge."""
    efficiency: EfficiencyConfig = EfficiencyConfig()
    """How speed is measured."""
    seed: Seed = 0
    """Seed of the bootstrap and of drawn answers."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, raw: Any) -> Any:
        """A list of names is a mapping without options."""
        if isinstance(raw, (list, tuple)) and not all(isinstance(name, str) for name in raw):
            raise ValueError("a list of names is expected, or a mapping of names to options")
        named = dict.fromkeys(raw) if isinstance(raw, (list, tuple)) else raw
        for name in named if isinstance(named, dict) else ():
            if not re.fullmatch(r"\w[\w.+-]*", str(name)):
                raise ValueError(f"{name!r:.80} is no name for a task: letters, digits and _ . + -")
            if len(str(name).encode()) > MAX_NAME:
                raise ValueError(f"{name!r:.80}...: a task's name is in names of files; allowed: {MAX_NAME} bytes")
        return named

    @model_validator(mode="after")
    def _skills_have_data(self) -> EvaluateConfig:
        for name, task in self.asked().items():
            kind = task.kind or name
            if kind in SKILLS and task.data is None:
                raise ValueError(f"tasks.{name}.data: missing; {kind} needs a file of items, or `builtin:world`")
            if kind in HARNESS and HARNESS[kind].code and not self.run_code:
                raise ValueError(f"tasks.{name}: runs what the model writes; allow it with run_code: true")
        return self

    def suited(self, size: Size) -> Self:
        """The same, with windows that a model of that size has room for."""
        return self.model_copy(update={"sequence_length": self.sequence_length or min(_LENGTH, size.context)})

    def asked(self) -> dict[str, TaskConfig]:
        """The tasks, with `base` in its parts; one that is named besides keeps its own options."""
        base = self.tasks.get("base")
        parts = {} if base is None else dict.fromkeys(base_tasks(self.run_code), base)
        return {**parts, **{name: task for name, task in self.tasks.items() if name != "base"}}

    @property
    def converses(self) -> bool:
        """Whether a task is a conversation."""
        return any((task.kind or name) in SKILLS for name, task in self.asked().items())
