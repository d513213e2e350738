"""Phi-1, 1.5 and 2: attention and a plain MLP in parallel, after one LayerNorm; an LM head with a bias."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    EMBEDDINGS,
    INPUT_BIAS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    TO_ATTENTION,
    under,
)
from prunus.models.families.rotary import Rotary

FAMILY = replace(
    LLAMA,
    name="Phi",
    model_type="phi",
    class_name="PhiForCausalLM",
    models="Phi-1, 1.5, 2",
    about=(
        "LayerNorm, attention beside the MLP after one norm, an MLP without gate, a bias of the LM "
        "head, part of a head rotated"
    ),
    shared={
        "model.embed_tokens.weight": EMBEDDINGS["model.embed_tokens.weight"],
        "model.final_layernorm.weight": "hidden",
        "model.final_layernorm.bias": "hidden",
        "lm_head.weight": EMBEDDINGS["lm_head.weight"],
        "lm_head.bias": "vocab",
    },
    layered={
        "input_layernorm.weight": "hidden",
        "input_layernorm.bias": "hidden",
        **{key: line for key, line in ATTENTION.items() if "o_proj" not in key},
        **under("", INPUT_BIAS),
        "self_attn.dense.weight": "hidden (heads head_dim)",
        "self_attn.dense.bias": "hidden",
        "mlp.fc1.weight": "mlp hidden",
        "mlp.fc1.bias": "mlp",
        "mlp.fc2.weight": "hidden mlp",
        "mlp.fc2.bias": "hidden",
    },
    flags={"tie_word_embeddings": False},
    requires={"qk_layernorm": False},
    divisible=(),
    layer_norm=True,
    feeds={
        "input_layernorm": (*TO_ATTENTION["input_layernorm"], "mlp.fc1"),
        "model.final_layernorm": ("lm_head",),
    },
    rotary=Rotary(share=0.5, partial=True),
    epsilon_key="layer_norm_eps",
    epsilon=1e-5,
    gguf=Gguf(
        "phi2",
        {
            "model.embed_tokens": NAMED_EMBEDDINGS["model.embed_tokens"],
            "model.final_layernorm": NAMED_EMBEDDINGS["model.norm"],
            "lm_head": NAMED_EMBEDDINGS["lm_head"],
            "input_layernorm": "attn_norm",
            **{key: name for key, name in NAMED_ATTENTION.items() if "o_proj" not in key},
            "self_attn.dense": "attn_output",
            "mlp.fc1": "ffn_up",
            "mlp.fc2": "ffn_down",
        },
        square=True,
        untied=True,
        activations=("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    ),
    onnx=False,
)
