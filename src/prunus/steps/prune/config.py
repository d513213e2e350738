"""Options of pruning, and the shape that they ask for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prunus.config import RUNTIME, Config, Seed, Size, StepConfig
from prunus.errors import ShapeError
from prunus.models.shape import PRUNABLE, Shape
from prunus.steps.prune.heal_config import HealConfig

SCALABLE_ROPES = frozenset({"default", "linear", "llama3"})
"""Rotary positions that are a function of each pair's speed alone, and so follow a change of theta."""

RANKED = {
    "neurons": "intermediate_size",
    "heads": "num_attention_heads",
    "channels": "hidden_size",
    "experts": "num_experts",
}
"""The axes that are ranked, and what a `Shape` calls their sizes."""

Aggregation = Literal["mean", "l2", "variance"]


class Ranking(Config):
    """How the units of one axis are ranked. Shorthand: the name of a criterion."""

    criterion: Literal["activation", "activation_norm", "taylor", "fisher", "random"] = "activation"
    """`activation`: size of the activation (arXiv 2407.14679). `activation_norm`, for neurons: that times the norm of
    the column that reads it. `taylor`: first-order change of the loss when the unit is removed. `fisher`: its square.
    `random`."""
    batch: Aggregation = "l2"
    """Aggregation of activations over sequences."""
    sequence: Aggregation = "mean"
    """Aggregation of activations over the positions of a sequence."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A criterion alone stands for a ranking."""
        return {"criterion": raw} if isinstance(raw, str) else raw

    def collect(self) -> set[str]:
        """The statistics that it is made of, by the names of `score.collect`."""
        if self.criterion == "random":
            return set()
        return {"gradients"} if self.criterion in ("taylor", "fisher") else {self.sequence}


class ImportanceConfig(Config):
    """Criterion of each axis. Shorthand: one criterion for neurons, heads and channels, or `random` for all axes."""

    neurons: Ranking = Ranking()
    """Neurons of the MLPs."""
    heads: Ranking = Ranking()
    """Query heads. A KV head is ranked by its query heads."""
    channels: Ranking = Ranking()
    """Channels of the residual stream, unless it is rotated."""
    experts: Ranking = Ranking()
    """Experts, by their router probabilities: `activation` or `random`."""
    layers: Literal["block_influence", "lm_loss", "accuracy", "logit_nmse", "refit", "random"] = "block_influence"
    """Layers and blocks of layers. `block_influence`: how little they turn the residual stream. `lm_loss` (also ranks
    by perplexity), `accuracy` on `score.task`, `logit_nmse`: effect of removing them. `refit`, for blocks: KL to the
    teacher without the block, with all other linear layers refitted on as much text as `prune.heal` uses. `random`."""

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, raw: Any) -> Any:
        """A criterion alone stands for all axes that know it."""
        if not isinstance(raw, str):
            return raw
        axes = ("neurons", "heads", "channels", *(("experts", "layers") if raw == "random" else ()))
        return dict.fromkeys(axes, raw)

    @model_validator(mode="after")
    def _known(self) -> ImportanceConfig:
        for axis in ("heads", "channels", "experts"):
            found = getattr(self, axis).criterion
            allowed = ["activation", "random"] if axis == "experts" else ["activation", "taylor", "fisher", "random"]
            if found not in allowed:
                raise ValueError(f"{axis}: {found!r} ranks no {axis}; allowed: {', '.join(allowed)}")
        return self


class PruneConfig(StepConfig):
    """What to keep of the teacher, and how it is chosen."""

    kind: ClassVar[str] = "prune"
    revision: ClassVar[int] = 5

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
    seed: Seed = 0
    """Seed of all random choices."""

    @field_validator("via")
    @classmethod
    def _via(cls, via: dict[str, int]) -> dict[str, int]:
        known = [size for size in PRUNABLE if size != "vocab_size"]
        for key, value in via.items():
            if key != "tokens" and key not in known:
                raise ValueError(f"{key!r} is no size that can be cut on the way; allowed: {', '.join(known)}, tokens")
            if value < 1:
                raise ValueError(f"{key}: {value}; it must be at least 1")
        if via and "tokens" not in via:
            raise ValueError("tokens: missing; say how long to distil between the two cuts")
        return via

    @model_validator(mode="after")
    def _by_number_once(self) -> PruneConfig:
        if self.via and isinstance(self.drop_layers, tuple):
            raise ValueError(
                "drop_layers: layers by number leave nothing to choose on the way; allowed with via: a rule"
            )
        return self

    @model_validator(mode="after")
    def _blocks_alone(self) -> PruneConfig:
        if self.importance.layers == "refit" and self.drop_layers == "single":
            raise ValueError("drop_layers: single layers are not refitted one by one; allowed with `refit`: contiguous")
        return self

    @property
    def refits_blocks(self) -> bool:
        """Whether a refit of what stays says which layers go."""
        return self.importance.layers == "refit" and isinstance(self.drop_layers, str)

    @property
    def reads_text(self) -> bool:
        """Whether the cut reads the corpus: to count words, to heal, or to refit what a block leaves behind."""
        return self.vocab_size is not None or self.heal.asked or self.refits_blocks

    @property
    def takes_text(self) -> bool:
        """Whether the cut is given the corpus where there is one: to be read, or for the check after it."""
        tried = self.check_samples > 0 or self.heal.refit == "auto"
        return self.reads_text or (tried and self.init == "teacher")

    @field_validator("drop_layers")
    @classmethod
    def _sorted(cls, value: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if isinstance(value, tuple) and len(set(value)) != len(value):
            raise ValueError(f"a layer is named twice in {list(value)}")
        return value if isinstance(value, str) else tuple(sorted(value))

    def with_defaults(self, size: Size) -> PruneConfig:
        """The same, with what it is healed by as it suits a student of that size."""
        return self.model_copy(update={"heal": self.heal.with_defaults(size)})

    def first_cut(self) -> PruneConfig:
        """The options of the first of two cuts: the same, with the sizes of `via`."""
        sizes = {size: self.via.get(size) for size in PRUNABLE}
        return self.model_copy(update={**sizes, "via": {}})

    def target(self, teacher: Shape, where: str) -> Shape:
        """The student's shape, checked against the teacher's.

        Args:
            teacher: The shape to cut from.
            where: The name of this config in the recipe, such as `students.width.prune`.

        Raises:
            ShapeError: A dimension is larger than the teacher's, no loader takes it, or the layers do not add up.
        """
        wanted = {key: getattr(self, key) for key in PRUNABLE}
        for key, value in wanted.items():
            if value is not None and value > getattr(teacher, key):
                raise ShapeError(f"{where}.{key}: {value} is more than the teacher's {getattr(teacher, key)}")
        wanted["num_hidden_layers"] = self._layers_left(teacher.num_hidden_layers, where)
        self._follow_heads(wanted, teacher)
        self._follow_groups(wanted, teacher, where)
        self._check_head_dim(teacher, where)
        target = teacher.with_dimensions(wanted)
        target.check_loadable(where)
        if self.init == "teacher":
            self._check_method(teacher, target, where)
        return target

    def statistics(self, teacher: Shape, target: Shape) -> set[str]:
        """What of the teacher's scores the cut reads: names of `score.collect`, and `cosines` and `energies`.

        Empty where nothing needs scoring: random weights, chance, or layers dropped by number.
        """
        if self.init == "random":
            return set()
        wanted: set[str] = set()
        for axis, size in RANKED.items():
            if getattr(target, size) < getattr(teacher, size):
                if axis == "channels" and self.rotates(teacher, target):
                    wanted |= {"covariance", "gradient_covariance"} if self.gradient_weight else {"covariance"}
                else:
                    wanted |= getattr(self.importance, axis).collect()
        if target.head_dim < teacher.head_dim and self.importance.heads.criterion != "random":
            wanted.add("energies")  # which norms over heads make up for what goes
        by_score = self.importance.layers not in ("random", "refit") and isinstance(self.drop_layers, str)
        if by_score and target.num_hidden_layers < teacher.num_hidden_layers:
            wanted.add("cosines" if self.importance.layers == "block_influence" else self.importance.layers)
        return wanted

    def heals(self, teacher: Shape, target: Shape) -> bool:
        """Whether the cut is healed, or a refit of it is tried, where there is text."""
        if self.heal.refit != "auto":
            return self.heal.asked
        smaller = target != teacher and target.vocab_size == teacher.vocab_size
        return smaller and self.init == "teacher" and self.method != "minitron" and bool(teacher.family.feeds)

    def rotates(self, teacher: Shape, target: Shape) -> bool:
        """Whether the residual stream is rotated before it is cut."""
        if self.init == "random" or target.hidden_size == teacher.hidden_size:
            return False
        by_itself = _cannot_rotate(teacher) is None and self.importance.channels.criterion != "random"
        return self.method == "rotate" or (self.method == "auto" and by_itself)

    def _layers_left(self, layers: int, where: str) -> int:
        if isinstance(self.drop_layers, str):
            return self.num_hidden_layers or layers
        outside = [layer for layer in self.drop_layers if not 0 <= layer < layers]
        if outside:
            raise ShapeError(f"{where}.drop_layers: the teacher has layers 0 to {layers - 1}, and no {outside[0]}")
        left = layers - len(self.drop_layers)
        if not left:
            raise ShapeError(f"{where}.drop_layers: names all {layers} layers; at least one must stay")
        if self.num_hidden_layers not in (None, left):
            raise ShapeError(
                f"{where}.num_hidden_layers: {self.num_hidden_layers}, but drop_layers leaves {left} of {layers}"
            )
        return left

    @staticmethod
    def _follow_heads(wanted: dict[str, int | None], teacher: Shape) -> None:
        """Fill in what follows: heads from a square family's hidden size, KV heads where each has one query head."""
        hidden = wanted["hidden_size"]
        if teacher.family.square and hidden and wanted["num_attention_heads"] is None:
            wanted["num_attention_heads"] = max(1, hidden // teacher.head_dim)
        if teacher.num_key_value_heads == teacher.num_attention_heads and wanted["num_key_value_heads"] is None:
            wanted["num_key_value_heads"] = wanted["num_attention_heads"]

    def _check_head_dim(self, teacher: Shape, where: str) -> None:
        if self.head_dim is None or self.head_dim == teacher.head_dim:
            return
        if "head_dim" in teacher.family.absent:
            raise ShapeError(f"{where}.head_dim: {teacher.family.name} has no head_dim of its own; cut heads instead")
        if self.head_dim % 2:
            raise ShapeError(f"{where}.head_dim: {self.head_dim} is odd, and rotary positions turn pairs")
        others = teacher.rope_types - SCALABLE_ROPES
        if others:
            raise ShapeError(
                f"{where}.head_dim: this teacher's rotary positions are {', '.join(sorted(others))}, whose speeds no "
                f"config can keep for fewer dimensions; that can be done for {', '.join(sorted(SCALABLE_ROPES))}"
            )

    def _check_method(self, teacher: Shape, target: Shape, where: str) -> None:
        reason = _cannot_rotate(teacher)
        if reason and self.method == "rotate" and self.rotates(teacher, target):
            raise ShapeError(f"{where}.method: {reason}; allowed: minitron")
        by_gradient = self.importance.neurons.criterion in ("taylor", "fisher")
        if teacher.num_experts and by_gradient and target.intermediate_size < teacher.intermediate_size:
            raise ShapeError(
                f"{where}.importance.neurons: {self.importance.neurons.criterion!r} ranks no neurons of experts; "
                "allowed: activation, activation_norm, random"
            )
        if self.heal.asked and not teacher.family.feeds:
            raise ShapeError(
                f"{where}.heal: {teacher.family.name} normalises what its layers write to the residual stream, and no "
                "weight of theirs can be fitted to it alone; leave it out"
            )
        if self.refits_blocks and not teacher.family.feeds:
            raise ShapeError(
                f"{where}.importance.layers: {teacher.family.name} normalises what its layers write to the residual "
                "stream, and no weight of theirs can be fitted to it alone; allowed: any but refit"
            )
        if self.heal.asked and target.vocab_size < teacher.vocab_size:
            raise ShapeError(
                f"{where}.heal: a student with a cut vocabulary reads other tokens than its teacher; leave it out"
            )

    @staticmethod
    def _follow_groups(wanted: dict[str, int | None], teacher: Shape, where: str) -> None:
        """Keep heads and KV heads in step: a group goes with its heads, and every group keeps as many."""
        group = teacher.num_attention_heads // teacher.num_key_value_heads
        groups = wanted["num_key_value_heads"] or teacher.num_key_value_heads
        heads = wanted["num_attention_heads"] or groups * group
        wanted["num_attention_heads"] = heads
        if heads % groups or heads // groups > group:
            allowed = ", ".join(str(groups * n) for n in range(1, group + 1))
            raise ShapeError(
                f"{where}.num_attention_heads: {heads} heads cannot be shared by {groups} KV heads of at most {group} "
                f"each; allowed: {allowed}"
            )


def _cannot_rotate(teacher: Shape) -> str | None:
    """Why a teacher's residual stream cannot be rotated; None where it can."""
    family = teacher.family
    if not family.feeds:
        return (
            f"{family.name} normalises what its layers write to the residual stream, with gains that no linear can "
            "take in, so it cannot be rotated"
        )
    if family.layer_norm and teacher.flags.get("tie_word_embeddings", False):
        return (
            f"this {family.name}'s embeddings are tied, and a tied head cannot keep a LayerNorm's gains in another "
            "basis, so it cannot be rotated"
        )
    return None
