"""GPT-J: attention beside a plain MLP, after one LayerNorm; adjacent rotary pairs in the first `rotary_dim` dimensions.

No cut changes how many dimensions are rotated, or how fast: heads are cut as a whole. llama.cpp does not have it.
"""

from prunus.models.families.family import Family
from prunus.models.families.parts import WHOLE_HEADS

_READERS = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in")

FAMILY = Family(
    name="GPT-J",
    model_type="gptj",
    class_name="GPTJForCausalLM",
    models="GPT-J 6B",
    about=(
        "LayerNorm, attention beside the MLP after one norm, an MLP without gate, a bias of the LM "
        "head, part of a head rotated"
    ),
    layer="transformer.h.{}.",
    shared={
        "transformer.wte.weight": "vocab hidden",
        "transformer.ln_f.weight": "hidden",
        "transformer.ln_f.bias": "hidden",
        "lm_head.weight": "vocab hidden if not tie_word_embeddings",
        "lm_head.bias": "vocab",
    },
    layered={
        "ln_1.weight": "hidden",
        "ln_1.bias": "hidden",
        "attn.q_proj.weight": "(heads head_dim) hidden",
        "attn.k_proj.weight": "(heads head_dim) hidden",
        "attn.v_proj.weight": "(heads head_dim) hidden",
        "attn.out_proj.weight": "hidden (heads head_dim)",
        "mlp.fc_in.weight": "mlp hidden",
        "mlp.fc_in.bias": "mlp",
        "mlp.fc_out.weight": "hidden mlp",
        "mlp.fc_out.bias": "hidden",
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
    flags={"tie_word_embeddings": False},
    divisible=WHOLE_HEADS,
    square=True,
    layer_norm=True,
    rotary=None,
    feeds={"ln_1": _READERS, "transformer.ln_f": ("lm_head",)},
    buffers=(".attn.bias", ".attn.masked_bias"),
    activation_key="activation_function",
    epsilon_key="layer_norm_epsilon",
    epsilon=1e-5,
)
