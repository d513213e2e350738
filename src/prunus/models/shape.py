"""Shape: the dimensions of a model, and what follows from them without reading weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod, sqrt
from typing import Any

from prunus.config import Size
from prunus.errors import ModelError, ShapeError
from prunus.models.axes import AXES, Weight, parse_weight
from prunus.models.families.family import OF_KINDS, OF_MIXTURES, Family
from prunus.models.positions import rope_types, yarn_end
from prunus.models.settings import MAX_EXPERTS, MAX_LAYERS, MAX_SIZE, check_whole, read_pattern, read_size

PRUNABLE = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "shared_expert_intermediate_size",
    "dense_intermediate_size",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "mamba_num_heads",
    "mamba_n_groups",
    "vocab_size",
)
"""The dimensions that pruning can reduce."""

_EXPERT_ROW = 8  # values of 16 bits in 16 bytes
_BLOCK = 64  # two blocks of Q8_0 and Q4_0; K-quants have 256


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder, by transformers' usual names, which its config.json may not use.

    Attributes:
        family: The family, whose table lists the weights.
        intermediate_size: Neurons of each MLP; in a mixture of experts, of each expert.
        num_experts: Experts of each layer; 0 in models without.
        num_experts_per_tok: Active experts per token.
        shared_expert_intermediate_size: Neurons of the experts of all tokens, together; 0 without.
        dense_intermediate_size: Neurons of the MLP of each layer without experts, in a mixture of experts.
        dense_layers: The first layers of a mixture of experts that have no experts.
        conv_channels: Channels of each short convolution.
        conv_kernel: Tokens that it spans, or the convolution before linear attention does.
        mamba_num_heads: Heads of each state-space layer (Mamba-2).
        mamba_n_groups: Groups of these, each of which has its own B and C.
        mamba_head_dim: Dimensions of each of these heads.
        ssm_state_size: The state's values for each of these dimensions.
        linear_num_key_heads: Heads of the queries and keys of linear attention.
        linear_num_value_heads: Heads of its values; each key head has equally many.
        linear_key_head_dim: Dimensions of each of its key heads.
        linear_value_head_dim: Dimensions of each of its value heads.
        pattern: The kind of each layer, in families with a `Family.pattern`; else empty.
        expert_groups: The groups that a layer's experts are divided into for routing; 0 if there are none.
        routed_groups: How many of them a token's experts are taken from.
        q_lora_rank: The rank of the queries' projection, in latent attention (MLA); 0 if they are not compressed.
        kv_lora_rank: The rank of keys and values there; 0 in other attention.
        qk_nope_head_dim: What each head has of queries and keys without positions, there.
        qk_rope_head_dim: What it has with positions, there; `head_dim` is what it has of values.
        rope_types: The types of rotary positions, by transformers' names (`default`, `llama3`, `yarn`, ...); also
            `partial` if only a part of a head's dimensions is rotated.
        least_head_dim: The least head_dim with which yarn keeps its frequencies; None with other positions.
        flags: The boolean keys of config.json that decide which weights exist, such as `tie_word_embeddings`.
    """

    family: Family = field(repr=False)
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    num_experts: int = 0
    num_experts_per_tok: int = 0
    shared_expert_intermediate_size: int = 0
    dense_intermediate_size: int = 0
    dense_layers: int = 0
    expert_groups: int = 0
    routed_groups: int = 0
    conv_channels: int = 0
    conv_kernel: int = 0
    mamba_num_heads: int = 0
    mamba_n_groups: int = 0
    mamba_head_dim: int = 0
    ssm_state_size: int = 0
    linear_num_key_heads: int = 0
    linear_num_value_heads: int = 0
    linear_key_head_dim: int = 0
    linear_value_head_dim: int = 0
    pattern: tuple[str, ...] = field(default=(), repr=False)
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    rope_types: frozenset[str] = field(default=frozenset(), repr=False)
    least_head_dim: int | None = field(default=None, repr=False)
    flags: Mapping[str, bool] = field(default_factory=dict, repr=False)

    def size(self, teacher: Shape | None = None) -> Size:
        """The properties from which unset options are derived; for a student, relative to its teacher."""
        widest = max(self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim)
        size = Size(self.hidden_size, self.max_position_embeddings, widest)
        if teacher is None:
            return size
        return replace(size, cut=max(0.0, 1 - self.non_embedding_parameters / teacher.non_embedding_parameters))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], family: Family, where: str) -> Shape:
        """Read the dimensions from a config.json.

        Raises:
            ModelError: A dimension is missing, or is not a positive whole number.
        """
        config = family.plain(dict(config))

        def read(size: str, default: int | None = None) -> int:
            return read_size(config, family, size, where, default)

        heads, hidden = read("num_attention_heads"), read("hidden_size")
        kv_heads = read("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ModelError(f"{where}: config.json: {heads} query heads cannot be shared by {kv_heads} KV heads")
        head_dim, rotary = read("head_dim", hidden // heads), family.rotary
        layers, mlp = read("num_hidden_layers"), read("intermediate_size")
        optional = ("num_experts", *OF_MIXTURES, *OF_KINDS)
        sizes = {size: read(size) for size in optional if size not in family.lacking}
        for size, of in ("linear_num_value_heads", "linear_num_key_heads"), ("mamba_num_heads", "mamba_n_groups"):
            if sizes.get(of) and sizes[size] % sizes[of]:
                raise ModelError(f"{where}: config.json: {size} is {sizes[size]}, no multiple of {of} = {sizes[of]}")
        for size, (of, key, multiplier) in family.multiples.items():
            unit = read(of)
            sizes[size] = unit * check_whole(key, config.get(key, multiplier), 0, MAX_SIZE // unit, where)
        if family.dense_layers is not None:
            key, count = family.dense_layers
            sizes["dense_layers"] = min(check_whole(key, config.get(key, count), 0, MAX_LAYERS, where), layers)
        for size, key in zip(("expert_groups", "routed_groups"), family.groups, strict=False):
            sizes[size] = check_whole(key, 1 if config.get(key) is None else config[key], 1, MAX_EXPERTS, where)
        for key, rank in family.latent.items():
            value = config.get(key, rank)
            sizes[key] = 0 if key == "q_lora_rank" and value is None else check_whole(key, value, 1, MAX_SIZE, where)
        if family.latent and heads != kv_heads:
            raise ModelError(f"{where}: config.json: {heads} query heads and {kv_heads} KV heads; MLA has one of each")
        flags = {key: bool(config.get(key, default)) for key, default in family.flags.items()}
        if family.latent:
            flags["q_lora_rank"] = sizes["q_lora_rank"] > 0
        types = rope_types(config, rotary) if rotary is not None else frozenset[str]()
        return cls(
            family=family,
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            vocab_size=read("vocab_size"),
            max_position_embeddings=read("max_position_embeddings"),
            rope_types=types | {"partial"} if family.latent else types,
            least_head_dim=yarn_end(config, rotary, head_dim) if rotary is not None else None,
            pattern=read_pattern(config, family, layers, where),
            flags=flags,
            **sizes,
        )

    @property
    def qk_head_dim(self) -> int:
        """What each head has of queries, and of keys, in latent attention."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def kv_head_dim(self) -> int:
        """What each head has of keys without positions and of values together, in latent attention; 0 in other."""
        return self.qk_nope_head_dim + self.head_dim if self.kv_lora_rank else 0

    def sizes(self) -> dict[str, int]:
        """The size of every axis of the family's table."""
        return {axis: getattr(self, size) for axis, size in AXES.items()}

    @cached_property
    def kinds(self) -> tuple[frozenset[str], ...]:
        """The kinds of each layer, which decide the weights that it has."""
        mixture = ("dense", "sparse") if self.family.dense_layers is not None else ()
        return tuple(
            frozenset([*mixture[layer >= self.dense_layers :][:1], *self.pattern[layer : layer + 1]])
            for layer in range(self.num_hidden_layers)
        )

    def has_units(self, axis: str, layer: int) -> bool:
        """Whether a layer has units of an axis: layers of another kind have other weights."""
        lines = [one for line in self.family.layered.values() if (one := parse_weight(line)).has(axis)]
        stands = any(one.stands_in(self.kinds[layer]) for one in lines)
        return self.sizes()[axis] > 0 and (stands or not lines)

    def weights(self) -> Iterator[tuple[str, Weight]]:
        """Name and table line of every weight in a checkpoint of this shape, in the order of the table."""
        for name, weight in self.family.names(self.sizes(), self.kinds):
            if weight.exists(self.flags):
                yield name, weight

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every weight."""
        sizes = self.sizes()
        for name, weight in self.weights():
            yield name, weight.shape(sizes)

    def layer_matrices(self) -> list[tuple[int, ...]]:
        """The sizes of the layers' matrices: all but embeddings and LM head."""
        matrices = (one for _, one in self.weights() if len(one.dims) == 2)
        return [one.shape(self.sizes()) for one in matrices if not (one.has("vocab") or one.has("positions"))]

    @property
    def parameters(self) -> int:
        """All parameters; tied ones are counted once."""
        return self._count(lambda _, __: True)

    @property
    def embedding_parameters(self) -> int:
        """The parameters that run over the vocabulary: the embedding, and the LM head unless it is tied."""
        return self._count(lambda _, weight: weight.has("vocab"))

    @property
    def non_embedding_parameters(self) -> int:
        """The parameters that do not run over the vocabulary, which the papers use as a model's size."""
        return self.parameters - self.embedding_parameters

    def kv_cache_bytes(self, bytes_per_value: int) -> int:
        """Bytes of the KV cache per token: keys and values of each layer with attention, compressed if it is latent."""
        if self.kv_lora_rank:
            return self.attention_layers * (self.kv_lora_rank + self.qk_rope_head_dim) * bytes_per_value
        return 2 * self.attention_layers * self.num_key_value_heads * self.head_dim * bytes_per_value

    def state_bytes(self, bytes_per_value: int) -> int:
        """Bytes that other layers keep of a sequence, whatever its length; see `Family.states`."""
        return sum(map(prod, self._states())) * bytes_per_value

    @property
    def attention_layers(self) -> int:
        """How many layers have attention."""
        return sum(self.has_units("heads", layer) for layer in range(self.num_hidden_layers))

    def runs(self, layers: Collection[int]) -> bool:
        """Whether transformers runs a model of these layers alone: its cache needs a layer with attention."""
        return not self.pattern or any(self.has_units("heads", layer) for layer in layers)

    def droppable(self, count: int) -> list[tuple[int, ...]]:
        """The blocks of `count` layers that a student may lack: without dense layers, and as `runs` allows."""
        total = self.num_hidden_layers
        blocks = [tuple(range(first, first + count)) for first in range(self.dense_layers, total - count + 1)]
        return [block for block in blocks if self.runs(set(range(total)) - set(block))]

    def _states(self) -> Iterator[tuple[int, ...]]:
        """The shape of every state that layers keep of a sequence."""
        sizes = self.sizes()
        for kinds in self.kinds:
            for kind in kinds:
                yield from (parse_weight(line).shape(sizes) for line in self.family.states.get(kind, ()))

    def flops_per_token(self, context: int) -> int:
        """Floating-point operations of a forward pass per token, averaged over a context of `context` tokens.

        Two for each parameter of each multiplied matrix (Kaplan et al. 2020, arXiv 2001.08361, table 1; including the
        LM head, excluding embedding lookups and inactive experts). For attention, two products of heads x head_dim with
        the context / 2 keys that a token sees on average. For a recurrent state, three products with each of its
        values: the delta rule (Yang et al. 2024, arXiv 2412.06464, equation 10) reads it by the key, writes it and
        reads it by the query; Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) decays it, writes it and reads it.
        """
        matrices = self._count(
            lambda _, weight: len(weight.dims) > 1 and not (weight.has("vocab") or weight.has("positions"))
        )
        if self.num_experts:
            in_experts = self._count(lambda key, weight: "{experts}" in key or weight.stacked)
            matrices -= in_experts * (self.num_experts - self.num_experts_per_tok) // self.num_experts
        head = self.vocab_size * self.hidden_size
        both = self.head_dim + (self.qk_head_dim or self.head_dim)  # of values, and of queries and keys
        attention = self.attention_layers * self.num_attention_heads * both * context
        recurrent = 3 * sum(prod(state) for state in self._states() if len(state) == 3)
        return 2 * (matrices + head + recurrent) + attention

    def dimensions(self) -> dict[str, int]:
        """The dimensions as plain numbers, for records and tables, without those that the family does not have."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        return {name: value for name, value in values.items() if value}

    def config_values(self, config: Mapping[str, Any]) -> dict[str, int]:
        """The dimensions by the family's names in config.json; of several names, those that `config` uses."""
        values: dict[str, int] = {}
        for size in PRUNABLE:
            keys = self.family.config_keys(size)
            used = [key for key in keys if key in config] or list(keys[:1])
            values |= dict.fromkeys(used, getattr(self, size))
        if self.family.dense_layers is not None:
            values[self.family.dense_layers[0]] = self.dense_layers
        return values

    def with_dimensions(self, dimensions: Mapping[str, int | None]) -> Shape:
        """This shape with some dimensions changed, and those that follow from them; None keeps one unchanged."""
        changes: dict[str, Any] = {key: value for key, value in dimensions.items() if value is not None}
        for size, (of, _, _) in self.family.multiples.items():
            changes[size] = getattr(self, size) // getattr(self, of) * changes.get(of, getattr(self, of))
        layers = changes.get("num_hidden_layers", self.num_hidden_layers)
        return replace(
            self, **{"dense_layers": min(self.dense_layers, layers), "pattern": self.pattern[:layers], **changes}
        )

    def of_layers(self, layers: Sequence[int]) -> Shape:
        """This shape with those of its layers, in that order; a layer may be repeated."""
        dense = sum(layer < self.dense_layers for layer in layers)
        pattern = tuple(self.pattern[layer] for layer in layers) if self.pattern else ()
        return replace(self, num_hidden_layers=len(layers), dense_layers=dense, pattern=pattern)

    def stream_factor(self, teacher: Shape) -> float:
        """The factor of a student's stream, √(d' / d) if embeddings are multiplied by √hidden_size; otherwise 1.

        The embedding cannot be scaled in return, as it may also be the LM head; so all that is added to it is scaled.
        """
        return sqrt(self.hidden_size / teacher.hidden_size) if self.family.scaled_embedding else 1.0

    def check_loadable(self, where: str) -> None:
        """Refuse dimensions that stock transformers refuses or would interpret differently.

        Raises:
            ShapeError: The message names the dimensions that do not fit, and the nearest that do.
        """
        for whole, part in self.family.divisible:
            size, unit = getattr(self, whole), getattr(self, part)
            if size % unit:
                below = size // unit * unit
                raise ShapeError(
                    f"{where}.{whole}: {size} is not a multiple of {part} = {unit}, which transformers requires for "
                    f"{self.family.name}; nearest that load: {' and '.join(str(n) for n in (below, below + unit) if n)}"
                    f"{self._in_blocks()}"
                )
        if self.family.square and self.hidden_size != self.num_attention_heads * self.head_dim:
            raise ShapeError(
                f"{where}.hidden_size: {self.hidden_size} is not num_attention_heads x head_dim = "
                f"{self.num_attention_heads} x {self.head_dim}, as {self.family.name} requires; change both together"
            )
        rotary = self.family.rotary
        by_width = rotary is not None and rotary.by_width and "longrope" in self.rope_types
        if by_width and self.hidden_size // self.num_attention_heads != self.head_dim:
            raise ShapeError(
                f"{where}.hidden_size: {self.hidden_size} // num_attention_heads = {self.num_attention_heads} is not "
                f"head_dim = {self.head_dim}, as transformers requires for {self.family.name} with longrope; change "
                "them together"
            )
        if self.num_experts < self.num_experts_per_tok:
            raise ShapeError(
                f"{where}.num_experts: {self.num_experts} is less than num_experts_per_tok = {self.num_experts_per_tok}"
            )
        self._check_groups(where)

    def _check_groups(self, where: str) -> None:
        """Refuse experts that cannot be routed by groups: a group is ranked by its two best experts."""
        groups = self.expert_groups
        if not groups:
            return
        each = self.num_experts // groups
        if self.num_experts % groups or each < 2 or self.routed_groups * each < self.num_experts_per_tok:
            raise ShapeError(
                f"{where}.num_experts: {self.num_experts}; {self.family.name} routes by {groups} groups of equally "
                f"many experts, at least 2 each, and takes a token's {self.num_experts_per_tok} from "
                f"{self.routed_groups} of them"
            )

    def odd_experts(self) -> str | None:
        """A warning about experts that torch's grouped matmul does not support (rows of whole 16 bytes), or None."""
        sizes = (self.hidden_size, self.intermediate_size) if self.num_experts else ()
        odd = [str(size) for size in sizes if size % _EXPERT_ROW]
        if not odd:
            return None
        return (
            f"experts with rows of {' and '.join(odd)} values: transformers runs them at 16 bits only with "
            f'experts_implementation="eager", which is slow; multiples of {_EXPERT_ROW} avoid it'
        )

    def _in_blocks(self) -> str:
        """A text about the nearest hidden size in whole blocks of quantised files, with a fitting number of heads."""
        groups, near = self.num_key_value_heads, self.hidden_size // 8
        sizes = [size for size in range(_BLOCK, 2 * self.hidden_size, _BLOCK) if abs(size - self.hidden_size) <= near]
        counts = range(self.num_attention_heads, 0, -groups) if self.num_attention_heads % groups == 0 else ()
        fits = [(abs(size - self.hidden_size), -heads, size) for heads in counts for size in sizes if size % heads == 0]
        if not fits:
            return ""
        _, heads, size = min(fits)
        return (
            f"; or {size} with num_attention_heads: {-heads}, a multiple of {_BLOCK}, so that quantised files need no "
            "larger format for its rows"
        )

    def loads(self) -> bool:
        """Whether stock transformers accepts the dimensions, and KV heads divide the query heads."""
        try:
            self.check_loadable("")
        except ShapeError:
            return False
        return self.num_attention_heads % self.num_key_value_heads == 0

    def _count(self, condition: Callable[[str, Weight], bool]) -> int:
        """The parameters of the weights that fulfil `condition`, a function of the table's key and line."""
        sizes, total = self.sizes(), 0
        counts = Counter(self.kinds)
        outside = Counter([frozenset[str]()])
        for table, alike in ((self.family.shared, outside), (self.family.layered, counts)):
            for key, line in table.items():
                weight = parse_weight(line)
                layers = sum(count for kinds, count in alike.items() if weight.stands_in(kinds))
                if weight.exists(self.flags) and condition(key, weight):
                    total += layers * (self.num_experts if "{experts}" in key else 1) * prod(weight.shape(sizes))
        return total
