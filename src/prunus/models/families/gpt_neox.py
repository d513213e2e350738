"""GPT-NeoX and Pythia: LayerNorm with biases, and queries, keys and values of each head side by side."""

from prunus.models.families.family import Family
from prunus.models.families.parts import WHOLE_HEADS

FAMILY = Family(
    name="GPT-NeoX",
    model_type="gpt_neox",
    class_name="GPTNeoXForCausalLM",
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
)
