"""Shape: the dimensions of a model, and what follows from them before any weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any

from prunus.config import Size
from prunus.errors import ModelError, ShapeError
from prunus.models.axes import AXES, Weight, parse_weight
from prunus.models.families.family import Family
from prunus.models.families.rotary import Rotary
from prunus.models.positions import all_rope_parameters
from prunus.models.settings import read_size

PRUNABLE = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "vocab_size",
)
"""The dimensions that a student may have fewer of."""

_EXPERT_ROW = 8  # values of 16 bits in 16 bytes
_BLOCK = 64  # two blocks of Q8_0 and Q4_0; K-quants have 256


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder, by transformers' usual names, whatever its own config calls them.

    Attributes:
        family: The table that says which weights these dimensions make.
        intermediate_size: Neurons of each MLP; in a mixture of experts, of each expert.
        num_experts: Experts of each layer; 0 in models without.
        experts_per_token: How many of them a token goes through.
        rope_types: How positions are turned, by transformers' names (`default`, `llama3`, `yarn`, ...); `partial`
            stands for heads of which only a part is turned.
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
    experts_per_token: int = 0
    rope_types: frozenset[str] = field(default=frozenset(), repr=False)
    flags: Mapping[str, bool] = field(default_factory=dict, repr=False)

    def size(self, teacher: Shape | None = None) -> Size:
        """What options follow from that nobody gave: of a model, and of its teacher where it is a student."""
        widest = max(self.hidden_size, self.intermediate_size, self.num_attention_heads * self.head_dim)
        size = Size(self.hidden_size, self.max_position_embeddings, widest)
        if teacher is None:
            return size
        return replace(size, cut=max(0.0, 1 - self.non_embedding_parameters / teacher.non_embedding_parameters))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], family: Family, where: str) -> Shape:
        """Read the dimensions out of a config.json.

        Raises:
            ModelError: A dimension is missing, or is not a positive whole number.
        """

        def read(size: str, default: int | None = None) -> int:
            return read_size(config, family, size, where, default)

        heads, hidden = read("num_attention_heads"), read("hidden_size")
        kv_heads = read("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ModelError(f"{where}: config.json: {heads} query heads cannot be shared by {kv_heads} KV heads")
        has_experts = "num_experts" not in family.absent
        return cls(
            family=family,
            num_hidden_layers=read("num_hidden_layers"),
            hidden_size=hidden,
            intermediate_size=read("intermediate_size"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=read("head_dim", hidden // heads),
            vocab_size=read("vocab_size"),
            max_position_embeddings=read("max_position_embeddings"),
            num_experts=read("num_experts") if has_experts else 0,
            experts_per_token=read("experts_per_token") if has_experts else 0,
            rope_types=_rope_types(config, family.rotary) if family.rotary is not None else frozenset(),
            flags={key: bool(config.get(key, default)) for key, default in family.flags.items()},
        )

    def sizes(self) -> dict[str, int]:
        """The size of every axis of the family's table."""
        return {axis: getattr(self, size) for axis, size in AXES.items()}

    def weights(self) -> Iterator[tuple[str, Weight]]:
        """Name and table line of every weight that a checkpoint of this shape holds, in the order of the table."""
        for name, weight in self.family.names(self.sizes(), self.num_hidden_layers):
            if weight.exists(self.flags):
                yield name, weight

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of each of them."""
        sizes = self.sizes()
        for name, weight in self.weights():
            yield name, weight.shape(sizes)

    @property
    def parameters(self) -> int:
        """All parameters; tied ones are counted once."""
        return self._count(lambda _, __: True)

    @property
    def embedding_parameters(self) -> int:
        """Those of them that run over the vocabulary: the embedding, and the LM head where it is not tied."""
        return self._count(lambda _, weight: weight.has("vocab"))

    @property
    def non_embedding_parameters(self) -> int:
        """The parameters that do not run over the vocabulary, as the papers count a model's size."""
        return self.parameters - self.embedding_parameters

    def kv_cache_bytes(self, bytes_per_value: int) -> int:
        """Bytes that the KV cache grows by with every token: keys and values of every layer."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * bytes_per_value

    def flops_per_token(self, context: int) -> int:
        """Floating-point operations of a forward pass per token, averaged over a context of that many tokens.

        Two for each parameter of each matrix that multiplies (Kaplan et al. 2020, arXiv 2001.08361, table 1; the
        LM head is counted, lookups are not, and of the experts those that a token goes through), and for attention
        two products of heads x head_dim by the context / 2 keys that a causal token sees on average.
        """
        matrices = self._count(lambda _, weight: len(weight.dims) > 1)
        matrices -= self.embedding_parameters + self._count(lambda _, weight: weight.has("positions"))
        if self.num_experts:
            in_experts = self._count(lambda key, _: "{experts}" in key)
            matrices -= in_experts * (self.num_experts - self.experts_per_token) // self.num_experts
        head = self.vocab_size * self.hidden_size
        attention = 2 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * context
        return 2 * (matrices + head) + attention

    def dimensions(self) -> dict[str, int]:
        """The dimensions as plain numbers, for records and tables; those that the family has none of are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        return {name: value for name, value in values.items() if value}

    def config_values(self, config: Mapping[str, Any]) -> dict[str, int]:
        """The dimensions by the names that a config.json of the family has for them, among those that `config` uses."""
        values: dict[str, int] = {}
        for size in PRUNABLE:
            keys = self.family.config_keys(size)
            used = [key for key in keys if key in config] or list(keys[:1])
            values |= dict.fromkeys(used, getattr(self, size))
        return values

    def with_dimensions(self, wanted: Mapping[str, int | None]) -> Shape:
        """This shape with some dimensions changed; None leaves one as it is."""
        changes: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        return replace(self, **changes)

    def check_loadable(self, where: str) -> None:
        """Refuse dimensions that stock transformers refuses, or would understand otherwise.

        Raises:
            ShapeError: Names the dimensions that do not fit, and the nearest that do.
        """
        for whole, part in self.family.divisible:
            size, unit = getattr(self, whole), getattr(self, part)
            if size % unit:
                below = size // unit * unit
                raise ShapeError(
                    f"{where}.{whole}: {size} is no multiple of {part} = {unit}, and transformers loads no such "
                    f"{self.family.name}; nearest that load: {' and '.join(str(n) for n in (below, below + unit) if n)}"
                    f"{self._in_blocks()}"
                )
        if self.family.square and self.hidden_size != self.num_attention_heads * self.head_dim:
            raise ShapeError(
                f"{where}.hidden_size: {self.hidden_size} is not num_attention_heads x head_dim = "
                f"{self.num_attention_heads} x {self.head_dim}, and {self.family.name} has no other; cut both together"
            )
        if self.num_experts < self.experts_per_token:
            raise ShapeError(
                f"{where}.num_experts: {self.num_experts} are fewer than the {self.experts_per_token} that a token "
                "goes through (num_experts_per_tok)"
            )

    def odd_experts(self) -> str | None:
        """What is to be said of experts whose rows torch's grouped product does not take, whole 16 bytes; or None."""
        sizes = (self.hidden_size, self.intermediate_size) if self.num_experts else ()
        odd = [str(size) for size in sizes if size % _EXPERT_ROW]
        if not odd:
            return None
        return (
            f"experts with rows of {' and '.join(odd)} values: transformers runs them at 16 bits only with "
            f'experts_implementation="eager", which is slow; multiples of {_EXPERT_ROW} avoid it'
        )

    def _in_blocks(self) -> str:
        """The nearest hidden size of whole blocks of quantised files, with as many heads as fit it, in words."""
        groups, near = self.num_key_value_heads, self.hidden_size // 8
        sizes = [size for size in range(_BLOCK, 2 * self.hidden_size, _BLOCK) if abs(size - self.hidden_size) <= near]
        counts = range(self.num_attention_heads, 0, -groups) if self.num_attention_heads % groups == 0 else ()
        fits = [(abs(size - self.hidden_size), -heads, size) for heads in counts for size in sizes if size % heads == 0]
        if not fits:
            return ""
        _, heads, size = min(fits)
        return (
            f"; or {size} with num_attention_heads: {-heads}, a multiple of {_BLOCK}, so that quantised files need no "
            "larger type for its rows"
        )

    def loads(self) -> bool:
        """Whether stock transformers takes the dimensions, and its query heads can be shared by its KV heads."""
        try:
            self.check_loadable("")
        except ShapeError:
            return False
        return self.num_attention_heads % self.num_key_value_heads == 0

    def _count(self, wanted: Callable[[str, Weight], bool]) -> int:
        """The parameters of the weights that are `wanted`, by their keys and lines of the table."""
        sizes, total = self.sizes(), 0
        for table, layers in ((self.family.shared, 1), (self.family.layered, self.num_hidden_layers)):
            for key, line in table.items():
                weight = parse_weight(line)
                if weight.exists(self.flags) and wanted(key, weight):
                    total += layers * (self.num_experts if "{experts}" in key else 1) * prod(weight.shape(sizes))
        return total


def _rope_types(config: Mapping[str, Any], rotary: Rotary) -> frozenset[str]:
    """The kinds of rotary positions that a model has."""
    sets = all_rope_parameters(config, rotary)
    partial = any(rope["partial_rotary_factor"] != 1.0 for rope in sets)
    return frozenset({rope["rope_type"] for rope in sets} | ({"partial"} if partial else set()))
