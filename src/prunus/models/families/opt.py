"""OPT: LayerNorm with biases, a plain MLP, and learned positions, the first two of which stand for padding.

Not OPT 350M, whose norms stand after the sublayers. llama.cpp does not have it.
"""

from prunus.models.families.family import Family
from prunus.models.families.parts import WHOLE_HEADS, under

_BIASES = {
    "self_attn.q_proj.bias": "(heads head_dim)",
    "self_attn.k_proj.bias": "(heads head_dim)",
    "self_attn.v_proj.bias": "(heads head_dim)",
    "self_attn.out_proj.bias": "hidden",
    "fc1.bias": "mlp",
    "fc2.bias": "hidden",
}

FAMILY = Family(
    name="OPT",
    model_type="opt",
    class_name="OPTForCausalLM",
    models="OPT 125M, 1.3B and larger",
    about="LayerNorm, learned positions, an MLP without gate, biases",
    layer="model.decoder.layers.{}.",
    shared={
        "model.decoder.embed_tokens.weight": "vocab hidden",
        "model.decoder.embed_positions.weight": "2+positions hidden",
        "model.decoder.final_layer_norm.weight": "hidden",
        "model.decoder.final_layer_norm.bias": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "self_attn_layer_norm.weight": "hidden",
        "self_attn_layer_norm.bias": "hidden",
        "self_attn.q_proj.weight": "(heads head_dim) hidden",
        "self_attn.k_proj.weight": "(heads head_dim) hidden",
        "self_attn.v_proj.weight": "(heads head_dim) hidden",
        "self_attn.out_proj.weight": "hidden (heads head_dim)",
        "final_layer_norm.weight": "hidden",
        "final_layer_norm.bias": "hidden",
        "fc1.weight": "mlp hidden",
        "fc2.weight": "hidden mlp",
        **under("enable_bias", _BIASES),
    },
    # the second name is the width of the embeddings, which OPT 350M alone projects to hidden_size
    keys={"hidden_size": ("hidden_size", "word_embed_proj_dim"), "intermediate_size": ("ffn_dim",)},
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    flags={"enable_bias": True, "tie_word_embeddings": True},
    requires={
        "do_layer_norm_before": True,
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    rotary=None,
    feeds={
        "self_attn_layer_norm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "final_layer_norm": ("fc1",),
        "model.decoder.final_layer_norm": ("lm_head",),
    },
    prefix="model.",
    activation_key="activation_function",
    epsilon=1e-5,
)
