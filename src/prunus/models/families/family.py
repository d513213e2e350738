"""What Prunus knows of a family of models: its table of weights, and what its config.json leaves unsaid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from prunus.models.axes import Segment, Weight, parse_weight
from prunus.models.families.gguf import Gguf
from prunus.models.families.rotary import Rotary

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # as loaders write numbers into names: no other digits, no zeros before
_EXPERT = re.compile(rf"(?<=\.)(?:{_NUMBER.pattern})(?=\.)")

QUERIES: Segment = ("heads", "head_dim")
"""The part of a projection's outputs that is queries."""

Part = Literal["attention", "mlp", "other"]


@dataclass(frozen=True)
class Place:
    """Where a weight of a checkpoint stands in its family's table.

    Attributes:
        key: Its name in the table, without the layer's prefix, such as `mlp.experts.{experts}.up_proj.weight`.
        weight: The table's line.
        layer: The number of its layer, or None.
        expert: The number of its expert, or None.
    """

    key: str
    weight: Weight
    layer: int | None = None
    expert: int | None = None


@dataclass(frozen=True)
class Experts:
    """How transformers keeps a layer's experts in memory: stacked, whatever a checkpoint calls them.

    Attributes:
        module: The module that holds router and experts; the other names stand in it.
        router: The router's weight, [E, H].
        stacked: The module of all experts.
        gate_up: Its weight that gates and neurons are made by, [E, 2 mlp, H].
        down: Its weight that reads the neurons, [E, H, mlp].
    """

    module: str
    router: str
    stacked: str
    gate_up: str
    down: str


@dataclass(frozen=True)
class Family:
    """All that Prunus knows of one family of models.

    Attributes:
        name: What to call it.
        model_type: Its `model_type` in config.json.
        class_name: transformers' class of it: vLLM and others look for it in config.json.
        layer: The prefix of a layer's weights, with `{}` for the layer's number.
        shared: Weights that stand once, by name.
        layered: Weights of each layer, by the name after the prefix.
        prefix: What some checkpoints leave out before every name.
        buffers: Endings of tensors that old checkpoints hold and that are no weights.
        keys: What config.json calls a size, where that is not `Shape`'s name; the first of several that is there.
        absent: Sizes that its config.json has no key for.
        defaults: Sizes that its config.json may leave out, from the rest of it.
        flags: The defaults of the boolean keys that the table's conditions ask for.
        requires: Values that config.json must have (or leave out) for the table to be right.
        divisible: Pairs of sizes of which the first must be a multiple of the second, or stock transformers refuses.
        square: Whether hidden_size must be heads x head_dim.
        lists: Keys that hold one entry a layer and are cut with the layers, with what a missing one stands for.
        older_names: Keys of config.json that transformers 4 and other readers look for by another name, and that name.
        activation_key: What config.json calls the activation of the MLP.
        epsilon_key: What it calls what norms add to the mean square.
        epsilon: What transformers adds where config.json leaves it out.
        window: The tokens of a sliding window where config.json leaves it out; None where no layer then slides.
        slides: Whether all layers slide where a config.json that has no `layer_types` does not say whether.
        conv1d: Whether matrices are [in, out], as GPT-2 keeps them, rather than [out, in].
        layer_norm: Whether norms take the mean away (LayerNorm); else they are RMSNorms.
        gain_offset: What is added to a norm's stored gain: 1 in Gemma.
        feeds: For each norm over the residual stream that stands before what reads it, the modules that do; empty in
            families that normalise what is written instead.
        writers: Norms of a layer whose output is added to the residual stream.
        query_norm: The norm over the heads of queries, the last that they pass; empty where there is none.
        scaled_embedding: Whether embeddings are multiplied by the root of hidden_size.
        fixed_scale: Whether the scale of attention scores stands in config.json rather than following head_dim.
        rotary: How heads are turned by their position, in halves; None where they are not.
        residual_multiplier: The key of config.json by which all that layers write is multiplied; empty for none.
        logit_divisor: The key by which logits are divided; empty for none.
        logit_cap: The key of the value where logits saturate; empty for none.
        experts: How transformers keeps experts in memory; None in families without.
        gguf: How llama.cpp holds it; None where it does not.
        onnx: Whether onnxruntime-genai's builder has it.
    """

    name: str
    model_type: str
    class_name: str
    layer: str
    shared: Mapping[str, str]
    layered: Mapping[str, str]
    prefix: str = ""
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: tuple[str, ...] = ("num_experts",)
    defaults: Mapping[str, Callable[[Mapping[str, Any]], int]] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    divisible: tuple[tuple[str, str], ...] = ()
    square: bool = False
    lists: Mapping[str, Callable[[int, Mapping[str, Any]], Any]] = field(default_factory=dict)
    older_names: Mapping[str, str] = field(default_factory=dict)
    activation_key: str = "hidden_act"
    epsilon_key: str = "rms_norm_eps"
    epsilon: float = 1e-6
    window: int | None = None
    slides: bool = False
    conv1d: bool = False
    layer_norm: bool = False
    gain_offset: float = 0.0
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writers: tuple[str, ...] = ()
    query_norm: str = ""
    scaled_embedding: bool = False
    fixed_scale: bool = False
    rotary: Rotary | None = field(default_factory=Rotary)
    residual_multiplier: str = ""
    logit_divisor: str = ""
    logit_cap: str = ""
    experts: Experts | None = None
    gguf: Gguf | None = None
    onnx: bool = False

    def place(self, name: str) -> Place | None:
        """Where the weight of that full name stands in the table, or None where the table has no such name."""
        if self.prefix and not name.startswith(self.prefix) and (name not in self.shared):
            name = self.prefix + name
        if name in self.shared:
            return Place(name, parse_weight(self.shared[name]))
        head, _, tail = self.layer.partition("{}")
        layer, dot, rest = name.removeprefix(head).partition(tail)
        if not (name.startswith(head) and dot and _NUMBER.fullmatch(layer)):
            return None
        if rest in self.layered and "{" not in rest:
            return Place(rest, parse_weight(self.layered[rest]), int(layer))
        expert = _EXPERT.search(rest)
        key = "" if expert is None else f"{rest[: expert.start()]}{{experts}}{rest[expert.end() :]}"
        if expert is None or key not in self.layered:
            return None
        return Place(key, parse_weight(self.layered[key]), int(layer), int(expert[0]))

    def name_of(self, key: str, layer: int | None = None, expert: int | None = None) -> str:
        """The full name of a weight of the table."""
        return (self.layer.format(layer) if layer is not None else "") + key.replace("{experts}", str(expert))

    def tied_to(self, name: str) -> str:
        """The embedding that the head of that name is tied to: the first weight of the same dimensions."""
        dims = parse_weight(self.shared[name]).dims
        return next(key for key, line in self.shared.items() if parse_weight(line).dims == dims)

    def layer_name(self, layer: int) -> str:
        """The module of a layer."""
        return self.layer.format(layer).rstrip(".")

    def names(self, sizes: Mapping[str, int], layers: int) -> Iterator[tuple[str, Weight]]:
        """Every name that the table stands for, with its line, whether or not a condition holds."""
        for key, line in self.shared.items():
            yield key, parse_weight(line)
        for layer in range(layers):
            for key, line in self.layered.items():
                for expert in range(sizes["experts"]) if "{experts}" in key else [None]:
                    yield self.name_of(key, layer, expert), parse_weight(line)

    def config_keys(self, size: str) -> tuple[str, ...]:
        """What config.json may call a size of a `Shape`."""
        return () if size in self.absent else self.keys.get(size, (size,))

    def norm_before(self, key: str) -> str | None:
        """The norm whose output the weight `key` of the table is applied to, or None for one that reads no norm."""
        module = key.rpartition(".")[0]
        return next((norm for norm, readers in self.feeds.items() if module in readers), None)

    def ends_queries(self, place: Place) -> bool:
        """Whether a weight is the last that queries pass before their scores: their norm, or what projects them."""
        if self.query_norm:
            return place.key == f"{self.query_norm}.weight"
        return place.weight.dims[0][0] == QUERIES

    def outputs(self, weight: Weight) -> int:
        """The dimension of a layer's weight that runs over what its module puts out."""
        return 1 if self.conv1d and len(weight.dims) == 2 else 0

    def is_transposed(self, weight: Weight) -> bool:
        """Whether a weight is a matrix [in, out]; embeddings and heads never are."""
        return self.conv1d and len(weight.dims) == 2 and not (weight.has("vocab") or weight.has("positions"))

    def writes(self, place: Place) -> bool:
        """Whether a layer's weight is the last before the residual stream: a matrix, its bias, or a norm after them."""
        module = place.key.rpartition(".")[0]
        if self.writers:
            return module in self.writers
        return module not in self.norms[0] and place.weight.dims[self.outputs(place.weight)] == (("hidden",),)

    def offset_of(self, place: Place) -> float:
        """What is added to a weight's stored values before they are used: to those of a norm's gain `gain_offset`."""
        return self.gain_offset if _module(place.key) in (*self.norms[0], *self.norms[1]) else 0.0

    def part_of(self, place: Place) -> Part:
        """The part of a layer that a weight belongs to; norms between the parts, and what stands once, are `other`."""
        name = place.key.partition(".")[0]
        if place.layer is None or name in self.norms[0]:
            return "other"
        return "attention" if name in self._attention else "mlp"

    def readers(self, axis: str) -> list[str]:
        """The modules of a layer whose input runs over `axis`: what scoring watches to see the axis at work."""
        dim = 0 if self.conv1d else -1
        return [_module(key) for key, line in self.layered.items() if parse_weight(line).runs_over(axis, dim)]

    @cached_property
    def norms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The modules that normalise, of a layer and standing once: they alone have vectors for weights."""
        return _vectors(self.layered), _vectors(self.shared)

    @cached_property
    def _attention(self) -> set[str]:
        """The children of a layer that have heads."""
        lines = {key: parse_weight(line) for key, line in self.layered.items()}
        return {key.partition(".")[0] for key, weight in lines.items() if weight.has("heads") or weight.has("kv_heads")}


def _module(key: str) -> str:
    return key.removesuffix(".weight")


def _vectors(table: Mapping[str, str]) -> tuple[str, ...]:
    found = [key for key, line in table.items() if len(parse_weight(line).dims) == 1 and key.endswith(".weight")]
    return tuple(_module(key) for key in found)
