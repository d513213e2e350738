"""Options of distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import ADDED, Config
from prunus.errors import RecipeError
from prunus.gguf.mixtures import QUANTISED
from prunus.kd.config import GuideConfig
from prunus.models.bits import Bits
from prunus.steps.distill.nest_config import NestConfig
from prunus.training.config import TrainingConfig
from prunus.validation.config import ValidationConfig

if TYPE_CHECKING:
    Quantised = str
else:
    Quantised = Literal[QUANTISED]

PRESETS: dict[str, dict[str, Any]] = {
    "none": {"weight": 0.0},
    "kept": {},
    "paper": {
        "weight": "dynamic",
        "decay": "none",
        "layers": "late",
        "embeddings": True,
        "distance": "cosine",
        "projection": "learned",
        "normalize": False,
    },
}
"""The presets that `states: NAME` selects; `paper` is Minitron's for depth (arXiv 2407.14679, table 17)."""


_ROUNDING = 1e-9
"""So that a share such as 0.1 of ten steps is one step."""


class StatesConfig(Config):
    """Loss between hidden states of student and teacher, in addition to the logits."""

    weight: float | Literal["dynamic"] = 1.0
    """Weight of the states' loss at the start of training. `dynamic`: as large as the logits' loss at every step (arXiv
    2407.14679, section 3). 0: compare logits only (the papers' choice for width)."""
    decay: Literal["linear", "none"] = "linear"
    """`linear`: the weight falls to 0 over the training, so that at the end only the logits count. `none`: it is
    constant."""
    layers: Literal["kept", "late"] | tuple[str, ...] = "kept"
    """Layers to compare. `kept`: the input of every layer that the student kept. `late`: the output of one late layer,
    the papers' 29 of 32 and 13 of 16 scaled to both depths. Or pairs `TEACHER:STUDENT`, such as `29:13`."""
    embeddings: bool = False
    """Compare embeddings as well. With `kept` they are compared anyway if the first layer was kept."""
    distance: Literal["relative", "mse", "cosine"] = "relative"
    """`relative`: squared error relative to the size of the teacher's state. `mse`: mean squared error. `cosine`: 1 -
    cosine."""
    normalize: bool = True
    """Normalise each state to mean square 1 before comparing, as the norms that read it do, without their gains. In
    real models, the states of a few tokens are a hundred times as large as others and would dominate the loss."""
    projection: Literal["basis", "learned"] = "basis"
    """How different widths are compared. `basis`: project the teacher's states to the basis of the cut. `learned`: map
    the student's by one linear layer, trained and shared by all layers; it starts as that basis if that is known."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        """Replace the name of a preset by its options."""
        if isinstance(raw, str):
            if raw not in PRESETS:
                raise ValueError(f"{raw!r}; allowed: {', '.join(PRESETS)}, or a mapping of options")
            return PRESETS[raw]
        return raw

    @field_validator("weight")
    @classmethod
    def _not_negative(cls, weight: float | str) -> float | str:
        if isinstance(weight, float) and weight < 0:
            raise ValueError(f"{weight}; it must be at least 0")
        return weight

    @field_validator("layers")
    @classmethod
    def _pairs(cls, layers: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not layers:
            raise ValueError("names no pair; to compare no states, set `states: none`")
        for pair in layers if isinstance(layers, tuple) else ():
            teacher, _, student = pair.partition(":")
            if not (teacher.isdecimal() and student.isdecimal()):
                raise ValueError(f"{pair!r} is not a pair of layers; allowed: TEACHER:STUDENT, such as 29:13")
        return layers

    def pairs(self, teacher: int, student: int, kept: Sequence[int]) -> list[tuple[int, int]]:
        """The pairs of states to compare, (teacher, student): 0 is the embeddings, i the output of layer i - 1.

        Args:
            teacher: The teacher's number of layers.
            student: The student's number of layers.
            kept: The teacher's layers that the student has, for `layers: kept`.

        Raises:
            RecipeError: A pair names a layer that does not exist.
        """
        if self.layers == "kept":
            return [(i, j) for j, i in enumerate(kept)]
        if self.layers == "late":  # 29 of 32 and 13 of 16
            pairs = [(round(29 / 31 * (teacher - 1)), round(13 / 15 * (student - 1)))]
        else:
            pairs = [(int(pair.partition(":")[0]), int(pair.partition(":")[2])) for pair in self.layers]
        for pair in pairs:
            if pair[0] >= teacher or pair[1] >= student:
                raise RecipeError(
                    f"distill.states.layers: {pair[0]}:{pair[1]} does not exist; the teacher's layers are 0 to "
                    f"{teacher - 1}, the student's 0 to {student - 1}"
                )
        return [*([(0, 0)] if self.embeddings else []), *((i + 1, j + 1) for i, j in pairs)]

    def decay_factor(self, progress: float) -> float:
        """The factor on the weight at a point of training, from 0 (start) to 1 (end)."""
        return 1 - progress if self.decay == "linear" else 1.0


class RolloutConfig(Config):
    """How the student generates the text that it is trained on, with `data: student`."""

    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training steps that use the student's text; the others use the corpus."""
    start: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the training that uses the corpus alone, before the first of these steps."""
    first_tokens: int = Field(default=0, ge=0)
    """Tokens generated per sequence at the start of training; the number grows linearly until the sequence is full at
    the end (short-to-long, arXiv 2607.13124). 0: always full."""
    cut_repetition: bool = False
    """Stop where a continuation repeats itself, and leave later tokens out of the loss: the last 12 tokens, and at
    least two rounds of a cycle of up to 32 tokens, equal those one round earlier."""

    def new_tokens(self, room: int, progress: float) -> int:
        """Tokens to generate.

        Args:
            room: Tokens that fit after the prompt.
            progress: The fraction of training that is done, 0 to 1.
        """
        first = min(self.first_tokens or room, room)
        return first + round(progress * (room - first))


class DistillConfig(GuideConfig, TrainingConfig):
    """Train the student to predict what its teacher predicts (knowledge distillation, KD)."""

    kind: ClassVar[str] = "distill"
    revision: ClassVar[int] = 4

    data: Literal["corpus", "teacher", "student"] = "corpus"
    """Text to train on: the `corpus`; text that the `teacher` generates, by the options of `generate` (sequence-level
    distillation, arXiv 1606.07947); or text that the `student` generates during training, graded by the teacher
    (on-policy, arXiv 2306.13649)."""
    prompt_tokens: int = Field(default=32, ge=1)
    """With `data: student`: tokens of each corpus sequence that serve as the prompt. The loss covers what the student
    samples after them, at temperature 1."""
    rollouts: Annotated[RolloutConfig, ADDED] = RolloutConfig()
    """With `data: student`: how much of the text the student generates, and how long it gets."""
    targets: Literal["online", "cached"] = "online"
    """`online`: run the teacher during training. `cached`: run it once beforehand and store what the recipe's `targets`
    selects, for all students and epochs; requires `loss: forward_kl`, uniform `token_weights` and `states: none` (then
    the default)."""
    teacher_bits: Annotated[Bits | None, ADDED] = None
    """Bits of the teacher's weights in memory: 8, or 4, for the matrices of its layers. It changes the teacher's
    predictions, which the student learns: little in 8 bits. If unset: the run's precision."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "muon"
    """`muon` for the matrices of the layers, with AdamW for embeddings, head and gains; `adamw` for all weights (the
    papers' choice); or `adamw_8bit`, the same with moments in 8 bits (arXiv 2110.02861, by torchao): 2 bytes for each
    parameter instead of 8. Muon's updates are scaled to the size of AdamW's, so learning rates carry over."""
    states: StatesConfig = StatesConfig()
    """Hidden states to compare in addition to the logits: `none`, `kept` (the default), `paper`, or options."""
    nest: Annotated[NestConfig, ADDED] = NestConfig()
    """For a nest, which has several sizes (`prune.nest`): which of them each step trains."""
    validation: Annotated[ValidationConfig, ADDED] = ValidationConfig()
    """Measure the student during training: on held-out text, and by what it generates."""
    quantise: Annotated[Quantised | None, ADDED] = None
    """Train for a quantised file (QAT): the model computes with the weights as the export rounds them to this format,
    and the gradients pass straight through the rounding. The result has the weights themselves."""
    quantise_every: Annotated[int, ADDED] = Field(default=8, ge=1)
    """With `quantise`: steps between two roundings of the tensors that are K-quants or I-quants in the file (q4_k_m,
    iq4_xs), which llama.cpp's quantiser makes on the CPU. The others are rounded at every step."""

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher runs during training."""
        return self.has_teacher and self.targets == "online"

    def samples_at(self, progress: float) -> bool:
        """Whether the student generates the text of a training step.

        Args:
            progress: The fraction of training that is done before the step, 0 to 1.
        """
        if self.data != "student" or (self.rollouts.share == 1 and not self.rollouts.start):
            return self.data == "student"
        after = round(progress * self.steps) - round(self.rollouts.start * self.steps)
        share = self.rollouts.share
        return after >= 0 and int((after + 1) * share + _ROUNDING) > int(after * share + _ROUNDING)

    @property
    def reads_teacher(self) -> bool:
        """Whether it trains on text that the teacher generates."""
        return self.tokens > 0 and self.data == "teacher"

    @property
    def compares_states(self) -> bool:
        """Whether hidden states are compared."""
        return self.has_teacher and self.states.weight != 0

    @property
    def reads_lineage(self) -> bool:
        """Whether comparing states requires the student's lineage."""
        return self.compares_states and (self.states.layers == "kept" or self.states.projection == "basis")

    @model_validator(mode="before")
    @classmethod
    def _cached_without_states(cls, raw: Any) -> Any:
        """Stored targets contain no hidden states, so `states: none` is the default with them."""
        if isinstance(raw, dict) and raw.get("targets") == "cached":
            return {"states": "none", **raw}
        return raw

    @model_validator(mode="after")
    def _teacher_to_quantize(self) -> DistillConfig:
        if self.teacher_bits is not None and not self.has_teacher:
            raise ValueError(f"teacher_bits: {self.teacher_bits} needs a teacher, and loss: cross_entropy has none")
        return self

    @model_validator(mode="after")
    def _for_a_file(self) -> DistillConfig:
        if self.quantise is not None and self.lora.r:
            raise ValueError(
                f"quantise: {self.quantise}: not with lora, which leaves the weights that are rounded as they are; "
                "allowed: training all weights"
            )
        return self

    @model_validator(mode="after")
    def _on_policy(self) -> DistillConfig:
        """With `data: student`, refuse options that do not work on text that the student samples."""
        if self.data != "student":
            if self.rollouts != RolloutConfig():
                raise ValueError(f"rollouts: not an option with data: {self.data}; allowed with data: student")
            return self
        if not self.has_teacher or self.cross_entropy_weight:
            raise ValueError(
                "data: student: the teacher grades what the student generates, and the corpus gives only the prompts; "
                "allowed: a loss with a teacher, and cross_entropy_weight: 0"
            )
        if self.sequence_length and self.prompt_tokens >= self.sequence_length:
            raise ValueError(
                f"prompt_tokens: {self.prompt_tokens} leaves no tokens to generate with sequence_length: "
                f"{self.sequence_length}; it must be smaller"
            )
        return self


class QatConfig(DistillConfig):
    """A short distillation at the end, for the quantised file that ships (quantisation-aware training, QAT)."""

    tokens: int = Field(default=0, ge=0)
    """Tokens to train on; the corpus is repeated as often as needed. 0: skip the step."""
    teacher: Literal["self", "teacher"] = "self"
    """The model whose predictions the rounded student learns: the student itself as it was before, unrounded (`self`),
    or the recipe's teacher."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """`adamw`; `adamw_8bit`, the same with moments in 8 bits; or `muon` for the matrices of the layers, which won back
    less here (docs/distill.md)."""
    states: StatesConfig = StatesConfig(weight=0)
    """Hidden states to compare in addition to the logits, with `teacher: teacher`: `none` (the default), `kept`,
    `paper`, or options."""

    @model_validator(mode="after")
    def _of_a_student(self) -> QatConfig:
        if not self.tokens:
            return self
        if self.quantise is None:
            raise ValueError(f"quantise: missing; allowed: {', '.join(QUANTISED)}")
        if self.data == "teacher" or self.targets == "cached":
            raise ValueError("data and targets: allowed here: data: corpus or student, and targets: online")
        if self.nest != NestConfig():
            raise ValueError("nest: each size of a nest is trained for its file by itself; set no nest here")
        if self.teacher == "self" and self.compares_states:
            raise ValueError("states: a student is not compared with its own hidden states; allowed: states: none")
        return self
