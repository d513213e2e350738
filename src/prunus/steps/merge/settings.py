"""The effective settings of a model: equal for two configs with which transformers computes the same.

Missing settings get their defaults, settings without effect are omitted, and alternative spellings are resolved as in
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

from prunus.models.folder import ModelFolder
from prunus.models.pretrained import load_config

_TRAINING = (
    "attention_dropout", "attn_pdrop", "classifier_dropout", "embd_pdrop", "hidden_dropout", "initializer_range",
    "output_router_logits", "resid_pdrop", "router_aux_loss_coef", "router_jitter_noise", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
)  # fmt: skip
_ROUNDING = ("pretraining_tp", "reorder_and_upcast_attn")
_ELSEWHERE = ("bos_token_id", "eos_token_id", "pad_token_id", "is_decoder", "use_cache")  # used in generation only
_RESOLVED = (
    "head_dim", "layer_types", "max_position_embeddings", "max_window_layers", "n_inner", "no_rope_layer_interval",
    "num_experts_per_tok", "original_max_position_embeddings", "rope_parameters", "sliding_window",
    "tie_word_embeddings", "use_sliding_window",
)  # fmt: skip

_ALL_ROPES = {"rope_type": "default", "rope_theta": None, "partial_rotary_factor": 1.0}
_TRAINED = {"factor": None, "original_max_position_embeddings": None}
_ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": None},
    "dynamic": {"factor": None},
    "llama3": {**_TRAINED, "low_freq_factor": None, "high_freq_factor": None},
    "yarn": {
        **_TRAINED, "attention_factor": None, "beta_fast": 32, "beta_slow": 1, "mscale": None, "mscale_all_dim": None,
        "truncate": True,
    },
    "longrope": {**_TRAINED, "attention_factor": None, "short_factor": None, "long_factor": None},
}  # fmt: skip
"""The parameters of each kind of rotary positions, with transformers' defaults; of unknown kinds, all are compared."""
_BY_CONTEXT = ("dynamic", "longrope")  # these also depend on the maximum context


def effective_settings(folder: ModelFolder) -> dict[str, Any]:
    """The settings that affect what a model's weights compute.

    Raises:
        ModelError: transformers does not read the config.json.
    """
    loaded = load_config(folder.path)
    family = folder.family
    sizes = {key for size in folder.shape.dimensions() for key in family.config_keys(size)}
    passed = {
        *_TRAINING,
        *_ROUNDING,
        *_ELSEWHERE,
        *_RESOLVED,
        *sizes,
        *(field.name for field in fields(PreTrainedConfig)),
    }
    known = [field.name for field in fields(type(loaded))]  # transformers ignores everything else
    named = [name for name in known if name not in passed]
    shape = {name: size for name, size in folder.shape.dimensions().items() if name != "max_position_embeddings"}
    windows = _windows(loaded, folder.context) if "sliding_window" in known else {}
    rope = _rope(loaded) if family.rotary is not None else {}
    if any(value in _BY_CONTEXT for key, value in rope.items() if key.endswith("rope_type")):
        shape["max_position_embeddings"] = folder.context
    return {
        **{name: getattr(loaded, name) for name in named},
        **shape,
        **folder.shape.flags,
        **windows,
        **rope,
    }


def _windows(loaded: Any, context: int) -> dict[str, Any]:
    """The layers with a sliding window, and its length; None if no layer has one, or it is not below the context."""
    kinds, window = getattr(loaded, "layer_types", None), loaded.sliding_window
    if (kinds is not None and "sliding_attention" not in kinds) or (window or 0) >= context:
        window = None
    turned_apart = isinstance((getattr(loaded, "rope_parameters", None) or {}).get("sliding_attention"), Mapping)
    return {"layer_types": kinds if window is not None or turned_apart else None, "sliding_window": window}


def _rope(loaded: PreTrainedConfig) -> dict[str, Any]:
    """The rotary parameters with an effect, for each kind of layer that has separate ones."""
    loaded.standardize_rope_params()  # again, as every model does when it is built from the config
    parameters: Mapping[str, Any] = loaded.rope_parameters or {}
    sets = {key: value for key, value in parameters.items() if isinstance(value, Mapping)}
    if not sets:
        return _effective("rope_parameters", parameters)
    return {
        key: value for kind, one in sets.items() for key, value in _effective(f"rope_parameters.{kind}", one).items()
    }


def _effective(where: str, rope: Mapping[str, Any]) -> dict[str, Any]:
    own = _ROPES.get(str(rope.get("rope_type")), dict.fromkeys(rope))
    defaults = _ALL_ROPES | own
    values = {key: rope[key] if rope.get(key) is not None else default for key, default in defaults.items()}
    return {f"{where}.{key}": value for key, value in values.items()}
