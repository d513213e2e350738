"""Options of pruning, and the shape of the student that they define."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import ADDED, RUNTIME, Config, Seed, Size, StepConfig
from prunus.errors import ShapeError
from prunus.models.nest import check_within
from prunus.models.positions import SCALABLE_ROPES
from prunus.models.shape import PRUNABLE, Shape
from prunus.models.sizes import Sizes
from prunus.steps.prune.heal_config import HealConfig

RANKED = {
    "neurons": "intermediate_size",
    "heads": "num_attention_heads",
    "channels": "hidden_size",
    "experts": "num_experts",
    "shared": "shared_expert_intermediate_size",
    "dense": "dense_intermediate_size",
    "conv": "conv_channels",
    "linear_heads": "linear_num_value_heads",
    "ssm_heads": "mamba_num_heads",
}
"""The axes that are ranked, with the names of their sizes in `Shape`."""

GROUPED = (
    ("num_attention_heads", "num_key_value_heads", "KV"),
    ("linear_num_value_heads", "linear_num_key_heads", "key"),
    ("mamba_num_heads", "mamba_n_groups", "groups of"),
)
"""Heads, the heads of their groups, and what these are called."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
"""The name of a size, which becomes part of a student's."""

Aggregation = Literal["mean", "l2", "variance"]
Criterion = Literal["activation", "activation_norm", "taylor", "fisher", "frequency", "reap", "random"]

CHECK_LENGTH = 256
"""Tokens of each sequence on which student and teacher are compared after a cut."""


class Ranking(Config):
    """How the units of one axis are ranked. Shorthand: the name of a criterion."""

    criterion: Criterion = "activation"
    """`activation`: size of the activation (arXiv 2407.14679). `activation_norm`, for neurons: that times the norm of
    the column that reads it. `taylor`: first-order change of the loss when the unit is removed. `fisher`: its square.
    `frequency`, for experts: how many tokens are routed to each. `reap`, for experts: the mean, over these tokens, of
    the router's weight times the norm of the expert's output (arXiv 2510.13999). `random`."""
    batch: Aggregation = "l2"
    """Aggregation of activations over sequences."""
    sequence: Aggregation = "mean"
    """Aggregation of activations over the positions of a sequence."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Accept the name of a criterion in place of a mapping."""
        return {"criterion": raw} if isinstance(raw, str) else raw

    def collect(self) -> set[str]:
        """The statistics that the ranking reads, by their names in `score.collect`."""
        if self.criterion == "random":
            return set()
        if self.criterion in ("frequency", "reap"):
            return {self.criterion}
        return {"gradients"} if self.criterion in ("taylor", "fisher") else {self.sequence}


class ImportanceConfig(Config):
    """Criterion of each axis. Shorthand: one criterion for neurons, heads and channels, or `random` for all axes."""

    neurons: Ranking = Ranking()
    """Neurons of the MLPs, also those of shared experts, and channels of short convolutions."""
    heads: Ranking = Ranking()
    """Query heads, value heads of linear attention, and heads of state-space layers, these by their inputs (arXiv
    2504.11409). A KV head is ranked by its query heads, a key head of linear attention by its value heads, and a group
    of a state-space layer by its heads."""
    channels: Ranking = Ranking()
    """Channels of the residual stream, unless it is rotated."""
    experts: Ranking = Ranking()
    """Experts: `activation` (of the router's probabilities), `frequency`, `reap` or `random`."""
    layers: Literal["block_influence", "lm_loss", "accuracy", "logit_nmse", "refit", "random"] = "block_influence"
    """Layers and blocks of layers. `block_influence`: how little they turn the residual stream. `lm_loss` (also ranks
    by perplexity), `accuracy` on `score.task`, `logit_nmse`: effect of removing them. `refit`, for blocks: KL to the
    teacher without the block, with all other linear layers refitted on as much text as `prune.heal` uses. `random`."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """Accept one criterion for all axes that support it."""
        if not isinstance(raw, str):
            return raw
        axes = ("neurons", "heads", "channels", *(("experts", "layers") if raw == "random" else ()))
        return dict.fromkeys(axes, raw)

    def of(self, axis: str) -> Ranking:
        """The ranking of an axis; all neurons are ranked alike, and all heads."""
        neurons, heads = dict.fromkeys(("shared", "dense", "conv"), "neurons"), ("linear_heads", "ssm_heads")
        ranking: Ranking = getattr(self, {**neurons, **dict.fromkeys(heads, "heads")}.get(axis, axis))
        return ranking

    @model_validator(mode="after")
    def _known(self) -> ImportanceConfig:
        units = ["activation", "taylor", "fisher", "random"]
        allowed_of = {
            "neurons": ["activation", "activation_norm", "taylor", "fisher", "random"],
            "heads": units,
            "channels": units,
            "experts": ["activation", "frequency", "reap", "random"],
        }
        for axis, allowed in allowed_of.items():
            criterion = getattr(self, axis).criterion
            if criterion not in allowed:
                raise ValueError(f"{axis}: {criterion!r} cannot rank {axis}; allowed: {', '.join(allowed)}")
        return self


class PruneConfig(StepConfig):
    """What to keep of the teacher, and how it is chosen."""

    kind: ClassVar[str] = "prune"
    revision: ClassVar[int] = 6

    num_hidden_layers: int | None = Field(default=None, ge=1)
    """Layers to keep (depth)."""
    hidden_size: int | None = Field(default=None, ge=1)
    """Channels of the residual stream to keep (width)."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """Neurons of each MLP to keep (width); in a mixture of experts, of each expert."""
    num_attention_heads: int | None = Field(default=None, ge=1)
    """Query heads to keep (width), the same number in every KV group."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """KV heads to keep (width), each with its query heads."""
    head_dim: int | None = Field(default=None, ge=2)
    """Dimensions of each head to keep (width): the rotary pairs of highest frequency."""
    num_experts: int | None = Field(default=None, ge=1)
    """Experts of each layer to keep, in a mixture of experts."""
    merge_experts: Annotated[Literal["none", "nearest", "clusters"], ADDED] = "none"
    """What becomes of the experts that `num_experts` leaves no place for. `none`: they are dropped. `nearest`: each is
    merged into the kept one whose outputs are nearest to its own. `clusters`: all experts are clustered by their
    outputs, and each cluster becomes one expert (arXiv 2410.08589). A merged expert is the mean, by tokens routed to
    each, with neurons matched; so is its row of the router."""
    num_experts_per_tok: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Experts that are active for each token, in a mixture of experts: those of the highest router weights. Where a
    family normalises these weights they are normalised over fewer; otherwise they stay as they are."""
    shared_expert_intermediate_size: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Neurons of the shared expert to keep, in families whose config has this size; in others, shared experts are cut
    with `intermediate_size`."""
    dense_intermediate_size: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Neurons to keep of each MLP in layers without experts, in a mixture of experts whose first layers have none."""
    linear_num_key_heads: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Key heads of linear attention to keep (width), each with its value heads."""
    linear_num_value_heads: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Value heads of linear attention to keep (width), the same number of every key head."""
    mamba_num_heads: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Heads of state-space layers to keep (width), the same number in every group."""
    mamba_n_groups: Annotated[int | None, ADDED] = Field(default=None, ge=1)
    """Groups of heads of state-space layers to keep (width), each with its heads."""
    vocab_size: int | None = Field(default=None, ge=1)
    """Tokens to keep: all special and byte tokens, then the most frequent ones of the corpus."""
    drop_layers: Literal["contiguous", "single"] | tuple[int, ...] = "contiguous"
    """Layers to drop. `contiguous`: the block of least importance. `single`: one by one, the least important first. Or
    their numbers, counted from 0."""
    importance: ImportanceConfig = ImportanceConfig()
    """Criterion by which units are ranked, for each axis."""
    head_residual: float = Field(default=0.0, ge=-1, le=1)
    """Head residual r: each of the last query heads kept changes from W to W + r (W - W'), where W' is the pruned head
    that it is paired with. 1: as printed in arXiv 2407.14679, section 2.2. Below 0: heads move towards the pruned
    ones."""
    method: Literal["auto", "minitron", "rotate"] = "auto"
    """How the residual stream is cut. `minitron`: keep the best channels unchanged (arXiv 2407.14679). `rotate`: first
    rotate the stream to its principal axes, by one orthogonal matrix for the whole network. `auto`: rotate if the
    family allows it (docs/families.md) and channels are not ranked by `random`."""
    gradient_weight: float = Field(default=1.0, ge=0)
    """With rotation: weight of the loss gradients' covariance relative to the activations', in choosing the principal
    axes. 0: activations only, which are scored without a backward pass."""
    heal: HealConfig = HealConfig()
    """Adjustment of the remaining weights after the cut, before any training."""
    check_samples: int = Field(default=8, ge=0)
    """Sequences of 256 tokens on which student and teacher are compared after the cut (KL and NLL), if there is a
    corpus. Loads both models. A student with at least half of the parameters that is far worse than guessing is
    refused. 0: no check."""
    init: Literal["teacher", "random"] = "teacher"
    """`teacher`: weights cut from the teacher. `random`: new random weights, a baseline of the same shape from
    scratch."""
    like: str | None = None
    """Use the shape of this other student of the recipe."""
    shape: Annotated[Literal["search.best"] | None, RUNTIME] = None
    """`search.best`: use the shape found by the recipe's `search`, cut as its candidates were."""
    via: Annotated[dict[str, int], RUNTIME] = Field(default_factory=dict)
    """Cut in two steps: first to these sizes, then distil on this many `tokens`, score again, and cut the rest, such as
    `{num_hidden_layers: 24, tokens: 100_000_000}`."""
    nest: Annotated[dict[str, Sizes], ADDED] = Field(default={})
    """Several sizes inside one student, by name, each with all that the next smaller one has: `distill` trains them all
    at once, and each becomes a student of its own (docs/nest.md). Their sizes stand here instead of above."""
    seed: Seed = 0
    """Seed of all random choices."""

    @field_validator("nest")
    @classmethod
    def _nest(cls, nest: dict[str, Sizes]) -> dict[str, Sizes]:
        for name in nest:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r:.80} is not a valid name of a size; allowed: letters, digits, - and _")
        if len(nest) == 1:
            raise ValueError(f"{next(iter(nest))} is the only size; give at least two, or no nest")
        return nest

    @model_validator(mode="after")
    def _nest_alone(self) -> PruneConfig:
        """Refuse options that belong to a single size, or whose result fits a single size."""
        if not self.nest:
            if self.heal.inner_weight != 1:
                raise ValueError(
                    f"heal.inner_weight: {self.heal.inner_weight:g}, but there is one size; allowed with nest"
                )
            return self
        refused = {
            **{size: getattr(self, size) is not None for size in PRUNABLE},
            "like": self.like is not None,
            "shape": self.shape is not None,
            "via": bool(self.via),
            "head_residual": self.head_residual != 0,
            "merge_experts": self.merge_experts != "none",
            "init": self.init == "random",
            "drop_layers": not isinstance(self.drop_layers, str),
        }
        given = [option for option, is_given in refused.items() if is_given]
        if given:
            raise ValueError(f"nest: cannot be combined with {', '.join(given)}; the sizes of a nest stand in `nest`")
        if self.importance.layers == "refit":
            raise ValueError("importance.layers: refit ranks layers for one size; with nest, allowed: all others")
        if self.heal.depth != "none":
            raise ValueError("heal.depth: it fits one size; with nest, allowed: none")
        return self

    @field_validator("via")
    @classmethod
    def _via(cls, via: dict[str, int]) -> dict[str, int]:
        known = [size for size in PRUNABLE if size != "vocab_size"]
        for key, value in via.items():
            if key != "tokens" and key not in known:
                raise ValueError(f"{key!r} is not a size of a first cut; allowed: {', '.join(known)}, tokens")
            if value < 1:
                raise ValueError(f"{key}: {value}; it must be at least 1")
        if via and "tokens" not in via:
            raise ValueError("tokens: missing; set how many tokens to distil on between the two cuts")
        return via

    @model_validator(mode="after")
    def _via_chooses_layers(self) -> PruneConfig:
        if self.via and isinstance(self.drop_layers, tuple):
            raise ValueError("drop_layers: with via, layers cannot be listed by number; allowed: contiguous, single")
        return self

    @model_validator(mode="after")
    def _refit_ranks_blocks(self) -> PruneConfig:
        if self.importance.layers == "refit" and self.drop_layers == "single":
            raise ValueError("drop_layers: `refit` ranks blocks, not single layers; allowed: contiguous")
        return self

    @property
    def refits_blocks(self) -> bool:
        """Whether the layers to drop are chosen by refitting the rest of the model without each block."""
        return self.importance.layers == "refit" and isinstance(self.drop_layers, str)

    @property
    def reads_text(self) -> bool:
        """Whether the cut requires the corpus: to count tokens, to heal, or to refit without each block of layers."""
        return self.vocab_size is not None or self.heal.explicit or self.refits_blocks

    @property
    def takes_text(self) -> bool:
        """Whether the cut uses the corpus if there is one: as `reads_text`, or for the check or the refit by `auto`."""
        optional = self.check_samples > 0 or self.heal.refit == "auto"
        return self.reads_text or (optional and self.init == "teacher")

    @field_validator("drop_layers")
    @classmethod
    def _sorted(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) != len(value):
            raise ValueError(f"a layer is listed twice in {list(value)}")
        return value if isinstance(value, str) else tuple(sorted(value))

    def with_defaults(self, size: Size) -> PruneConfig:
        """The options with the size of healing's calibration set filled in for a student of that size."""
        return self.model_copy(update={"heal": self.heal.with_defaults(size)})

    def first_cut(self) -> PruneConfig:
        """The options of the first of two cuts: the same but for the sizes, which are those of `via`."""
        sizes = {size: self.via.get(size) for size in PRUNABLE}
        return self.model_copy(update={**sizes, "via": {}})

    def target(self, teacher: Shape, where: str) -> Shape:
        """The student's shape, checked against the teacher's.

        Args:
            teacher: The teacher's shape.
            where: The name of this config in the recipe, such as `students.width.prune`.

        Returns:
            The shape; of a nest, that of its largest size.

        Raises:
            ShapeError: A dimension is larger than the teacher's, transformers cannot load the shape, `drop_layers` and
                `num_hidden_layers` disagree, or the sizes of a nest do not nest.
        """
        if self.nest:
            return next(iter(self.nested(teacher, where).values()))
        sizes = {key: getattr(self, key) for key in PRUNABLE}
        for size, (of, _, _) in teacher.family.multiples.items():
            if sizes.get(size) is not None:
                raise ShapeError(f"{where}.{size}: in {teacher.family.name} it is a multiple of {of}; set that instead")
        for key, value in sizes.items():
            if value is not None and value > getattr(teacher, key):
                raise ShapeError(f"{where}.{key}: {value} is more than the teacher's {getattr(teacher, key)}")
        sizes["num_hidden_layers"] = self._remaining_layers(teacher.num_hidden_layers, where)
        dense = self._remaining_dense_layers(teacher, sizes["num_hidden_layers"], where)
        self._infer_heads(sizes, teacher)
        self._match_groups(sizes, teacher, where)
        self._check_head_dim(teacher, where)
        target = teacher.with_dimensions({**sizes, "dense_layers": dense})
        if isinstance(self.drop_layers, tuple):
            kept = [layer for layer in range(teacher.num_hidden_layers) if layer not in self.drop_layers]
            target = replace(target, pattern=teacher.of_layers(kept).pattern)
        self._check_runs(teacher, target, where)
        target.check_loadable(where)
        if self.init == "teacher":
            self._check_method(teacher, target, where)
        return target

    def nested(self, teacher: Shape, where: str) -> dict[str, Shape]:
        """The shapes of a nest's sizes by name, the largest first.

        Raises:
            ShapeError: A size cannot be cut from the teacher, or is not inside the next larger one.
        """
        if not teacher.family.nests:
            raise ShapeError(
                f"{where}.nest: a nest of a {teacher.family.name} is not supported, for its layers of several kinds, "
                "shared experts, groups of experts, or experts stacked in one tensor; prune each size by itself"
            )
        shapes = {name: self.of_size(name, teacher).target(teacher, f"{where}.nest.{name}") for name in self.nest}
        sizes = sorted(shapes.items(), key=lambda size: (-size[1].parameters, size[1] != teacher))
        if any(self.of_size(name, teacher).rotates(teacher, shape) for name, shape in sizes):
            for norm in (norm for norms in teacher.family.norms for norm in norms if teacher.family.has_bias(norm)):
                raise ShapeError(
                    f"{where}.method: a nest of a {teacher.family.name} cannot be rotated, since rotated weights that "
                    f"read {norm} give its bias to one size only; allowed: minitron"
                )
        for (large, larger), (small, smaller) in pairwise(sizes):
            check_within(small, smaller, large, larger, f"{where}.nest")
        return dict(sizes)

    def of_size(self, name: str, teacher: Shape) -> PruneConfig:
        """The options of a cut to one size of the nest."""
        biased = any(teacher.family.has_bias(norm) for norms in teacher.family.norms for norm in norms)
        method = {"method": "minitron"} if biased and self.method == "auto" else {}
        return self.model_copy(update={**self.nest[name].model_dump(), "nest": {}, **method})

    def statistics(self, teacher: Shape, target: Shape) -> set[str]:
        """The statistics of the teacher that the cut reads: names in `score.collect`, `cosines` and `energies`.

        Empty if no scores are needed: random weights, random choices, or layers dropped by number.
        """
        if self.nest:
            sizes = self.nested(teacher, "prune")
            return set().union(
                *(self.of_size(name, teacher).statistics(teacher, shape) for name, shape in sizes.items())
            )
        if self.init == "random":
            return set()
        needed: set[str] = set()
        for axis, size in RANKED.items():
            if getattr(target, size) < getattr(teacher, size):
                if axis == "channels" and self.rotates(teacher, target):
                    needed |= {"covariance", "gradient_covariance"} if self.gradient_weight else {"covariance"}
                else:
                    needed |= self.importance.of(axis).collect()
        if self.merges(teacher, target):
            needed |= {"frequency", "products"}
        if target.head_dim < teacher.head_dim and self.importance.heads.criterion != "random":
            needed.add("energies")  # to scale the gains of norms over heads; see `compensate`
        by_score = self.importance.layers not in ("random", "refit") and isinstance(self.drop_layers, str)
        if by_score and target.num_hidden_layers < teacher.num_hidden_layers:
            needed.add("cosines" if self.importance.layers == "block_influence" else self.importance.layers)
        return needed

    def heals(self, teacher: Shape, target: Shape) -> bool:
        """Whether the student is healed, or healing is tried, if there is text."""
        if self.heal.refit != "auto":
            return self.heal.explicit
        if self.nest:
            return bool(teacher.family.feeds)
        smaller = target != teacher and target.vocab_size == teacher.vocab_size
        return smaller and self.init == "teacher" and self.method != "minitron" and bool(teacher.family.feeds)

    def merges(self, teacher: Shape, target: Shape) -> bool:
        """Whether experts are merged."""
        return self.merge_experts != "none" and self.init == "teacher" and target.num_experts < teacher.num_experts

    def rotates(self, teacher: Shape, target: Shape) -> bool:
        """Whether the residual stream is rotated before it is cut; of a nest, if that is so for any size."""
        if self.nest:
            sizes = self.nested(teacher, "prune")
            return any(self.of_size(name, teacher).rotates(teacher, shape) for name, shape in sizes.items())
        if self.init == "random" or target.hidden_size == teacher.hidden_size:
            return False
        by_default = _cannot_rotate(teacher) is None and self.importance.channels.criterion != "random"
        return self.method == "rotate" or (self.method == "auto" and by_default)

    def _remaining_layers(self, layers: int, where: str) -> int:
        if isinstance(self.drop_layers, str):
            return self.num_hidden_layers or layers
        outside = [layer for layer in self.drop_layers if not 0 <= layer < layers]
        if outside:
            raise ShapeError(f"{where}.drop_layers: {outside[0]}; the teacher has layers 0 to {layers - 1}")
        remaining = layers - len(self.drop_layers)
        if not remaining:
            raise ShapeError(f"{where}.drop_layers: lists all {layers} layers; keep at least one")
        if self.num_hidden_layers not in (None, remaining):
            raise ShapeError(
                f"{where}.num_hidden_layers: {self.num_hidden_layers}, but drop_layers leaves {remaining} of {layers}"
            )
        return remaining

    def _remaining_dense_layers(self, teacher: Shape, layers: int, where: str) -> int:
        """How many layers without experts remain: all, unless layers are dropped by number."""
        dense = teacher.dense_layers
        if not isinstance(self.drop_layers, str):
            return dense - sum(layer < dense for layer in self.drop_layers)
        if layers < teacher.num_hidden_layers and layers <= dense:
            raise ShapeError(
                f"{where}.num_hidden_layers: {layers}, but the first {dense} layers have no experts and are kept "
                f"unless drop_layers lists them; allowed: more than {dense}"
            )
        return dense

    def _check_runs(self, teacher: Shape, target: Shape, where: str) -> None:
        """Refuse to drop all layers with attention, without which transformers' cache does not work."""
        layers = teacher.num_hidden_layers
        needs = f"transformers runs a {teacher.family.name} only with a layer of attention"
        if isinstance(self.drop_layers, tuple):
            if not target.runs(range(target.num_hidden_layers)):
                having = [str(layer) for layer in range(layers) if teacher.has_units("heads", layer)]
                raise ShapeError(f"{where}.drop_layers: {needs}; keep one of the layers {', '.join(having)}")
        elif self.drop_layers == "contiguous" and not teacher.droppable(layers - target.num_hidden_layers):
            allowed = [count for count in range(1, layers + 1) if teacher.droppable(layers - count)]
            nearest = min(allowed, key=lambda count: abs(count - target.num_hidden_layers))
            raise ShapeError(
                f"{where}.num_hidden_layers: {target.num_hidden_layers}; {needs}, and every block of "
                f"{layers - target.num_hidden_layers} layers has all of them; nearest that works: {nearest}, or "
                "drop_layers: single"
            )

    @staticmethod
    def _infer_heads(sizes: dict[str, int | None], teacher: Shape) -> None:
        """Fill in heads from the hidden size in a square family, and KV heads where each has one query head."""
        hidden = sizes["hidden_size"]
        if teacher.family.square and hidden and sizes["num_attention_heads"] is None:
            sizes["num_attention_heads"] = max(1, hidden // teacher.head_dim)
        if teacher.num_key_value_heads == teacher.num_attention_heads and sizes["num_key_value_heads"] is None:
            sizes["num_key_value_heads"] = sizes["num_attention_heads"]

    def _check_head_dim(self, teacher: Shape, where: str) -> None:
        if self.head_dim is None or self.head_dim == teacher.head_dim:
            return
        if "head_dim" in teacher.family.absent:
            raise ShapeError(f"{where}.head_dim: {teacher.family.name}'s config has no head_dim; cut heads instead")
        if self.head_dim % 2:
            raise ShapeError(
                f"{where}.head_dim: {self.head_dim} is odd; rotary position embeddings need an even number"
            )
        if self.head_dim < (teacher.least_head_dim or 0):
            raise ShapeError(
                f"{where}.head_dim: {self.head_dim}; with the yarn of this teacher, {teacher.least_head_dim} or more "
                "keep the frequencies of rotary pairs"
            )
        others = teacher.rope_types - SCALABLE_ROPES
        if others:
            raise ShapeError(
                f"{where}.head_dim: this teacher's rotary position embeddings are of type {', '.join(sorted(others))}, "
                f"and no config keeps their frequencies with fewer dimensions; allowed with types: "
                f"{', '.join(sorted(SCALABLE_ROPES))}"
            )

    def _check_method(self, teacher: Shape, target: Shape, where: str) -> None:
        reason = _cannot_rotate(teacher)
        if reason and self.method == "rotate" and self.rotates(teacher, target):
            raise ShapeError(f"{where}.method: {reason}; allowed: minitron")
        by_gradient = self.importance.neurons.criterion in ("taylor", "fisher")
        if teacher.num_experts and by_gradient and target.intermediate_size < teacher.intermediate_size:
            raise ShapeError(
                f"{where}.importance.neurons: {self.importance.neurons.criterion!r} cannot rank neurons of experts; "
                "allowed: activation, activation_norm, random"
            )
        if self.heal.explicit and not teacher.family.feeds:
            raise ShapeError(
                f"{where}.heal: {teacher.family.name} normalises what its layers write to the residual stream, so "
                "linear layers cannot be refitted; remove this option"
            )
        if self.refits_blocks and not teacher.family.feeds:
            raise ShapeError(
                f"{where}.importance.layers: {teacher.family.name} normalises what its layers write to the residual "
                "stream, so linear layers cannot be refitted; allowed: any but refit"
            )
        if self.heal.explicit and target.vocab_size < teacher.vocab_size:
            raise ShapeError(
                f"{where}.heal: a student with a cut vocabulary reads other tokens than its teacher; remove this option"
            )

    @staticmethod
    def _match_groups(sizes: dict[str, int | None], teacher: Shape, where: str) -> None:
        """Fill in heads of `GROUPED` from their groups, and check that all groups have the same number of them."""
        for size, of, named in GROUPED:
            if not getattr(teacher, size):
                continue
            group = getattr(teacher, size) // getattr(teacher, of)
            groups = sizes[of] or getattr(teacher, of)
            heads = sizes[size] or groups * group
            sizes[size] = heads
            if heads % groups or heads // groups > group:
                allowed = ", ".join(str(groups * n) for n in range(1, group + 1))
                raise ShapeError(
                    f"{where}.{size}: {heads} heads cannot be shared by {groups} {named} heads of at most {group} "
                    f"each; allowed: {allowed}"
                )


def _cannot_rotate(teacher: Shape) -> str | None:
    """The reason why a teacher's residual stream cannot be rotated; None if it can."""
    family = teacher.family
    if family.rotation == "never":
        return (
            f"{family.name} normalises what its layers write to the residual stream, with gains that cannot be folded "
            "into linear layers, so it cannot be rotated"
        )
    if family.rotation == "untied" and teacher.flags.get("tie_word_embeddings", False):
        return (
            f"this {family.name} model ties its embeddings, and with tied embeddings the final LayerNorm's gains "
            "cannot be folded into the LM head, so it cannot be rotated"
        )
    return None
