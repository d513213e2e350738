"""GPT-NeoX and Pythia: LayerNorm with biases, and queries, keys and values of each head side by side."""

from collections.abc import Mapping
from typing import Any

from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf, KeyReader, Required, Sizes
from prunus.models.families.parts import NAMED_PRE_NORMS, WHOLE_HEADS
from prunus.models.families.rotary import Rotary


def _write(config: Mapping[str, Any], sizes: Sizes) -> dict[str, bool]:
    return {"use_parallel_residual": bool(config.get("use_parallel_residual", True))}


def _read(keys: KeyReader, config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    rope = {"partial_rotary_factor": 1.0, **config["rope_parameters"]}  # the default would be 0.25
    return {"use_parallel_residual": bool(keys.take("use_parallel_residual", True)), "rope_parameters": rope}


FAMILY = Family(
    name="GPT-NeoX",
    model_type="gpt_neox",
    class_name="GPTNeoXForCausalLM",
    models="GPT-NeoX, Pythia",
    about="LayerNorm, q, k, v of each head side by side, part of a head rotated",
    layer="gpt_neox.layers.{}.",
    shared={
        "gpt_neox.embed_in.weight": "vocab hidden",
        "gpt_neox.final_layer_norm.weight": "hidden",
        "gpt_neox.final_layer_norm.bias": "hidden",
        "embed_out.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "input_layernorm.weight": "hidden",
        "input_layernorm.bias": "hidden",
        "post_attention_layernorm.weight": "hidden",
        "post_attention_layernorm.bias": "hidden",
        "attention.query_key_value.weight": "(heads 3 head_dim) hidden",
        "attention.query_key_value.bias": "(heads 3 head_dim) if attention_bias",
        "attention.dense.weight": "hidden (heads head_dim)",
        "attention.dense.bias": "hidden if attention_bias",
        "mlp.dense_h_to_4h.weight": "mlp hidden",
        "mlp.dense_h_to_4h.bias": "mlp",
        "mlp.dense_4h_to_h.weight": "hidden mlp",
        "mlp.dense_4h_to_h.bias": "hidden",
    },
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    flags={"attention_bias": True, "tie_word_embeddings": False},
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    feeds={
        "input_layernorm": ("attention.query_key_value",),
        "post_attention_layernorm": ("mlp.dense_h_to_4h",),
        "gpt_neox.final_layer_norm": ("embed_out",),
    },
    rotary=Rotary(theta_key="rotary_emb_base", share=0.25, share_key="rotary_pct", partial=True),
    buffers=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"),
    epsilon_key="layer_norm_eps",
    epsilon=1e-5,
    gguf=Gguf(
        "gptneox",
        {
            "gpt_neox.embed_in": "token_embd",
            "gpt_neox.final_layer_norm": "output_norm",
            "embed_out": "output",
            **NAMED_PRE_NORMS,
            "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
        untied=True,
        biases=("attention_bias",),
        activations=("gelu", "gelu_new", "gelu_fast"),
        required=(Required("attention_bias", value=True, default=True),),
        write=_write,
        read=_read,
    ),
)
