"""StarCoder2: LayerNorm, a plain MLP, and biases; if config.json names a window, all layers use it."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf, Required
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    EMBEDDINGS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    TO_ATTENTION,
    TO_HEAD,
    under,
)
from prunus.models.families.stablelm import PRE_NORM_BIAS

_MLP_BIAS = {"mlp.c_fc.bias": "mlp", "mlp.c_proj.bias": "hidden"}

FAMILY = replace(
    LLAMA,
    name="StarCoder2",
    model_type="starcoder2",
    class_name="Starcoder2ForCausalLM",
    models="StarCoder2",
    about="LayerNorm, an MLP without gate, biases",
    shared={**EMBEDDINGS, "model.norm.bias": "hidden"},
    layered={
        **PRE_NORMS,
        **PRE_NORM_BIAS,
        **ATTENTION,
        "mlp.c_fc.weight": "mlp hidden",
        "mlp.c_proj.weight": "hidden mlp",
        **under("use_bias", {**ATTENTION_BIAS, **_MLP_BIAS}),
    },
    flags={"use_bias": True, "tie_word_embeddings": True},
    divisible=(),
    layer_norm=True,
    feeds={**TO_ATTENTION, "post_attention_layernorm": ("mlp.c_fc",), **TO_HEAD},
    epsilon_key="norm_epsilon",
    epsilon=1e-5,
    slides=True,
    gguf=Gguf(
        "starcoder2",
        {
            **NAMED_EMBEDDINGS,
            **NAMED_PRE_NORMS,
            **NAMED_ATTENTION,
            "mlp.c_fc": "ffn_up",
            "mlp.c_proj": "ffn_down",
        },
        square=True,
        biases=("use_bias",),
        activations=("gelu_pytorch_tanh", "gelu_new"),
        required=(Required("use_bias", value=True, default=True),),
    ),
    onnx=False,
)
