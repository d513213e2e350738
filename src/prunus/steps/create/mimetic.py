"""A start from which attention looks back sooner: queries that are keys, outputs that undo values."""

from __future__ import annotations

from typing import Any

from prunus.models.families.llama import FAMILY
from prunus.models.families.parts import KEY, OUTPUT, QUERY, VALUE

_OUTPUT_SHARE = 0.5
"""How much of what a head reads it writes back."""


def make_mimetic(model: Any) -> None:
    """Draw the attention of a Llama again, so that tokens attend to their like and copy it.

    Each layer's queries are drawn as its keys are (`W_Q = W_K`), so a token's scores are highest where the same token
    stood before; its output is the transpose of its values (`W_O ~ W_V^T`), so what is read there is written in the
    reader's own terms. From independent draws a model must find both before it can copy from its context.

    After mimetic initialisation (Trockman and Kolter 2023, arXiv 2305.09828), with products of equal draws for their
    factors of a noisy identity. Entries have the variance `1 / hidden_size`: a projected normalised state varies by 1.

    Args:
        model: A LlamaForCausalLM; changed in place, by torch's generator.
    """
    import torch

    groups = model.config.num_attention_heads // model.config.num_key_value_heads
    size = model.config.head_dim
    with torch.no_grad():
        for i in range(model.config.num_hidden_layers):
            layer = model.get_submodule(FAMILY.layer_name(i))
            query, key, value, output = (layer.get_submodule(name).weight for name in (QUERY, KEY, VALUE, OUTPUT))
            keys, values = (torch.randn_like(key) * model.config.hidden_size**-0.5 for _ in range(2))
            key.copy_(keys)
            query.copy_(_of_each_query(keys, groups, size))
            value.copy_(values)
            output.copy_(_of_each_query(values, groups, size).T * _OUTPUT_SHARE / groups)


def _of_each_query(rows: Any, groups: int, size: int) -> Any:
    """The rows of each KV head (kv_heads * head_dim, hidden), once for each query head that reads it."""
    return rows.unflatten(0, (-1, size)).repeat_interleave(groups, 0).flatten(0, 1)
