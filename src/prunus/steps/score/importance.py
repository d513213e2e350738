"""What scores are made of: pure functions, one for each equation. Sums over batches add up; `prune` closes them.

    B batch, S sequence, C members of an axis (channels, neurons or heads), D head_dim, H hidden, E experts, L layers

Source, where nothing else is said: Compact Language Models via Pruning and Knowledge Distillation (arXiv 2407.14679v2,
section 2.2 and table 13), which aggregates over the sequence first, then over the batch, each by one of three ways.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from prunus.models.norms import normalised, scaled_gradients


def head_norms(heads: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The L2 norm of each head's output: [B, S, C * D], as the output projection reads it, to [B, S, C]."""
    return heads.unflatten(-1, (-1, head_dim)).float().norm(dim=-1)


def over_sequence(activations: torch.Tensor, how: str) -> torch.Tensor:
    """Aggregate each member over the sequence: [B, S, C] to [B, C] in float32.

    Args:
        activations: The raw values.
        how: `mean`, (1/S) Σ |a|; `l2`, √Σ a²; or `variance`, (1/S) Σ (a - mean a)².
    """
    if how == "mean":
        return activations.abs().mean(dim=1, dtype=torch.float32)
    if how == "l2":
        return torch.linalg.vector_norm(activations, dim=1, dtype=torch.float32)
    return activations.float().var(dim=1, unbiased=False)


def moments(values: torch.Tensor) -> torch.Tensor:
    """Σ_b v and Σ_b v² of what `over_sequence` gives: [B, C] to [2, C] in float64, enough for any batch aggregation."""
    v = values.double()
    return torch.stack([v.sum(dim=0), v.square().sum(dim=0)])


def taylor_terms(products: torch.Tensor) -> torch.Tensor:
    """Σ |a g| and Σ (a g)² over all positions: [B, S, C] of activation times gradient to [2, C] in float64.

    The first is the size of the change of the loss, to first order, when a member is set to 0 (Molchanov et al. 2017,
    arXiv 1611.06440, who average a g before taking its size); the second the same squared,
    the diagonal of the Fisher matrix of a factor on the member (Theis et al. 2018, arXiv 1801.05787).
    """
    p = products.flatten(0, 1)
    return torch.stack([p.abs().sum(dim=0, dtype=torch.float64), p.square().sum(dim=0, dtype=torch.float64)])


def head_products(heads: torch.Tensor, gradients: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Σ_d a_d g_d, activation times gradient of each head as a whole: two of [B, S, C * D] to [B, S, C]."""
    return (heads.float() * gradients.float()).unflatten(-1, (-1, head_dim)).sum(dim=-1)


def energies(inputs: torch.Tensor, centred: bool) -> torch.Tensor:
    """Each member's share of what a norm reads, Σ x̂², over all but the last dimension: [..., C] to [C] in float64.

    `prune` reads from it how much a norm shrinks when members go. x̂ is as in `normalised`.
    """
    return normalised(inputs, centred).square().flatten(0, -2).sum(dim=0, dtype=torch.float64)


def covariance(inputs: torch.Tensor, centred: bool) -> torch.Tensor:
    """Σ x̂ x̂ᵀ over all positions: [B, S, H] to [H, H] in float64. x̂ is as in `normalised`.

    What SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024) takes the principal axes of, for one norm.
    """
    x = normalised(inputs, centred).flatten(0, -2)
    return (x.T @ x).double()


def gradient_covariance(inputs: torch.Tensor, gradients: torch.Tensor, centred: bool) -> torch.Tensor:
    """Σ ĝ ĝᵀ over all positions, ĝ the gradient of the loss by x̂: two of [B, S, H] to [H, H] in float64.

    The empirical Fisher matrix of the residual stream: with labels drawn from the model itself in place of the text's,
    a change δ costs ½ δᵀ E[ĝ ĝᵀ] δ of KL to second order.
    """
    g = scaled_gradients(inputs, gradients, centred).flatten(0, -2)
    return (g.T @ g).double()


def routing_values(inputs: torch.Tensor, router: torch.Tensor) -> torch.Tensor:
    """The probabilities that a router gives each expert: [B, S, H], [E, H] to [B, S, E]."""
    return F.linear(inputs, router).float().softmax(dim=-1)


def expert_squares(
    gate_up: torch.Tensor,
    activation: Callable[[torch.Tensor], torch.Tensor],
    tokens: torch.Tensor,
    routed: torch.Tensor,
) -> torch.Tensor:
    """Σ a² of each expert's neurons over the tokens that go through it: [E, mlp] in float64.

    Args:
        gate_up: What makes gates and neurons of all experts, [E, 2 mlp, H].
        activation: What gates go through.
        tokens: [B * S, H].
        routed: [B * S, experts per token], the experts of each token.
    """
    rows = []
    for expert, weight in enumerate(gate_up):
        through = tokens[(routed == expert).any(dim=-1)]
        gate, up = F.linear(through, weight).chunk(2, dim=-1)
        rows.append((activation(gate) * up).float().square().sum(dim=0, dtype=torch.float64))
    return torch.stack(rows)


def stream_cosines(stream: torch.Tensor) -> torch.Tensor:
    """Σ_{b,s} cos(x_i, x_j) of the residual stream at every two borders: [L + 1, B, S, H] to [L + 1, L + 1] in float64.

    Border i is the input of layer i, border L the output of the last layer.
    """
    x = stream.float().flatten(1, 2).transpose(0, 1)
    products = x @ x.mT  # [B * S, L + 1, L + 1], token by token: one product over all of them is many times slower
    sizes = products.diagonal(dim1=1, dim2=2).clamp_min(1e-24).rsqrt()
    return (products * sizes[:, :, None] * sizes[:, None, :]).sum(dim=0, dtype=torch.float64)


def block_influence(cosines: torch.Tensor, first: int, count: int) -> float:
    """BI of the block of `count` layers from layer `first`: 1 - E[cos(its input, its output)].

    Men et al. 2024, ShortGPT (arXiv 2403.03853, equation 1), for a block as in arXiv 2408.11796, section 2.

    Args:
        cosines: [L + 1, L + 1], mean cosines of the residual stream between borders.
        first: The block's first layer.
        count: Its number of layers.
    """
    return 1.0 - float(cosines[first, first + count])


def squared_errors(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Σ (z - z₀)² and Σ z₀², whose ratio is the normalised mean squared error of the logits: [..., V] twice to [2].

    The criterion for layers of Nemotron Elastic (arXiv 2511.16664).
    """
    z, z0 = logits.double(), reference.double()
    return torch.stack([(z - z0).square().sum(), z0.square().sum()])
