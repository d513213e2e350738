"""The parts of records that a report reads: one class for each file, one entry for each kind of step."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""An integer that a float can represent in size."""


class _Form(BaseModel):
    """Only the fields named here are read and checked; numbers must be finite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class StepForm(_Form):
    """A step in run.json."""

    subject: str
    label: str
    kind: str
    folder: str

    @field_validator("folder")
    @classmethod
    def _inside(cls, folder: str) -> str:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("points outside the run's folder")
        return folder


class FailureForm(_Form):
    """A step that failed while others continued."""

    step: str
    message: str


class _Evaluation(_Form):
    confidence: Annotated[float, Field(gt=0, lt=1)]


class _Merge(_Form):
    of: list[str]
    base: str | None = None


class _Student(_Form):
    merge: _Merge | None = None


class _Recipe(_Form):
    evaluate: _Evaluation
    students: dict[str, _Student] = {}


class ManifestForm(_Form):
    """run.json."""

    name: str
    recipe: _Recipe
    teacher: dict[str, Count] = {}
    origin: dict[str, Any] = {}
    steps: list[StepForm]
    failures: list[FailureForm] = []


class _Source(_Form):
    path: str | list[str]


class _Data(_Form):
    corpus: list[_Source]
    held_out: list[_Source] | None = None


class _Teacher(_Form):
    path: str | None = None
    revision: str | None = None


class CardRecipeForm(_Form):
    """The part of the recipe that a model card reads."""

    teacher: _Teacher
    data: _Data


class _Memory(_Form):
    process: float
    gpu: float | None = None


class _File(_Form):
    bytes: Count


class RecordForm(_Form):
    """artifact.json."""

    config: dict[str, Any]
    seconds: float
    peak_memory_bytes: _Memory
    files: dict[str, _File]
    versions: dict[str, str]
    hardware: str
    metrics: dict[str, Any]


class _Tokens(_Form):
    tokens: float


class _States(_Form):
    weight: float | str = 0.0
    decay: str = "none"
    distance: str = ""


class _GuideConfig(_Form):
    loss: str = "cross_entropy"
    temperature: float = 1.0
    top_k: Count | None = None
    cross_entropy_weight: float = 0.0
    token_weights: str = "uniform"
    states: _States = _States()
    targets: str = "online"
    teacher_bits: Count | None = None
    data: str = "corpus"


class _TrainedForm(RecordForm):
    config: _GuideConfig  # type: ignore[assignment]
    metrics: _Tokens  # type: ignore[assignment]


class _Channels(_Form):
    criterion: str


class _Importance(_Form):
    channels: _Channels


class _PruneConfig(_Form):
    init: str
    importance: _Importance


class _PruneForm(RecordForm):
    config: _PruneConfig  # type: ignore[assignment]


class _AlignConfig(_Form):
    method: str
    guide: _GuideConfig = _GuideConfig()
    sft_weight: float = 0.0
    odds_weight: float = 0.0
    per_token: bool = False


class _AlignForm(RecordForm):
    config: _AlignConfig  # type: ignore[assignment]


class _Evolve(_Form):
    trials: Count
    i_am_tuning_on_the_test_set: bool


class _MergeConfig(_Form):
    method: str
    evolve: _Evolve


class _MergeMetrics(_Form):
    chosen_trial: float | None = None
    fitness: float | None = None
    fitness_start: float | None = None


class _MergeForm(RecordForm):
    config: _MergeConfig  # type: ignore[assignment]
    metrics: _MergeMetrics  # type: ignore[assignment]

    @model_validator(mode="after")
    def _evolved(self) -> _MergeForm:
        if self.config.evolve.trials and None in vars(self.metrics).values():
            raise ValueError("metrics: an evolution needs chosen_trial, fitness and fitness_start")
        return self


class Interval(_Form):
    """A figure with its interval."""

    value: float
    low: float
    high: float


class _Metric(Interval):
    difference: Interval | None = None


class _Metrics(_Form):
    metrics: dict[str, _Metric] = {}


class _Tally(_Form):
    asked: Count
    graded: Count
    malformed: Count
    failed: Count
    hole: str | None = None


class _Task(_Metrics):
    first: str | None = None
    unit: str | None = None
    groups: dict[str, _Metrics] = {}
    judge: _Tally | None = None
    hole: str | None = None


class _Figures(_Form):
    nll: Interval
    perplexity: Interval | None = None
    bits_per_byte: Interval | None = None
    kl: Interval | None = None
    agreement: Interval | None = None
    acceptance: Interval | None = None
    nll_increase: Interval | None = None


class _Speed(_Form):
    parameters: float
    bytes: float
    kv_bytes_per_token: float
    prefill: float | None = None
    decode: float | None = None
    memory_bytes: float | None = None


class _Efficiency(_Form):
    model: _Speed | None = None
    teacher: _Speed | None = None


class ResultsForm(_Form):
    """results.json of an evaluation."""

    parameters: float
    non_embedding_parameters: float
    figures: _Figures
    tasks: dict[str, _Task] = {}
    efficiency: _Efficiency = _Efficiency()
    warnings: list[str] = []


class AnswerForm(_Form):
    """A line of answers.jsonl."""

    prompt: str
    answer: str


class SkillAnswerForm(_Form):
    """A line of answers/TASK.jsonl."""

    id: str
    said: list[Any]
    answers: Annotated[list[list[str]], Field(min_length=1)]


class MetricsForm(_Form):
    """A line of metrics.jsonl."""

    tokens: float
    loss: float


class ValidationForm(_Form):
    """A line of validation.jsonl."""

    model: str
    tokens: float
    nll: float | None = None
    kl: float | None = None
    repetition: float | None = None
    tasks: dict[str, dict[str, float]] = {}


class _Layers(_Form):
    block_influence: list[float]


class ScoresForm(_Form):
    """scores.json; a mixture of experts has a list of neurons for each expert."""

    layers: _Layers
    neurons: list[list[float]] | list[list[list[float]]] = []
    channels: list[float] = []
    heads: list[list[float]] = []
    expert_frequency: list[list[float]] = []


class _Value(_Form):
    value: float


class _Candidate(_Form):
    figures: dict[str, float]
    before: dict[str, _Value]
    rungs: Annotated[list[dict[str, _Value]], Field(min_length=1)]
    loss: float


class _Before(_Form):
    rank_correlation: float | None = None
    chosen: str
    regret: float


class SearchForm(_Form):
    """search.json."""

    measure: str
    cost: str
    tokens: Annotated[list[float], Field(min_length=1)]
    order: Annotated[list[list[str]], Field(min_length=1)]
    before: _Before
    rank_correlations: list[float | None]
    settled_at_tokens: float
    pareto: list[str]
    candidates: dict[str, _Candidate]

    @model_validator(mode="after")
    def _whole(self) -> SearchForm:
        for name, one in self.candidates.items():
            if name not in self.order[0]:
                raise ValueError(f"order: {name} is missing from the first")
            if self.cost not in one.figures or any(self.measure not in of for of in (one.before, *one.rungs)):
                raise ValueError(f"candidates.{name}: {self.cost} or {self.measure} is missing")
            if len(one.rungs) > len(self.tokens):
                raise ValueError(f"candidates.{name}: {len(one.rungs)} rungs, and tokens has {len(self.tokens)}")
        return self


class TrialForm(_Form):
    """A line of an evolution's journal."""

    number: Count
    part: Count
    fitness: float


class ParentForm(_Form):
    """A parent's fitness."""

    first: Annotated[dict[str, float], Field(min_length=1, alias="0")]


class ExportForm(_Form):
    """A format in export.json."""

    file: str
    nbytes: float
    kl: float
    top1: float | None = None
    tokens: Count | None = None
    perplexity: float | None = None
    perplexity_of_model: float | None = None


def _formats(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, facts in found.items():
        if name != "proof":
            ExportForm.model_validate(facts)
    return found


RECORDS: dict[str, type[RecordForm]] = {
    "correct": _TrainedForm,
    "distill": _TrainedForm,
    "prune": _PruneForm,
    "align": _AlignForm,
    "merge": _MergeForm,
}
"""The form of artifact.json by kind of step; `RecordForm` of others."""

FILES: dict[str, dict[str, Any]] = {
    "evaluate": {
        "results.json": ResultsForm,
        "answers.jsonl": AnswerForm,
        "answers/*.jsonl": SkillAnswerForm,
    },
    "correct": {"metrics.jsonl": MetricsForm},
    "distill": {"metrics.jsonl": MetricsForm, "validation*.jsonl": ValidationForm},
    "align": {"metrics.jsonl": MetricsForm},
    "score": {"scores.json": ScoresForm},
    "search": {"search.json": SearchForm},
    "export": {"export.json": Annotated[dict[str, dict[str, Any]], AfterValidator(_formats)]},
}
"""The files that a report reads for each kind of step, with their forms; for .jsonl, the form of a line. A
file with a `*` in its name may be missing."""

EVOLVED: dict[str, Any] = {"journal.jsonl": TrialForm, "parents.json": Annotated[list[ParentForm], Field(min_length=1)]}
"""The same for an evolved merge."""
