"""Shape: the dimensions of a model, and what follows from them before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from prunus.errors import ModelError, ShapeError
from prunus.models.axes import AXES, Family

PRUNABLE = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
"""The dimensions that a student may have fewer of."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder, by transformers' names.

    Attributes:
        family: The table that says which weights these dimensions make.
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
    flags: Mapping[str, bool] = field(default_factory=dict, repr=False)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], family: Family, where: str) -> Shape:
        """Read the dimensions out of a config.json.

        Raises:
            ModelError: A dimension is missing, or is not a positive whole number.
        """
        heads = _dimension(config, "num_attention_heads", where)
        hidden = _dimension(config, "hidden_size", where)
        return cls(
            family=family,
            num_hidden_layers=_dimension(config, "num_hidden_layers", where),
            hidden_size=hidden,
            intermediate_size=_dimension(config, "intermediate_size", where),
            num_attention_heads=heads,
            num_key_value_heads=_dimension(config, "num_key_value_heads", where, heads),
            head_dim=_dimension(config, "head_dim", where, hidden // heads),
            vocab_size=_dimension(config, "vocab_size", where),
            flags={key: bool(config.get(key, default)) for key, default in family.flags.items()},
        )

    def sizes(self) -> dict[str, int]:
        """The size of every axis of the family's table."""
        return {axis: getattr(self, key) for axis, key in AXES.items()}

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every weight that a checkpoint of this shape holds."""
        sizes = self.sizes()
        for name in self.names():
            weight, _ = self.family.weight(name) or (None, None)
            assert weight is not None  # the names come from the same table
            yield name, weight.shape(sizes)

    def names(self) -> Iterator[str]:
        """The names of the weights, in the order of the table."""
        layered = [
            self.family.layer.format(i) + name for i in range(self.num_hidden_layers) for name in self.family.layered
        ]
        for name in [*self.family.shared, *layered]:
            found = self.family.weight(name)
            if found and found[0].exists(self.flags):
                yield name

    @property
    def parameters(self) -> int:
        """All parameters; tied ones are counted once."""
        return sum(prod(shape) for _, shape in self.tensors())

    @property
    def embedding_parameters(self) -> int:
        """Those of them that run over the vocabulary: the embedding, and the LM head where it is not tied."""
        return sum(
            prod(shape)
            for name, shape in self.tensors()
            if (found := self.family.weight(name)) and found[0].has("vocab")
        )

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
        LM head is counted, the embedding lookup is not), and for attention two products of heads x head_dim by
        the context / 2 keys that a causal token sees on average.
        """
        matrices = sum(prod(shape) for _, shape in self.tensors() if len(shape) > 1) - self.embedding_parameters
        head = self.vocab_size * self.hidden_size
        attention = 2 * self.num_hidden_layers * self.num_attention_heads * self.head_dim * context
        return 2 * (matrices + head) + attention

    def dimensions(self) -> dict[str, int]:
        """The dimensions as plain numbers, for records and tables."""
        return {key: value for key, value in asdict(self).items() if isinstance(value, int)}

    def with_dimensions(self, wanted: Mapping[str, int | None]) -> Shape:
        """This shape with some dimensions changed; None leaves one as it is."""
        changes: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        return replace(self, **changes)

    def check_loadable(self, where: str) -> None:
        """Refuse dimensions that stock transformers refuses.

        Raises:
            ShapeError: Names the two dimensions that do not fit, and the nearest that do.
        """
        for whole, part in self.family.divisible:
            size, unit = getattr(self, whole), getattr(self, part)
            if size % unit:
                below = size // unit * unit
                raise ShapeError(
                    f"{where}.{whole}: {size} is no multiple of {part} = {unit}, and transformers loads no such "
                    f"{self.family.name}; nearest that load: {' and '.join(str(n) for n in (below, below + unit) if n)}"
                )


def _dimension(config: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{where}: config.json: {key} is {value!r}; it must be a whole number of at least 1")
    return value
