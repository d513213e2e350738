"""Options of merging: the method, weights by part, the path through layers, and their evolution."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from prunus.config import Config, Location, Seed, StepConfig, help_of
from prunus.data.config import ChatSource
from prunus.errors import RecipeError
from prunus.models.families.family import Part
from prunus.steps.merge.method import MergeMethod
from prunus.steps.merge.methods import METHODS
from prunus.world.config import WORLD

if TYPE_CHECKING:  # type checkers refuse a Literal that is computed
    Method = str
else:
    Method = Literal[tuple(METHODS)]

PUBLIC = (
    "mmlu", "hellaswag", "arc_challenge", "arc_easy", "winogrande", "piqa", "truthfulqa", "lambada", "gsm8k", "mbpp",
    "humaneval", "ifeval", "bfcl", "squad", "mt-bench", "mt_bench", "mtbench", "chatrag",
)  # fmt: skip
"""File names of public test sets."""
_HELD_OUT = ("test", "validation", "valid", "val", "dev", "held_out")
Share = Annotated[float, Field(gt=0, le=1)]
MIN_WEIGHT = 0.01  # smallest evolved weight, if weights are divided by their sum
_NORMALIZING = [f"`{name}`" for name, method in METHODS.items() if method.normalizes]
_NAMED = [f"`{name}`" + (f" ({method.note})" if method.note else "") for name, method in METHODS.items()]


class PartConfig(Config):
    """Different values for a part of the model. If several parts match a weight, the last one applies."""

    match: str = "*"
    """Pattern of weight names, with `*` as wildcard, such as `*.mlp.*` or `model.embed_tokens.weight`."""
    layers: str | None = None
    """Layers, such as `0-3,7`. If unset: all, and weights outside the layers."""
    module: Part | None = None
    """`attention`, `mlp`, or `other` (norms, embeddings and head)."""
    weights: tuple[float, ...] = ()
    """One weight per model, in their order."""
    densities: tuple[Share, ...] = ()
    """One density per model, in their order."""
    t: float | None = None
    """Position on the arc of `slerp`."""

    @model_validator(mode="after")
    def _readable(self) -> PartConfig:
        if self.layers is not None:
            numbers(self.layers)
        return self


class FlowConfig(Config):
    """A path through the layers of several models, written as one plain model."""

    layers: tuple[str, ...] = ()
    """Segments of the path in order, each `MODEL:LAYERS` with the model's number from 0: `0:0-3` `1:2-5`. Embeddings,
    last norm and head are the first model's."""
    scales: tuple[float, ...] = ()
    """One factor per layer of the path, applied to what it adds to the residual stream. If unset: 1."""

    @model_validator(mode="after")
    def _readable(self) -> FlowConfig:
        path = self.path()
        if self.scales and len(self.scales) != len(path):
            raise ValueError(f"scales: {len(self.scales)} for {len(path)} layers; give one per layer")
        return self

    def path(self) -> list[tuple[int, int]]:
        """The path as pairs (model, layer)."""
        path = []
        for segment in self.layers:
            model, colon, layers = segment.partition(":")
            if not colon or not model.isdigit():
                raise ValueError(f"layers: {segment!r}; expected MODEL:LAYERS, such as `0:0-3`")
            path += [(int(model), layer) for layer in numbers(layers)]
        return path


class EvolveConfig(Config):
    """Search merge settings by evolution with CMA-ES (Akiba et al. 2024, arXiv 2403.13187)."""

    trials: int = Field(default=0, ge=0)
    """Models to merge and evaluate. 0: no evolution."""
    space: Literal["parameters", "flow"] = "parameters"
    """What to evolve: `parameters`, the method's weights (with `densities`, these too); or `flow`, the path through the
    layers and its scales."""
    tasks: dict[str, ChatSource] = Field(default_factory=dict)
    """Conversations with checks, by the task's name, in the forms of docs/align.md. Fitness is the mean over tasks of
    the answers' mean reward. They must not overlap with what `evaluate` uses."""
    items: int = Field(default=32, ge=1)
    """Conversations of each task that every trial answers."""
    finalists: int = Field(default=4, ge=1)
    """Number of best trials to compare again, on as many further conversations, before one is chosen."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Longest answer, in tokens."""
    per: tuple[Literal["layer", "module"], ...] = ("layer", "module")
    """Granularity of the weights: one for each layer, each kind of module, both, or (empty) only one for each model."""
    groups: int | None = Field(default=None, ge=1)
    """Number of groups of neighbouring layers that share their weights. If unset: each layer is a group."""
    densities: bool = False
    """Evolve densities as well, if the method has them."""
    bounds: tuple[float, float] = (0.0, 1.5)
    """Smallest and largest weight."""
    repeats: int = Field(default=1, ge=1)
    """`space: flow`: how often a path may pass through all layers."""
    max_layers: int | None = Field(default=None, ge=1)
    """`space: flow`: longest path, in layers. If unset: as many layers as one model has."""
    sigma: float = Field(default=0.25, gt=0)
    """Standard deviation of the first trials."""
    population: int | None = Field(default=None, ge=3)
    """Trials per generation. If unset: 4 + 3 ln(dimensions), as in CMA-ES."""
    i_am_tuning_on_the_test_set: bool = False
    """Allow tasks from a test set, or that overlap with what `evaluate` uses. Reported scores then say nothing about
    other data."""

    @model_validator(mode="after")
    def _whole(self) -> EvolveConfig:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: {self.bounds[0]} is not below {self.bounds[1]}")
        return self

    def check_public(self, where: str) -> None:
        """Refuse tasks from a held-out split, or from a file with the name of a public test set.

        Raises:
            RecipeError: Names the task.
        """
        if self.i_am_tuning_on_the_test_set:
            return
        for name, source in self.tasks.items():
            bare = PurePath(source.path).name.lower()
            known = next((one for one in PUBLIC if one in f"{bare} {source.name or ''}".lower()), None)
            named = known is not None and source.path != WORLD and "train" not in bare
            if source.split in _HELD_OUT or (named and not _on_hub(source)):
                what = (
                    f"split {source.split!r}"
                    if source.split in _HELD_OUT
                    else f"{source.path} (its name has {known!r})"
                )
                raise RecipeError(
                    f"{where}.tasks.{name}: {what}: this looks like test data, which evolution would overfit; give "
                    "training data, or set i_am_tuning_on_the_test_set: true"
                )


class MergeConfig(StepConfig):
    """How to merge models of one shape."""

    kind: ClassVar[str] = "merge"
    revision: ClassVar[int] = 1

    method: Method = Field(default="linear", description=help_of(f"{', '.join(_NAMED[:-1])}, or {_NAMED[-1]}."))
    weights: tuple[float, ...] = ()
    """One weight per model, in their order. If unset: all 1."""
    densities: tuple[Share, ...] = ()
    """Fraction of each model's differences to keep: the largest for `ties`, random ones for `dare_linear` and
    `dare_ties`. If unset: 0.5."""
    t: float = Field(default=0.5, ge=0, le=1)
    """`slerp`: position on the arc, from 0 (the first model) to 1 (the second)."""
    decay: float = Field(default=1.0, gt=0, le=1)
    """`average`: weight of each checkpoint relative to the next one given. 1: all count the same."""
    scale: float = 1.0
    """Factor of the merged differences before they are added to the base (λ in the papers)."""
    normalize: bool | None = Field(
        default=None, description=f"Divide by the sum of the weights. If unset: only for {' and '.join(_NORMALIZING)}."
    )
    parts: tuple[PartConfig, ...] = ()
    """Different values for some layers, modules or weights."""
    flow: FlowConfig = FlowConfig()
    """`flow`: the path through the layers."""
    evolve: EvolveConfig = EvolveConfig()
    """Evolution of these settings, starting from the values given."""
    seed: Seed = 0
    """Seed of the values that DARE drops, and of evolution."""

    @model_validator(mode="after")
    def _fits(self) -> MergeConfig:
        evolves_flow = self.evolve.trials > 0 and self.evolve.space == "flow"
        if evolves_flow != (self.method == "flow") and self.evolve.trials:
            raise ValueError(f"evolve.space: {self.evolve.space} does not work with method: {self.method}")
        if self.method == "flow" and not self.flow.layers and not evolves_flow:
            raise ValueError("flow.layers: missing; method: flow needs a path")
        evolvable = evolves_flow or self.definition.weighted or self.definition.interpolates
        if self.evolve.trials and not evolvable:
            raise ValueError(f"evolve: {self.method} has nothing to evolve")
        return self

    @property
    def definition(self) -> MergeMethod:
        """The method's entry in the table."""
        return METHODS[self.method]

    @property
    def normalizes(self) -> bool:
        """Whether sums are divided by the sum of the weights."""
        return self.definition.normalizes if self.normalize is None else self.normalize

    def check_fits(self, models: int, has_base: bool, layers: int, where: str) -> None:
        """Refuse options that do not fit the number of models or layers.

        Raises:
            RecipeError: Names the option.
        """
        based = self.definition.based
        if models < 2 and not (self.definition.single and (has_base or not based)):
            raise RecipeError(f"{where}: {models} model; {self.method} needs at least 2")
        if self.definition.interpolates and models != 2:
            raise RecipeError(f"{where}.method: {self.method} needs exactly 2 models, got {models}")
        if based != has_base:
            problem = "missing; give the models' common ancestor" if based else "not used by this method; remove it"
            raise RecipeError(f"{where}.base: {problem} (method: {self.method})")
        self._check_values(models, layers, where)
        for model, layer in self.flow.path():
            if model >= models or layer >= layers:
                raise RecipeError(
                    f"{where}.flow.layers: layer {layer} of model {model} does not exist; there are {models} models "
                    f"of {layers} layers, counted from 0"
                )

    def _check_values(self, models: int, layers: int, where: str) -> None:
        whole = PartConfig(weights=self.weights, densities=self.densities)
        whole_mean = self.definition.weighted and not self.definition.based and self.normalizes
        for place, part in ((where, whole), *((f"{where}.parts.{i}", part) for i, part in enumerate(self.parts))):
            for name, values in (("weights", part.weights), ("densities", part.densities)):
                if values and len(values) != models:
                    raise RecipeError(f"{place}.{name}: {len(values)} for {models} models; give one per model")
            if whole_mean and part.weights and not sum(part.weights):
                raise RecipeError(f"{place}.weights: sum to 0, but are divided by their sum")
            if part.layers and max(numbers(part.layers)) >= layers:
                raise RecipeError(f"{place}.layers: {part.layers}; there are only {layers} layers, counted from 0")


class MergedConfig(MergeConfig):
    """A student that is merged from others."""

    of: tuple[Location, ...] = Field(min_length=1)
    """Models to merge, in order: final students by name, or `NAME.pruned`, `NAME.distilled`; `teacher`; or models by
    folder (`./NAME` if a student has that name) or id on the hub."""
    base: Location | None = None
    """Common ancestor of the models, for methods that need one; written as in `of`, such as `NAME.distilled`."""

    def options(self) -> MergeConfig:
        """The options of the merge step."""
        return MergeConfig.model_validate(self.model_dump(exclude={"of", "base"}))


def numbers(text: str) -> list[int]:
    """The numbers of a list such as `0-3,7`, in order.

    Raises:
        ValueError: It has another form.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ValueError(f"layers: {text!r} is not a list of layers, such as `0-3,7`")
        found += range(int(first), int(last if dash else first) + 1)
    return found


def name_of(number: int) -> str:
    """The name of a model's input of the step, by the model's number from 0."""
    return f"model_{number}" if number else "model"


def _on_hub(source: ChatSource) -> bool:
    """Whether a source is a dataset on the hub, whose split names say whether it is training data."""
    return "." not in PurePath(source.path).name and source.path.count("/") == 1
