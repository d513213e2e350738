"""The description of a family of models: its table of weights, and what its config.json does not say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from prunus.models.axes import Segment, Weight, parse_weight, segment_size
from prunus.models.families.gguf import Gguf
from prunus.models.families.rotary import Rotary

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # numbers in names as loaders write them: ASCII digits, no leading zeros
_EXPERT = re.compile(rf"(?<=\.)(?:{_NUMBER.pattern})(?=\.)")

QUERIES: Segment = ("heads", "head_dim")
"""The segment of a projection's outputs that holds the queries."""

OF_MIXTURES = ("num_experts_per_tok", "shared_expert_intermediate_size", "dense_intermediate_size")
"""Sizes of mixtures of experts. The last two are those of families whose `keys` or `multiples` name them."""

OF_KINDS = (
    "conv_channels",
    "conv_kernel",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "mamba_num_heads",
    "mamba_n_groups",
    "mamba_head_dim",
    "ssm_state_size",
)
"""Sizes of layers of a kind that few families have: those whose `keys` or `multiples` name them."""

MIXERS = ("heads", "kv_heads", "conv", "linear_values", "ssm_heads")
"""Axes of the part of a layer that mixes tokens."""

Part = Literal["attention", "mlp", "other"]


def _unchanged(config: dict[str, Any]) -> dict[str, Any]:
    return config


@dataclass(frozen=True)
class Place:
    """The entry of a checkpoint's weight in its family's table.

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
    """Transformers' modules of a layer's experts, which are stacked in memory whatever a checkpoint calls them.

    Attributes:
        module: The module of router and experts; the other names are relative to it.
        router: The router's module, whose output begins with the logits of all experts, [tokens, E], or ends with them
            if it begins with the numbers of the chosen ones (Granite MoE before transformers 5.18).
        stacked: The module of all experts, called with tokens, their experts, and the weights of these.
        gate_up: Its gate and up projections, [E, 2 mlp, H].
        down: Its down projection, [E, H, mlp].
        transposed: Whether the table's stacked matrices are stored as [in, out].
        probability: The function from the router's logits to probabilities.
        gated: The last linear layer of a shared expert whose output is multiplied by a gate, by its name in the table;
            empty for none. It is not refitted, since its output is not what is added to the residual stream.
    """

    module: str
    router: str
    stacked: str
    gate_up: str
    down: str
    transposed: bool = False
    probability: Literal["softmax", "sigmoid"] = "softmax"
    gated: str = ""


@dataclass(frozen=True)
class Family:
    """The description of one family of models.

    Attributes:
        name: Its name in messages and reports.
        model_type: Its `model_type` in config.json.
        class_name: Its class in transformers, which vLLM and others look for in config.json.
        models: Published models whose config.json names it.
        about: What sets it apart from a Llama; empty if nothing does.
        layer: The prefix of a layer's weights, with `{}` for the layer's number.
        shared: Weights outside the layers, by name.
        layered: Weights of each layer, by the name after the prefix.
        renamed: What names begin with in checkpoints, and in transformers' modules, if these differ.
        prefix: A prefix of all names that some checkpoints omit.
        buffers: Suffixes of tensors in old checkpoints that are not weights.
        keys: The keys of sizes in config.json that differ from `Shape`'s names; of several, the first that is set.
        absent: Sizes without a key in config.json. Without `num_experts`, those of `OF_MIXTURES` are absent too.
        multiples: Sizes that are a multiple of another one: its name, and the key (empty for none) and default of the
            multiplier.
        listed: Sizes that may be given for each layer; only lists of equal numbers are read, and students have one
            number.
        dense_layers: The key and default of the number of first layers that have a dense MLP instead of experts.
        pattern: The key of config.json whose list names the kind of each layer, for families with layers of several
            kinds; it is one of `lists`.
        pattern_sources: Other keys of config.json that it can follow from; students with other layers have them unset.
        states: The states that a layer of a kind keeps of a sequence instead of keys and values, as lines of the table.
        plain: Maps a config.json to one with the same meaning in the keys that the table is read by.
        groups: The keys of the number of groups that a layer's experts are divided into for routing, and of how many
            of them a token uses.
        latent: The sizes of latent attention (MLA) by their keys in config.json, and their defaults; empty without.
        further_layers: Whether checkpoints may have layers after the last, for predicting further tokens (MTP), whose
            weights transformers ignores; students have none.
        ignored: Prefixes of other weights that transformers ignores.
        resets: Values of config.json in a student, where its teacher's has the key.
        defaults: Defaults of sizes that config.json may omit, as functions of the rest of it.
        flags: Defaults of the boolean keys in the table's conditions.
        requires: Values that config.json must have (or omit) for the table to apply; functions of config.json give
            several values.
        divisible: Pairs of sizes; stock transformers requires the first to be a multiple of the second.
        square: Whether hidden_size must be heads x head_dim.
        lists: Keys with one entry per layer, which are pruned with the layers, and the default of an entry.
        older_names: Keys of config.json to their names in transformers 4 and other readers.
        activation_key: The key of the MLP's activation in config.json.
        epsilon_key: The key of the norms' epsilon.
        epsilon: Transformers' default of it.
        window: The default length of the sliding window, in tokens; None if no layer slides by default.
        slides: Whether all layers slide if config.json has no `layer_types` and does not say otherwise.
        conv1d: Whether matrices are stored as [in, out], as in GPT-2, instead of [out, in].
        layer_norm: Whether norms subtract the mean (LayerNorm); otherwise they are RMSNorms.
        gain_offset: Added to a norm's stored gain: 1 in Gemma.
        grouped_norms: Norms that divide each group of channels by its own mean square, with the axis of groups.
        plain_gains: Norms to which that is not added.
        feeds: For each norm of the residual stream, the modules (or weights, if others of the module do not) that read
            its output; empty in families that normalise
            the outputs of modules instead.
        writers: Norms of a layer whose output is added to the residual stream.
        query_norm: The norm of the queries, applied per head or over all heads; empty if there is none.
        scaled_embedding: Whether embeddings are multiplied by √hidden_size.
        fixed_scale: Whether the scale of attention scores is in config.json instead of following head_dim.
        rotary: The rotary positions; None without them.
        residual_multiplier: The key of a factor of everything that layers add to the residual stream; empty for none.
        logit_divisor: The key of a divisor of the logits; empty for none.
        logit_multiplier: The key of a factor of the logits; empty for none.
        logit_cap: The key of the logits' soft cap; empty for none.
        experts: The modules of experts in memory; None in families without experts.
        gguf: The family in llama.cpp; None if llama.cpp does not support it.
        onnx: Whether onnxruntime-genai's builder supports it.
    """

    name: str
    model_type: str
    class_name: str
    layer: str
    models: str
    shared: Mapping[str, str]
    layered: Mapping[str, str]
    about: str = ""
    renamed: tuple[str, str] = ("", "")
    prefix: str = ""
    buffers: tuple[str, ...] = (".rotary_emb.inv_freq",)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: tuple[str, ...] = ("num_experts",)
    multiples: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    dense_layers: tuple[str, int] | None = None
    pattern: str = ""
    pattern_sources: tuple[str, ...] = ()
    states: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plain: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    groups: tuple[str, ...] = ()
    latent: Mapping[str, int] = field(default_factory=dict)
    further_layers: bool = False
    ignored: tuple[str, ...] = ()
    resets: Mapping[str, Any] = field(default_factory=dict)
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
    grouped_norms: Mapping[str, str] = field(default_factory=dict)
    plain_gains: tuple[str, ...] = ()
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writers: tuple[str, ...] = ()
    query_norm: str = ""
    scaled_embedding: bool = False
    fixed_scale: bool = False
    rotary: Rotary | None = field(default_factory=Rotary)
    residual_multiplier: str = ""
    logit_divisor: str = ""
    logit_multiplier: str = ""
    logit_cap: str = ""
    experts: Experts | None = None
    gguf: Gguf | None = None
    onnx: bool = False

    def place(self, name: str) -> Place | None:
        """The table's entry of a weight, given its full name; None if there is none."""
        if self.prefix and not name.startswith(self.prefix) and (name not in self.shared):
            name = self.prefix + name
        if name in self.shared:
            return Place(name, parse_weight(self.shared[name]))
        layer, rest = self._in_layer(name)
        if layer is None:
            return None
        if rest in self.layered and "{" not in rest:
            return Place(rest, parse_weight(self.layered[rest]), layer)
        expert = _EXPERT.search(rest)
        key = "" if expert is None else f"{rest[: expert.start()]}{{experts}}{rest[expert.end() :]}"
        if expert is None or key not in self.layered:
            return None
        return Place(key, parse_weight(self.layered[key]), layer, int(expert[0]))

    def ignores(self, name: str, layers: int) -> bool:
        """Whether transformers ignores a tensor of a model with that many layers.

        It ignores old buffers, and weights that predict further tokens.
        """
        layer = self._in_layer(name)[0]
        if self.further_layers and layer is not None and layer >= layers:
            return True
        return (self.place(name) is None and name.endswith(self.buffers)) or name.startswith(self.ignored)

    def _in_layer(self, name: str) -> tuple[int | None, str]:
        """The number of the layer that a full name is in, and the rest of the name; None if it is in no layer."""
        head, _, tail = self.layer.partition("{}")
        layer, dot, rest = name.removeprefix(head).partition(tail)
        if not (name.startswith(head) and dot and _NUMBER.fullmatch(layer)):
            return None, name
        return int(layer), rest

    def name_of(self, key: str, layer: int | None = None, expert: int | None = None) -> str:
        """The full name of a weight in the table."""
        return (self.layer.format(layer) if layer is not None else "") + key.replace("{experts}", str(expert))

    def tied_to(self, name: str) -> str:
        """The embedding that the head `name` is tied to: the first weight with the same dimensions."""
        dims = parse_weight(self.shared[name]).dims
        return next(key for key, line in self.shared.items() if parse_weight(line).dims == dims)

    def layer_name(self, layer: int) -> str:
        """The module of a layer, in transformers."""
        return self.module_name(self.layer.format(layer).rstrip("."))

    def module_name(self, name: str) -> str:
        """The name in transformers of a module of the table."""
        stored, loaded = self.renamed
        return loaded + name.removeprefix(stored) if stored and name.startswith(stored) else name

    def names(self, sizes: Mapping[str, int], kinds: Iterable[frozenset[str]]) -> Iterator[tuple[str, Weight]]:
        """All weights of the table by full name, with their lines, including those whose condition is not met.

        Args:
            sizes: The size of every axis.
            kinds: The kinds of each layer.
        """
        for key, line in self.shared.items():
            yield key, parse_weight(line)
        for layer, here in enumerate(kinds):
            for key, line in self.layered.items():
                weight = parse_weight(line)
                for expert in range(sizes["experts"]) if "{experts}" in key else [None]:
                    if weight.stands_in(here):
                        yield self.name_of(key, layer, expert), weight

    def config_keys(self, size: str) -> tuple[str, ...]:
        """The keys of a `Shape`'s size in config.json."""
        return () if size in self.lacking else self.keys.get(size, (size,))

    @property
    def nests(self) -> bool:
        """Whether it can be a nest: layers or experts of several kinds, or experts in one tensor, cannot."""
        lines = [parse_weight(line) for line in self.layered.values()]
        several = self.kinds or self.groups or any(weight.has("shared") for weight in lines)
        return not several and not any(weight.stacked for weight in lines)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of layers that its lines name; empty if all layers have the same weights."""
        return tuple(dict.fromkeys(kind for line in self.layered.values() if (kind := parse_weight(line).kind)))

    @cached_property
    def lacking(self) -> frozenset[str]:
        """The sizes without a key in config.json."""
        of_mixtures = set(OF_MIXTURES)
        if "num_experts" not in self.absent:
            of_mixtures -= {"num_experts_per_tok", *self.keys}
        of_kinds = {*OF_KINDS} - {*self.keys}
        return frozenset({*self.absent, *self.multiples, *of_mixtures, *of_kinds})

    def has_bias(self, norm: str) -> bool:
        """Whether a norm has a bias, which some LayerNorms do not."""
        return f"{norm}.bias" in self.layered or f"{norm}.bias" in self.shared

    @property
    def rotation(self) -> Literal["always", "untied", "never"]:
        """Whether the residual stream can be rotated: in any model, or in one whose LM head is not tied."""
        if not self.feeds:
            return "never"
        return "untied" if self.layer_norm else "always"

    def norm_before(self, key: str) -> str | None:
        """The norm whose output is multiplied by the weight `key` of the table; None if there is none."""
        names = {key, key.rpartition(".")[0]}
        return next((norm for norm, readers in self.feeds.items() if not names.isdisjoint(readers)), None)

    def ends_queries(self, place: Place) -> bool:
        """Whether a weight is the last that acts on queries before the scores: their norm, else their projection."""
        if self.query_norm:
            return place.key == f"{self.query_norm}.weight"
        return place.weight.dims[0][0] == QUERIES

    def outputs(self, weight: Weight) -> int:
        """The output dimension of a layer's weight, of one expert if stacked."""
        stacked = weight.stacked and self.experts is not None and self.experts.transposed
        return 1 if (self.conv1d or stacked) and len(weight.dims) == 2 else 0

    def is_transposed(self, weight: Weight) -> bool:
        """Whether a weight is a matrix stored as [in, out]; embeddings and heads never are."""
        return self.conv1d and len(weight.dims) == 2 and not (weight.has("vocab") or weight.has("positions"))

    def writes(self, place: Place) -> bool:
        """Whether a layer's weight is the last before the residual stream: a matrix, its bias, or the norm after it."""
        module = place.key.rpartition(".")[0]
        if self.writers:
            return module in self.writers
        return module not in self.norms[0] and place.weight.dims[self.outputs(place.weight)] == (("hidden",),)

    def offset_of(self, place: Place) -> float:
        """The offset added to a weight's stored values on use: `gain_offset` for gains of norms, else 0."""
        module = _module(place.key)
        added = module in (*self.norms[0], *self.norms[1]) and module not in self.plain_gains
        return self.gain_offset if added else 0.0

    def part_of(self, place: Place) -> Part:
        """The part of a layer that a weight belongs to: `attention` for all that mixes tokens, else `mlp`.

        It is `other` for norms between parts and weights outside layers.
        """
        name = place.key.partition(".")[0]
        if place.layer is None or name in self.norms[0]:
            return "other"
        return "attention" if name in self._attention else "mlp"

    def readers(self, axis: str, kinds: frozenset[str]) -> list[str]:
        """The modules of a layer of these kinds whose input runs over `axis`; scoring records these inputs."""
        dim = 0 if self.conv1d else -1
        lines = {key: parse_weight(line) for key, line in self.layered.items()}
        return [_module(key) for key, one in lines.items() if one.stands_in(kinds) and one.runs_over(axis, dim)]

    def segment_of(self, segment: Segment, sizes: Mapping[str, int]) -> tuple[str, slice]:
        """The first linear module that has a segment among its outputs, and where in them the last of it is."""
        for key, line in self.layered.items():
            weight = parse_weight(line)
            outputs = weight.dims[self.outputs(weight)]
            if len(weight.dims) == 2 and segment in outputs:
                last = len(outputs) - 1 - outputs[::-1].index(segment)
                start = sum(segment_size(one, sizes) for one in outputs[:last])
                return _module(key), slice(start, start + segment_size(segment, sizes))
        raise KeyError(segment)

    @cached_property
    def optional(self) -> dict[str, list[str]]:
        """The weights of a layer that depend on a flag, by the flag; in the table's order."""
        result: dict[str, list[str]] = {}
        for key, line in self.layered.items():
            if condition := parse_weight(line).condition:
                result.setdefault(condition, []).append(key)
        return result

    @cached_property
    def biases(self) -> dict[str, list[str]]:
        """The biases among them."""
        found = {flag: [key for key in keys if key.endswith(".bias")] for flag, keys in self.optional.items()}
        return {flag: keys for flag, keys in found.items() if keys}

    @cached_property
    def norms(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The norms in a layer and outside the layers: the modules whose weights are vectors."""
        return _vectors(self.layered), _vectors(self.shared)

    @cached_property
    def _attention(self) -> set[str]:
        """The submodules of a layer that mix tokens."""
        lines = {key: parse_weight(line) for key, line in self.layered.items()}
        return {key.partition(".")[0] for key, weight in lines.items() if any(map(weight.has, MIXERS))}


def _module(key: str) -> str:
    return key.removesuffix(".weight")


def _vectors(table: Mapping[str, str]) -> tuple[str, ...]:
    result = [key for key, line in table.items() if len(parse_weight(line).dims) == 1 and key.endswith(".weight")]
    return tuple(_module(key) for key in result)
