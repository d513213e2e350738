"""AFM, by Arcee: a Llama whose MLP has no gate."""

from dataclasses import replace

from prunus.models.families.gguf import Gguf
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import (
    ATTENTION,
    ATTENTION_BIAS,
    NAMED_ATTENTION,
    NAMED_EMBEDDINGS,
    NAMED_PRE_NORMS,
    PRE_NORMS,
    TO_ATTENTION,
    TO_HEAD,
    TURNED,
)

MLP = {
    "mlp.up_proj.weight": "mlp hidden",
    "mlp.up_proj.bias": "mlp if mlp_bias",
    "mlp.down_proj.weight": "hidden mlp",
    "mlp.down_proj.bias": "hidden if mlp_bias",
}
NAMED_MLP = {"mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}

FAMILY = replace(
    LLAMA,
    name="AFM",
    model_type="arcee",
    class_name="ArceeForCausalLM",
    models="AFM 4.5B",
    about="an MLP without gate",
    layered={**PRE_NORMS, **ATTENTION, **ATTENTION_BIAS, **MLP},
    feeds={**TO_ATTENTION, "post_attention_layernorm": ("mlp.up_proj",), **TO_HEAD},
    epsilon=1e-5,
    gguf=Gguf(
        "arcee",
        {**NAMED_EMBEDDINGS, **NAMED_PRE_NORMS, **NAMED_ATTENTION, **NAMED_MLP},
        pairs=TURNED,
        factors=True,
        activations=("relu2",),
    ),
    onnx=False,
)
