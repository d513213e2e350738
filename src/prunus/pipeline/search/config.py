"""Options of the shape search; in a recipe also how candidates are cut and recovered."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import Config, Seed, StepConfig, parse
from prunus.data.config import Source
from prunus.models.shape import PRUNABLE
from prunus.pipeline.search.limits import from_yaml, quantity
from prunus.steps.distill.config import DistillConfig
from prunus.steps.prune.config import PruneConfig

Axis = Literal[
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
]
RECORD = "search.json"
"""The record of a search."""

Way = Literal["once", "depth_first", "halfway"]


class Limit(Config):
    """One limit of a budget. Shorthand: a text such as `q4_k_m file <= 2 GB`."""

    what: Literal["parameters", "non_embedding_parameters", "file", "memory", "flops", "latency"]
    """What is limited. `file`: bytes of the file in `format`. `memory`: bytes of the weights and of the KV cache for
    `batch` sequences of `context` tokens. `flops`: FLOPs of the forward pass, per token. `latency`: seconds to generate
    one token, measured on this machine."""
    at_most: float = Field(gt=0)
    """Largest value: parameters, bytes, FLOPs or seconds, or a number with a unit (`2 GB`, `4B`, `20 ms`). A percentage
    is a share of the teacher's value."""
    of_teacher: bool = False
    """Treat `at_most` as a share of the teacher's value."""
    format: str | None = None
    """File format, such as `gguf-q4_k_m` or just `q4_k_m`. If unset, `memory` counts weights in 16 bits."""
    context: int | None = Field(default=None, ge=1)
    """Context length in tokens. If unset: the model's longest; for `flops`, at most 4096."""
    batch: int = Field(default=1, ge=1)
    """Sequences whose KV cache is in memory at the same time."""
    engine: Literal["llama.cpp", "torch"] = "llama.cpp"
    """Engine that `latency` is measured in."""

    @model_validator(mode="before")
    @classmethod
    def _units(cls, raw: Any) -> Any:
        """Parse a number with a unit."""
        if isinstance(raw, dict) and isinstance(raw.get("at_most"), str) and isinstance(raw.get("what"), str):
            return {**raw, **quantity(raw["at_most"], raw["what"])}
        return raw

    @field_validator("format")
    @classmethod
    def _prefixed(cls, name: str | None) -> str | None:
        return name if name is None or name.startswith("gguf-") else f"gguf-{name.lower()}"

    @model_validator(mode="after")
    def _has_format(self) -> Limit:
        if self.what == "file" and self.format is None:
            raise ValueError("format: missing; name one, such as `q4_k_m file <= 2 GB`")
        return self

    @property
    def label(self) -> str:
        """Name of what is limited, for tables and messages."""
        kind = (self.format or "").removeprefix("gguf-")
        if self.what == "file":
            return f"{kind} file"
        if self.what == "memory":
            batch = f" batch {self.batch}" if self.batch > 1 else ""
            return f"{kind + ' ' if kind else ''}context {self.context or 'whole'}{batch}"
        if self.what == "latency":
            return f"{self.engine} {kind + ' ' if kind else ''}decode"
        return {"flops": "FLOPs per token", "parameters": "parameters"}.get(self.what, "non-embedding parameters")


class SearchConfig(StepConfig):
    """Search for a shape: candidates under a budget are cut, briefly recovered, and ranked by their loss after that."""

    budget: tuple[Limit, ...] = ()
    """Limits of a student, all of which must hold: a text such as `q4_k_m file <= 2.0 GB, context 8192 in <= 3 GB`, or
    a list of limits with their options."""
    within: float = Field(default=0.05, gt=0, lt=1)
    """Tolerance: how far below the tightest limit a candidate may fall, as a fraction of that limit."""
    axes: tuple[Axis, ...] = (
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
    )
    """Dimensions that may be cut. The others keep the teacher's size."""
    multiples: dict[Axis, int] = Field(default_factory=dict)
    """Step size of each axis: sizes are multiples of it. If unset: the block size of the budget's format if that leaves
    enough sizes, else a power of two; coarser where an axis would have more than 16 sizes (evolution also tries those
    between)."""
    least: float = Field(default=0.25, gt=0, lt=1)
    """Smallest size of an axis, as a fraction of the teacher's size."""
    ways: tuple[Way, ...] = ("once",)
    """Cutting schedules to try, each as a candidate of its own with the same total tokens. `once`: one cut.
    `depth_first`: layers, a short distillation, then width. `halfway`: all axes half of the way, a short distillation,
    then the rest."""
    layer_choices: int = Field(default=1, ge=1)
    """How many sets of dropped layers to try for each shape with fewer layers: first what `prune.drop_layers` chooses,
    then the other of `contiguous` and `single`, then further blocks. Only recovery shows which layers are missed least
    (docs/search.md)."""
    candidates: int = Field(default=16, ge=2)
    """How many candidates to cut and recover at most; only a single shape with several variants may exceed it. If more
    fit, they are thinned by the teacher's scores, depth by depth, and half of the places are left to evolution if there
    are `generations`."""
    generations: int = Field(default=2, ge=0)
    """Generations of evolution: better candidates are crossed and mutated to fill the places that thinning left
    free."""
    rungs: int = Field(default=3, ge=1)
    """Rounds of successive halving. The first trains each candidate on `distill.tokens`; each later one on `eta` times
    as many, counted in total."""
    eta: int = Field(default=2, ge=2)
    """Halving factor: one in `eta` candidates advances to the next rung."""
    rank_by: Literal["kl", "nll", "bits_per_byte"] | None = None
    """Metric that candidates are ranked by, on text that nothing trains on. If unset: KL to the teacher, or bits per
    byte if the vocabulary is cut."""
    ranking_tokens: int = Field(default=200_000, ge=2)
    """Tokens of the text that candidates are ranked on."""
    text: tuple[Source, ...] = ()
    """Text to rank on, never the evaluation's. If unset: documents of the corpus, set aside by their hash."""
    seed: Seed = 0
    """Seed of evolution and of the candidates' training."""

    @field_validator("budget", mode="before")
    @classmethod
    def _read(cls, raw: Any) -> Any:
        return from_yaml(raw)

    @model_validator(mode="after")
    def _consistent(self) -> SearchConfig:
        if "vocab_size" in self.axes and self.rank_by == "kl":
            raise ValueError("rank_by: kl needs equal vocabularies; with vocab_size among axes, use bits_per_byte")
        if self.layer_choices > 1 and "once" not in self.ways:
            raise ValueError("layer_choices: applies to shapes with a single cut; add `once` to ways")
        if self.layer_choices > 1 and "num_hidden_layers" not in self.axes:
            raise ValueError("layer_choices: no layers are dropped unless num_hidden_layers is among axes; add it, "
                             "or remove layer_choices")  # fmt: skip
        if not self.axes:
            raise ValueError("axes: empty; give at least one dimension")
        return self

    @property
    def measure(self) -> str:
        """The metric that candidates are ranked by; lower is better."""
        return self.rank_by or ("bits_per_byte" if "vocab_size" in self.axes else "kl")

    def tokens_at(self, rung: int, first: int) -> int:
        """Tokens that a candidate has been recovered on after a rung, counted from 0."""
        return first * self.eta**rung


class ShapeSearch(SearchConfig):
    """Search for a shape: candidates under a budget are cut, briefly recovered, and ranked by their loss after that."""

    kind: ClassVar[str] = "search"
    revision: ClassVar[int] = 3

    prune: PruneConfig = PruneConfig()
    """How candidates are cut, except for their sizes. The student that takes the best shape is cut the same way."""
    distill: DistillConfig
    """How candidates are recovered. Unset options are inherited from the recipe's `distill`, except `tokens` (those of
    the first rung), `data` and `targets`."""

    @model_validator(mode="after")
    def _recovers(self) -> ShapeSearch:
        taken = [key for key in (*PRUNABLE, "like", "shape") if getattr(self.prune, key) is not None]
        if taken or self.prune.via or self.prune.init == "random" or isinstance(self.prune.drop_layers, tuple):
            name = (taken or ["via" if self.prune.via else "init" if self.prune.init == "random" else "drop_layers"])[0]
            raise ValueError(f"prune.{name}: the search decides the shape and cuts it from the teacher; remove it")
        if self.layer_choices > 1 and self.prune.importance.layers in ("random", "refit"):
            raise ValueError("layer_choices: needs scores of layers; importance.layers `random` and `refit` have none")
        if not self.distill.tokens:
            raise ValueError("distill.tokens: 0 would rank candidates before recovery, when the ranking is unreliable")
        if self.distill.data != "corpus" or self.distill.targets != "online":
            raise ValueError("distill: candidates are recovered on the corpus with online targets; allowed: "
                             "data: corpus, targets: online")  # fmt: skip
        for rung in range(1 if self.rungs > 1 else 0):
            self.recovery(rung + 1)
        if self.ways != ("once",):
            self.recovery(0, between=True)
        return self

    def recovery(self, rung: int, between: bool = False) -> DistillConfig:
        """The distillation of a rung: its tokens minus the previous rung's, with the text in another order.

        Args:
            rung: Counted from 0.
            between: Whether half of the first rung's tokens are used between two cuts.

        Raises:
            RecipeError: The tokens leave no step after the warm-up.
        """
        first = self.distill.tokens
        tokens = self.tokens_at(rung, first) - (self.tokens_at(rung - 1, first) if rung else 0)
        if between and not rung:
            tokens -= first // 2
        changed = {"tokens": tokens, "seed": (self.distill.seed + rung) % 2**32, "validation": 0}
        return parse(DistillConfig, {**self.distill.model_dump(), **changed}, "search.distill")
