"""What llama.cpp calls the weights of each family: one word for each module of the axis tables.

Names and suffixes are llama.cpp's own (gguf-py, `constants.py`; https://github.com/ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prunus.errors import RecipeError
from prunus.models.families.family import Family

EMBEDDINGS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ATTENTION = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}
MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
EXPERTS = {
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.{experts}.gate_proj": "ffn_gate_exps",
    "mlp.experts.{experts}.up_proj": "ffn_up_exps",
    "mlp.experts.{experts}.down_proj": "ffn_down_exps",
}
PRE_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
USUAL = {**EMBEDDINGS, **PRE_NORMS, **ATTENTION, **MLP}


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp holds a family.

    Attributes:
        name: Its name there.
        names: What it calls each module of the family's table.
        pairs: Whether the two halves of a rotary pair stand side by side there, where transformers has one half of the
            head after the other; rows of q and k are put in that order.
        windows: Whether it knows which layers attend in a window only.
        square: Whether it takes heads x head_dim to be hidden_size, though the family does not.
        untied: Whether it asks for an LM head of its own even where the family ties it.
        biases: The conditions of the table's biases that it has.
        factors: Whether it reads factors of single frequencies, which llama3's and longrope's positions are told by.
    """

    name: str
    names: Mapping[str, str]
    pairs: bool = False
    windows: bool = False
    square: bool = False
    untied: bool = False
    biases: tuple[str, ...] = field(default=())
    factors: bool = False


LLAMA = Architecture("llama", USUAL, pairs=True, biases=("attention_bias", "mlp_bias"), factors=True)
GEMMA = {**USUAL, **POST_NORMS, "pre_feedforward_layernorm": "ffn_norm"}
FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
MIXTRAL = {
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.experts.{experts}.w1": "ffn_gate_exps",
    "block_sparse_moe.experts.{experts}.w3": "ffn_up_exps",
    "block_sparse_moe.experts.{experts}.w2": "ffn_down_exps",
}
GPT_NEOX = {
    "gpt_neox.embed_in": "token_embd",
    "gpt_neox.final_layer_norm": "output_norm",
    "embed_out": "output",
    **PRE_NORMS,
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
GPT2 = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": Architecture("llama", {**USUAL, **MIXTRAL}, pairs=True, factors=True),
    "granite": Architecture("granite", USUAL, pairs=True, biases=("attention_bias", "mlp_bias"), factors=True),
    "smollm3": Architecture("smollm3", USUAL, pairs=True),
    "qwen2": Architecture("qwen2", USUAL, square=True),
    "qwen3": Architecture("qwen3", USUAL),
    "qwen3_moe": Architecture("qwen3moe", {**USUAL, **EXPERTS}),
    "olmoe": Architecture("olmoe", {**USUAL, **EXPERTS}, untied=True),
    "olmo2": Architecture("olmo2", {**USUAL, **POST_NORMS}, square=True, untied=True),
    "gemma2": Architecture("gemma2", GEMMA, windows=True),
    "gemma3_text": Architecture("gemma3", GEMMA, windows=True),
    "phi3": Architecture("phi3", {**USUAL, **FUSED}, square=True, factors=True),
    "gpt_neox": Architecture("gptneox", GPT_NEOX, untied=True, biases=("attention_bias",)),
    "gpt2": Architecture("gpt2", GPT2),
}


def architecture_of(model_type: str, where: str) -> Architecture:
    """How llama.cpp holds the models of a `model_type`.

    Raises:
        RecipeError: It has no such family.
    """
    if model_type not in ARCHITECTURES:
        raise RecipeError(
            f"{where}: llama.cpp has no {model_type} that Prunus can write; it has {', '.join(ARCHITECTURES)}. "
            "What works for any model: the plain folder, which transformers and vLLM load"
        )
    return ARCHITECTURES[model_type]


def name_there(architecture: Architecture, family: Family, key: str, layer: int | None) -> str:
    """llama.cpp's name of a weight of the table, such as `blk.3.attn_q.weight`; experts of a layer share one.

    Raises:
        KeyError: The table has a module that `architecture` does not name.
    """
    module, _, suffix = key.rpartition(".")
    prefix = "" if layer is None else f"blk.{layer}."
    return f"{prefix}{architecture.names[module]}.{suffix}"
