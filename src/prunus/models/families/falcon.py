"""Falcon 7B: one KV head for all queries, fused with them; attention beside a plain MLP, after one LayerNorm.

Not Falcon 40B, 180B and Falcon 2, whose queries, keys and values are fused KV head by KV head, and not Falcon-RW, whose
positions are ALiBi's: slopes that belong to the number of heads.
"""

from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf
from prunus.models.families.parts import WHOLE_HEADS
from prunus.models.families.rotary import Rotary

FAMILY = Family(
    name="Falcon",
    model_type="falcon",
    class_name="FalconForCausalLM",
    models="Falcon 7B",
    about="LayerNorm, one KV head fused with the queries, attention beside the MLP after one norm, an MLP without gate",
    layer="transformer.h.{}.",
    shared={
        "transformer.word_embeddings.weight": "vocab hidden",
        "transformer.ln_f.weight": "hidden",
        "transformer.ln_f.bias": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "input_layernorm.weight": "hidden",
        "input_layernorm.bias": "hidden",
        "self_attention.query_key_value.weight": "(heads head_dim)+(2 kv_heads head_dim) hidden",
        "self_attention.query_key_value.bias": "(heads head_dim)+(2 kv_heads head_dim) if bias",
        "self_attention.dense.weight": "hidden (heads head_dim)",
        "self_attention.dense.bias": "hidden if bias",
        "mlp.dense_h_to_4h.weight": "mlp hidden",
        "mlp.dense_h_to_4h.bias": "mlp if bias",
        "mlp.dense_4h_to_h.weight": "hidden mlp",
        "mlp.dense_4h_to_h.bias": "hidden if bias",
    },
    keys={"intermediate_size": ("ffn_hidden_size",)},
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    defaults={
        "num_key_value_heads": lambda _: 1,
        "intermediate_size": lambda config: 4 * config["hidden_size"],
        "max_position_embeddings": lambda _: 2048,
    },
    flags={"bias": False, "tie_word_embeddings": True},
    requires={"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "alibi": False},
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    feeds={
        "input_layernorm": ("self_attention.query_key_value", "mlp.dense_h_to_4h"),
        "transformer.ln_f": ("lm_head",),
    },
    rotary=Rotary(),
    buffers=(".rotary_emb.inv_freq", ".self_attention.rotary.inv_freq"),
    activation_key="activation",
    epsilon_key="layer_norm_epsilon",
    epsilon=1e-5,
    gguf=Gguf(
        "falcon",
        apart=True,
        names={
            "transformer.word_embeddings": "token_embd",
            "transformer.ln_f": "output_norm",
            "lm_head": "output",
            "input_layernorm": "attn_norm",
            "self_attention.query_key_value": "attn_qkv",
            "self_attention.dense": "attn_output",
            "mlp.dense_h_to_4h": "ffn_up",
            "mlp.dense_4h_to_h": "ffn_down",
        },
        activations=("gelu", "gelu_new", "gelu_fast"),
    ),
)
