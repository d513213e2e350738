"""The equations of scoring: pure functions whose sums add up over batches; `prune` computes the scores from the sums.

    B batch, S sequence, C units of an axis (channels, neurons or heads), D head_dim, H hidden, E experts, L layers

Source, unless stated otherwise: Compact Language Models via Pruning and Knowledge Distillation (arXiv 2407.14679v2,
section 2.2 and table 13), which aggregates over the sequence first, then over the batch, each by one of three ways.
"""

from __future__ import annotations

from typing import Any

import torch

from prunus.models.families.family import Experts
from prunus.models.norms import normalised, scaled_gradients
from prunus.models.routed import project, routed_inputs


def head_norms(heads: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The L2 norm of each head's output: inputs of the output projection [B, S, C * D] to [B, S, C]."""
    return heads.unflatten(-1, (-1, head_dim)).float().norm(dim=-1)


def over_sequence(activations: torch.Tensor, how: str) -> torch.Tensor:
    """Aggregate the activations of each unit over the sequence: [B, S, C] to [B, C] in float32.

    Args:
        activations: [B, S, C].
        how: `mean`, (1/S) Σ |a|; `l2`, √Σ a²; or `variance`, (1/S) Σ (a - mean a)².
    """
    if how == "mean":
        return activations.abs().mean(dim=1, dtype=torch.float32)
    if how == "l2":
        return torch.linalg.vector_norm(activations, dim=1, dtype=torch.float32)
    return activations.float().var(dim=1, unbiased=False)


def moments(values: torch.Tensor) -> torch.Tensor:
    """Σ_b v and Σ_b v² of results of `over_sequence`: [B, C] to [2, C] in float64.

    Every aggregation over the batch can be computed from these two.
    """
    v = values.double()
    return torch.stack([v.sum(dim=0), v.square().sum(dim=0)])


def taylor_terms(products: torch.Tensor) -> torch.Tensor:
    """Σ |a g| and Σ (a g)² over all positions: [B, S, C] of activation times gradient to [2, C] in float64.

    The first is the absolute change of the loss, to first order, when a unit is set to 0 (Molchanov et al. 2017,
    arXiv 1611.06440, who average a g before taking the absolute value). The second is its square: the diagonal of the
    Fisher matrix of a factor on the unit (Theis et al. 2018, arXiv 1801.05787).
    """
    p = products.flatten(0, 1)
    return torch.stack([p.abs().sum(dim=0, dtype=torch.float64), p.square().sum(dim=0, dtype=torch.float64)])


def head_products(heads: torch.Tensor, gradients: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Σ_d a_d g_d, activation times gradient summed over each head: two tensors [B, S, C * D] to [B, S, C]."""
    return (heads.float() * gradients.float()).unflatten(-1, (-1, head_dim)).sum(dim=-1)


def energies(inputs: torch.Tensor, centred: bool) -> torch.Tensor:
    """Σ x̂² of each channel of a norm's input, over all but the last dimension: [..., C] to [C] in float64.

    `prune` computes from it how much a norm's input shrinks when channels are dropped. For x̂ see `normalised`.
    """
    return normalised(inputs, centred).square().flatten(0, -2).sum(dim=0, dtype=torch.float64)


def covariance(inputs: torch.Tensor, centred: bool) -> torch.Tensor:
    """Σ x̂ x̂ᵀ over all positions: [B, S, H] to [H, H] in float64. For x̂ see `normalised`.

    SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024) computes principal axes of this matrix, for one norm at a time.
    """
    x = normalised(inputs, centred).flatten(0, -2)
    return (x.T @ x).double()


def gradient_covariance(inputs: torch.Tensor, gradients: torch.Tensor, centred: bool) -> torch.Tensor:
    """Σ ĝ ĝᵀ over all positions, ĝ the gradient of the loss by x̂: two tensors [B, S, H] to [H, H] in float64.

    The empirical Fisher matrix of the residual stream. If the labels were sampled from the model instead of taken from
    the text, a change δ would cost ½ δᵀ E[ĝ ĝᵀ] δ of KL to second order.
    """
    g = scaled_gradients(inputs, gradients, centred).flatten(0, -2)
    return (g.T @ g).double()


def routing_values(logits: torch.Tensor, probability: str) -> torch.Tensor:
    """The router's probability of each expert, from its logits: [..., E] to [..., E] in float32.

    Args:
        logits: The router's logits.
        probability: `softmax` over the experts, or `sigmoid` of each.
    """
    return logits.float().softmax(dim=-1) if probability == "softmax" else logits.float().sigmoid()


def routed_tokens(routed: torch.Tensor, experts: int) -> torch.Tensor:
    """How many tokens each expert gets: the experts of each token [T, experts per token] to [E] in float64."""
    return torch.bincount(routed.flatten(), minlength=experts)[:experts].double()


def expert_terms(
    module: Any, names: Experts, tokens: torch.Tensor, routed: torch.Tensor, gates: torch.Tensor, outputs: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each expert, over the tokens routed to it: Σ a² of its neurons, and Σ g |f|: [E, mlp] and [E] in float64.

    g is the weight by which the layer multiplies the expert's output f, after any normalisation over a token's experts.
    Divided by the number of tokens, Σ g |f| is the score of REAP (Lasby et al. 2025, arXiv 2510.13999).

    Args:
        module: Transformers' module of a layer's stacked experts.
        names: The names of its weights.
        tokens: Inputs of the experts, [T, H].
        routed: The experts of each token, [T, experts per token].
        gates: Their weights, [T, experts per token].
        outputs: Whether to compute the outputs; if not, the second result is 0.
    """
    squares, sizes = [], []
    for expert, (used, _, a) in enumerate(routed_inputs(module, names, tokens, routed)):
        squares.append(a.float().square().sum(dim=0, dtype=torch.float64))
        if outputs:
            size = project(module, names.down, expert, a).float().norm(dim=-1)
            gate = (gates * (routed == expert)).sum(dim=-1)[used]
            sizes.append((gate.float() * size).sum(dtype=torch.float64))
    zero = torch.zeros(len(squares), dtype=torch.float64, device=tokens.device)
    return torch.stack(squares), torch.stack(sizes) if outputs else zero


def output_products(module: Any, names: Experts, tokens: torch.Tensor) -> torch.Tensor:
    """Σ f_i · f_j of the outputs of all experts to the same tokens: [T, H] to [E, E] in float64.

    Args:
        module: Transformers' module of a layer's stacked experts.
        names: The names of its weights.
        tokens: Inputs of the experts; all experts compute all of them, wherever they were routed to.
    """
    experts = range(len(module.get_parameter(names.gate_up)))
    neurons = (module._apply_gate(project(module, names.gate_up, i, tokens)) for i in experts)
    outputs = torch.stack([project(module, names.down, i, a).float().flatten() for i, a in enumerate(neurons)])
    return (outputs @ outputs.T).double()


def stream_cosines(stream: torch.Tensor) -> torch.Tensor:
    """Σ_{b,s} cos(x_i, x_j) of the residual stream between all depths: [L + 1, B, S, H] to [L + 1, L + 1] in float64.

    Depth i is the input of layer i, depth L the output of the last layer.
    """
    x = stream.float().flatten(1, 2).transpose(0, 1)
    products = x @ x.mT  # [B * S, L + 1, L + 1]: a product per token; one product over all is many times slower
    sizes = products.diagonal(dim1=1, dim2=2).clamp_min(1e-24).rsqrt()
    return (products * sizes[:, :, None] * sizes[:, None, :]).sum(dim=0, dtype=torch.float64)


def block_influence(cosines: torch.Tensor, first: int, count: int) -> float:
    """Block influence of the `count` layers from layer `first` on: 1 - E[cos(the block's input, its output)].

    Men et al. 2024, ShortGPT (arXiv 2403.03853, equation 1), for a block as in arXiv 2408.11796, section 2.

    Args:
        cosines: [L + 1, L + 1], mean cosines of the residual stream between depths.
        first: The block's first layer.
        count: The block's number of layers.
    """
    return 1.0 - float(cosines[first, first + count])


def squared_errors(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Σ (z - z₀)² and Σ z₀², whose ratio is the normalised mean squared error of logits: two tensors [..., V] to [2].

    The criterion for layers of Nemotron Elastic (arXiv 2511.16664).
    """
    z, z0 = logits.double(), reference.double()
    return torch.stack([(z - z0).square().sum(), z0.square().sum()])
