"""Mimetic initialisation of attention: queries equal to keys, and outputs that invert values."""

from __future__ import annotations

from typing import Any

from prunus.models.families.llama import FAMILY
from prunus.models.families.parts import KEY, OUTPUT, QUERY, VALUE

_OUTPUT_SHARE = 0.5
"""The share of what a head reads that it writes back."""


def make_mimetic(model: Any) -> None:
    """Initialise the attention of a Llama again, so that tokens attend to equal tokens and copy them.

    Queries equal keys (`W_Q = W_K`), so a token's scores are highest at earlier occurrences of the same token. Outputs
    are transposed values (`W_O ~ W_V^T`), so what is read is written back in the same basis. With independent draws, a
    model must learn both before it can copy from its context.

    After mimetic initialisation (Trockman and Kolter 2023, arXiv 2305.09828); deviation: products of equal draws
    instead of factors of a noisy identity. Entries have variance `1 / hidden_size`, so that projections of normalised
    states have variance 1.

    Args:
        model: A LlamaForCausalLM; changed in place, with torch's global generator.
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
    """The rows of KV heads [kv_heads * head_dim, hidden], repeated for each query head of a group."""
    return rows.unflatten(0, (-1, size)).repeat_interleave(groups, 0).flatten(0, 1)
