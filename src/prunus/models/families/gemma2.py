"""Gemma 2: four norms per layer with gains stored minus 1, scaled embeddings, soft caps, and sliding layers.

Also holds what Gemma 2 and 3 have in common in llama.cpp.
"""

from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

from prunus.errors import ModelError
from prunus.models.families.family import Family
from prunus.models.families.gguf import Config, Gguf, KeyReader, Sizes
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EMBEDDINGS,
    GATED_MLP,
    LAYER,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_MLP,
    NAMED_POST_NORMS,
    POST_NORMS,
    TIED,
    WHOLE_HEADS,
)
from prunus.models.families.rotary import Rotary
from prunus.models.positions import rope_parameters

_LARGEST = 46  # layers of the 27B model
_WINDOW = 4096
_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""The default soft caps."""

NAMES = {
    **NAMED_EMBEDDINGS,
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    **NAMED_ATTENTION,
    **NAMED_POST_NORMS,
    **NAMED_MLP,
}

Rule = Callable[[int, Config], str]
"""Maps a layer's number and config.json to its kind of attention."""


def _sliding_but_every_second(layer: int, config: Config) -> str:
    return "sliding_attention" if (layer + 1) % 2 else "full_attention"


def write_windows(rule: Rule, rotary: Rotary, config: Config, sizes: Sizes) -> dict[str, Any]:
    """The window, the layers that have it, and theta in them."""
    kinds = config.get("layer_types")
    if kinds is None:
        kinds = [rule(layer, config) for layer in range(sizes["num_hidden_layers"])]
    return {
        "attention.sliding_window": int(config.get("sliding_window") or _WINDOW),
        "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds],
        "rope.freq_base_swa": float(rope_parameters(config, rotary, "sliding_attention")["rope_theta"]),
    }


def read_layers(rule: Rule, keys: KeyReader, layers: int) -> list[str]:
    """The attention of each layer, from a period or a list; old files have neither, and `rule` applies.

    Raises:
        ModelError: The key is neither a period nor a list of that length.
    """
    pattern = keys.take("attention.sliding_window_pattern")
    if pattern is None:
        return [rule(layer, {}) for layer in range(layers)]
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        pattern = [(layer + 1) % pattern != 0 for layer in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ModelError(
            f"{keys.where}: {keys.prefix}attention.sliding_window_pattern is {pattern!r:.60}; expected a period or one "
            f"value for each of {layers} layers"
        )
    return ["sliding_attention" if slides else "full_attention" for slides in pattern]


def query_divisor(largest: int, sizes: Sizes) -> float:
    """The number by whose root llama.cpp divides queries: head_dim; in the largest model hidden_size / heads."""
    by_width = sizes["num_hidden_layers"] == largest
    return sizes["hidden_size"] / sizes["num_attention_heads"] if by_width else float(sizes["head_dim"])


def query_factor(largest: int, config: Config, sizes: Sizes) -> float:
    """√(llama.cpp's divisor / `query_pre_attn_scalar`)."""
    return sqrt(query_divisor(largest, sizes) / float(config.get("query_pre_attn_scalar") or 256))


def read_scale(largest: int, keys: KeyReader, sizes: Sizes) -> int:
    """The `query_pre_attn_scalar` that llama.cpp assumes.

    Raises:
        ModelError: It is not a whole number, as transformers requires.
    """
    scale = query_divisor(largest, sizes)
    if scale != int(scale):
        raise ModelError(f"{keys.where}: queries divided by the root of {scale}; Gemma's config has whole numbers")
    return int(scale)


def none_slides(config: Config) -> str | None:
    """The fault of a config without sliding layers; llama.cpp requires one."""
    kinds = config.get("layer_types")
    if kinds is None or "sliding_attention" in kinds:
        return None
    return "no layer slides any more, which llama.cpp does not support; keep a sliding layer"


def _uncapped(config: Config) -> str | None:
    if all(config.get(key, cap) for key, cap in _CAPS.items()):
        return None
    return "logits without a soft cap, which llama.cpp's gemma2 always has"


def _write(config: Config, sizes: Sizes) -> dict[str, Any]:
    caps = {key: float(config.get(key, cap)) for key, cap in _CAPS.items()}
    return write_windows(_sliding_but_every_second, Rotary(), config, sizes) | caps


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    result: dict[str, Any] = {
        "layer_types": read_layers(_sliding_but_every_second, keys, sizes["num_hidden_layers"]),
        "query_pre_attn_scalar": read_scale(_LARGEST, keys, sizes),
        "sliding_window": keys.whole("attention.sliding_window", _WINDOW),
    }
    only = config["rope_parameters"]["rope_theta"]
    theta = keys.number("rope.freq_base_swa", only)
    if theta != only:
        raise ModelError(f"{keys.where}: {keys.prefix}rope.freq_base_swa is {theta:g}; Gemma 2 has one theta")
    return result | {key: keys.number(key, cap) for key, cap in _CAPS.items()}


FAMILY = Family(
    name="Gemma 2",
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    models="Gemma 2",
    about="four norms per layer, gains stored minus 1, embeddings times √hidden_size, sliding layers",
    layer=LAYER,
    shared=EMBEDDINGS,
    layered={
        "input_layernorm.weight": "hidden",
        **ATTENTION,
        **ATTENTION_BIAS,
        "pre_feedforward_layernorm.weight": "hidden",
        **POST_NORMS,
        **GATED_MLP,
    },
    flags=TIED,
    divisible=WHOLE_HEADS,
    defaults={"head_dim": lambda _: 256},
    lists={"layer_types": _sliding_but_every_second},
    gain_offset=1.0,
    writers=("post_attention_layernorm", "post_feedforward_layernorm"),
    scaled_embedding=True,
    fixed_scale=True,
    logit_cap="final_logit_softcapping",
    activation_key="hidden_activation",
    window=_WINDOW,
    gguf=Gguf(
        "gemma2",
        NAMES,
        windows=True,
        tied=True,
        activations=("gelu_pytorch_tanh", "gelu"),  # transformers treats the second as the first
        query_factor=partial(query_factor, _LARGEST),
        fault=_uncapped,
        layer_fault=none_slides,
        write=_write,
        read=_read,
    ),
    onnx=True,
)
