"""GPT-2: LayerNorm with biases, matrices stored [in, out], and learned positions."""

from prunus.models.families.family import Family
from prunus.models.families.parts import WHOLE_HEADS

FAMILY = Family(
    name="GPT-2",
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    layer="transformer.h.{}.",
    shared={
        "transformer.wte.weight": "vocab hidden",
        "transformer.wpe.weight": "positions hidden",
        "transformer.ln_f.weight": "hidden",
        "transformer.ln_f.bias": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
    },
    layered={
        "ln_1.weight": "hidden",
        "ln_1.bias": "hidden",
        "ln_2.weight": "hidden",
        "ln_2.bias": "hidden",
        "attn.c_attn.weight": "hidden (3 heads head_dim)",
        "attn.c_attn.bias": "(3 heads head_dim)",
        "attn.c_proj.weight": "(heads head_dim) hidden",
        "attn.c_proj.bias": "hidden",
        "mlp.c_fc.weight": "hidden mlp",
        "mlp.c_fc.bias": "mlp",
        "mlp.c_proj.weight": "mlp hidden",
        "mlp.c_proj.bias": "hidden",
    },
    keys={
        "num_hidden_layers": ("n_layer",),
        "hidden_size": ("n_embd",),
        "intermediate_size": ("n_inner",),
        "num_attention_heads": ("n_head",),
        "max_position_embeddings": ("n_positions",),
    },
    absent=("num_experts", "num_key_value_heads", "head_dim"),
    defaults={"intermediate_size": lambda config: 4 * config["n_embd"]},
    flags={"tie_word_embeddings": True},
    requires={"add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False},
    divisible=WHOLE_HEADS,
    square=True,
    conv1d=True,
    layer_norm=True,
    rotary=False,
    feeds={"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",), "transformer.ln_f": ("lm_head",)},
    prefix="transformer.",
)
