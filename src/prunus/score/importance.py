"""Importance from activations: pure functions, one for each equation.

    B batch, S sequence, C members of an axis (channels, neurons or heads), D head_dim, H hidden, L layers

Source: Compact Language Models via Pruning and Knowledge Distillation (arXiv 2407.14679v2, section 2.2 and table 13).
The aggregation is the paper's choice: the mean over the sequence, then the L2 norm over the batch.
"""

from __future__ import annotations

from typing import Any

import torch


def head_norms(heads: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The L2 norm of each head's output: [B, S, C * D], as the output projection reads it, to [B, S, C]."""
    return heads.unflatten(-1, (-1, head_dim)).float().norm(dim=-1)


def squared_sequence_means(activations: torch.Tensor) -> torch.Tensor:
    """Σ_b (mean_s |a|)²: [B, S, C] to [C] in float64. Sums over batches add up; `batch_l2` closes them."""
    return activations.abs().mean(dim=1, dtype=torch.float32).double().square().sum(dim=0)


def batch_l2(squares: torch.Tensor) -> torch.Tensor:
    """The L2 norm over the batch, from the sums of `squared_sequence_means`."""
    return squares.sqrt()


def energies(inputs: torch.Tensor, centred: bool) -> torch.Tensor:
    """Each member's share of what a norm reads, Σ x_i² / mean_j x_j² over all but the last dimension, in float64.

    `prune` reads from it how much a norm shrinks when members go.

    Args:
        inputs: What the norm reads, [..., C].
        centred: Whether it takes the mean away first (LayerNorm).
    """
    x = inputs.float()
    if centred:
        x = x - x.mean(dim=-1, keepdim=True)
    squares = x.square()
    return (squares / squares.mean(dim=-1, keepdim=True).clamp_min(1e-30)).double().flatten(0, -2).sum(dim=0)


def routing_squares(inputs: torch.Tensor, router: torch.Tensor) -> torch.Tensor:
    """`squared_sequence_means` of the probabilities that a router gives each expert: [B, S, H], [E, H] to [E]."""
    return squared_sequence_means(torch.nn.functional.linear(inputs, router).float().softmax(dim=-1))


def expert_squares(experts: Any, tokens: torch.Tensor, routed: torch.Tensor) -> torch.Tensor:
    """Σ a² of each expert's neurons over the tokens that go through it: [E, mlp] in float64.

    Args:
        experts: The experts of a layer, as transformers keeps them: `gate_up_proj` [E, 2 mlp, H] and `act_fn`.
        tokens: [B * S, H].
        routed: [B * S, experts per token], the experts of each token.
    """
    rows = []
    for expert, weight in enumerate(experts.gate_up_proj):
        through = tokens[(routed == expert).any(dim=-1)]
        gate, up = torch.nn.functional.linear(through, weight).chunk(2, dim=-1)
        rows.append((experts.act_fn(gate) * up).float().square().sum(dim=0, dtype=torch.float64))
    return torch.stack(rows)


def stream_cosines(stream: torch.Tensor) -> torch.Tensor:
    """Σ_{b,s} cos(x_i, x_j) of the residual stream at every two borders: [L + 1, B, S, H] to [L + 1, L + 1] in float64.

    Border i is the input of layer i, border L the output of the last layer.
    """
    x = torch.nn.functional.normalize(stream.float(), dim=-1).flatten(1, 2)
    return torch.einsum("ith,jth->ij", x, x).double()


def block_influence(cosines: torch.Tensor, first: int, count: int) -> float:
    """BI of the block of `count` layers from layer `first`: 1 - E[cos(its input, its output)].

    Men et al. 2024, ShortGPT (arXiv 2403.03853, equation 1), for a block as in arXiv 2408.11796, section 2.

    Args:
        cosines: [L + 1, L + 1], mean cosines of the residual stream between borders.
        first: The block's first layer.
        count: Its number of layers.
    """
    return 1.0 - float(cosines[first, first + count])
