"""Merge methods: pure functions on one weight's tensors, and at the end the table of methods.

K models; θ_k the weight of model k, θ_0 that of the base; δ_k = θ_k - θ_0; w_k model k's weight; λ the scale

Options and help are also made from the table, so torch is imported only inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from prunus.steps.merge.method import MergeMethod, Operands

if TYPE_CHECKING:
    from torch import Generator, Tensor

_PARALLEL = 0.9995  # |cos| above which the arc is replaced by a line, as in mergekit
_LEAST = 1e-8


def linear(tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Σ_k w_k θ_k, divided by Σ_k w_k where `normalize` (model soups, Wortsman et al. 2022, arXiv 2203.05482)."""
    total = cast("Tensor", sum(weight * tensor for weight, tensor in zip(weights, tensors, strict=True)))
    return total / sum(weights) if normalize else total


def average(tensors: Sequence[Tensor], decay: float) -> Tensor:
    """The weighted mean of checkpoints in the order of training; checkpoint k of K has weight decay^(K - k).

    With decay 1 it is the plain mean (Izmailov et al. 2018, arXiv 1803.05407; of the latest checkpoints: Kaddour 2022,
    arXiv 2209.14981), below 1 an exponential moving average.
    """
    count = len(tensors)
    return linear(tensors, [decay ** (count - 1 - k) for k in range(count)], normalize=True)


def slerp(first: Tensor, second: Tensor, t: float) -> Tensor:
    """The point at `t` on the arc from one weight to the other (Shoemake 1985), each flattened to a vector.

    sin((1 - t) φ) / sin φ · θ_1 + sin(t φ) / sin φ · θ_2, where φ is the angle between them; linear interpolation if
    they are nearly parallel.
    """
    import torch

    norms = [torch.linalg.vector_norm(tensor) for tensor in (first, second)]
    units = [tensor / (norm if norm > _LEAST else 1.0) for tensor, norm in zip((first, second), norms, strict=True)]
    cosine = (units[0] * units[1]).sum().clamp(-1, 1)
    if cosine.abs() > _PARALLEL:
        return (1 - t) * first + t * second
    angle = torch.acos(cosine)
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def added(base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], scale: float, normalize: bool) -> Tensor:
    """θ_0 + λ Σ_k w_k δ_k: task arithmetic (Ilharco et al. 2022, arXiv 2212.04089, section 2).

    With `normalize`, the sum is divided by Σ_k w_k, which the paper does not do.
    """
    total = sum(weight * delta for weight, delta in zip(weights, deltas, strict=True))
    divisor = sum(weights) if normalize else 1.0
    return base + scale * total / (divisor if abs(divisor) > _LEAST else 1.0)


def elected(base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], scale: float, normalize: bool) -> Tensor:
    """TIES' election of signs and disjoint mean (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

    Each value's sign is that of Σ_k w_k δ_k; the models that agree are averaged by their weights, or summed without
    `normalize`.
    """
    import torch

    election = cast("Tensor", sum(weight * delta for weight, delta in zip(weights, deltas, strict=True)))
    positive = election >= 0
    total, divisor = torch.zeros_like(base), torch.zeros_like(base)
    for weight, delta in zip(weights, deltas, strict=True):  # one by one: a stack would need memory for all models
        weighted = weight * delta
        agree = torch.where(positive, weighted > 0, weighted < 0)
        total += torch.where(agree, weighted, 0)
        divisor += weight * agree
    if normalize:
        total /= torch.where(divisor == 0, 1.0, divisor)
    return base + scale * total


def trimmed(delta: Tensor, density: float) -> Tensor:
    """The largest `density` of a difference's values, at least one; all others become 0 (TIES, as above).

    Deviation: the paper trims all of a model's differences as one vector; here, as in mergekit, each weight is trimmed
    separately, so that one weight at a time is enough.
    """
    import torch

    if density >= 1 or not delta.numel():
        return delta
    flat = delta.reshape(-1)
    kept = flat.abs().topk(max(1, int(density * flat.numel())), sorted=False).indices
    result = torch.zeros_like(flat)
    result[kept] = flat[kept]
    return result.view_as(delta)


def dropped(delta: Tensor, density: float, generator: Generator) -> Tensor:
    """Each value kept with probability `density`, and divided by it (DARE, Yu et al. 2023, arXiv 2311.03099, eq. 3)."""
    import torch

    kept = torch.bernoulli(torch.full_like(delta, density), generator=generator)
    return delta * kept / density


def model_stock(base: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """θ_0 + t (θ̄ - θ_0) with t = K cos φ / (1 + (K - 1) cos φ) (Jang et al. 2024, arXiv 2403.19522, equation 6).

    φ is the angle between two models' differences to the base; with more than two models cos φ is the mean over pairs.
    """
    import torch

    deltas = [(tensor - base).reshape(-1) for tensor in tensors]
    norms = [torch.linalg.vector_norm(delta) for delta in deltas]
    count = len(deltas)
    pairs = [
        ((deltas[i] @ deltas[j]) / (norms[i] * norms[j]).clamp(min=1e-6)).clamp(-1, 1)
        for i in range(count)
        for j in range(i + 1, count)
    ]
    cosine = torch.stack(pairs).mean()
    divisor = 1 + (count - 1) * cosine
    t = (
        count * cosine / divisor if divisor.abs() > 1e-6 else torch.zeros_like(cosine)
    )  # opposite differences: return the base
    return base + t * (linear(tensors, [1.0] * count, normalize=True) - base)


def _trimmed(one: Operands) -> list[Tensor]:
    """δ_k with their largest values."""
    return [trimmed(delta, density) for delta, density in zip(one.deltas, one.densities, strict=True)]


def _dropped(one: Operands) -> list[Tensor]:
    """δ_k with random values."""
    pairs = enumerate(zip(one.deltas, one.densities, strict=True))
    return [dropped(delta, density, one.chance(k)) for k, (delta, density) in pairs]


_ADDED = ("base", "weights", "scale", "normalize")

METHODS = {
    "linear": MergeMethod(
        lambda one: linear(one.tensors, one.weights, one.normalize),
        "Σ w_k θ_k / Σ w_k",
        ("weights", "normalize"),
        "model soups, arXiv 2203.05482",
        note="a weighted mean",
        normalizes=True,
    ),
    "average": MergeMethod(
        lambda one: average(one.tensors, one.decay),
        "the mean over checkpoints, older ones counting less by `decay`",
        ("decay",),
        "arXiv 1803.05407, 2209.14981",
        note="of checkpoints",
    ),
    "slerp": MergeMethod(
        lambda one: slerp(one.tensors[0], one.tensors[1], one.t),
        "the point at `t` of the arc between two",
        ("t",),
        "Shoemake 1985",
        note="two models",
    ),
    "task_arithmetic": MergeMethod(
        lambda one: added(one.origin, one.deltas, one.weights, one.scale, one.normalize),
        "θ_0 + λ Σ w_k δ_k",
        _ADDED,
        "arXiv 2212.04089",
        single=True,
    ),
    "ties": MergeMethod(
        lambda one: elected(one.origin, _trimmed(one), one.weights, one.scale, one.normalize),
        "the largest of each δ_k; signs elected; the mean of those that agree",
        (*_ADDED, "densities"),
        "arXiv 2306.01708",
        normalizes=True,
    ),
    "dare_linear": MergeMethod(
        lambda one: added(one.origin, _dropped(one), one.weights, one.scale, one.normalize),
        "values of δ_k dropped by chance and made up for; then as `task_arithmetic`",
        (*_ADDED, "densities", "seed"),
        "arXiv 2311.03099",
    ),
    "dare_ties": MergeMethod(
        lambda one: elected(one.origin, _dropped(one), one.weights, one.scale, one.normalize),
        "the same; then signs elected as in `ties`",
        (*_ADDED, "densities", "seed"),
        "arXiv 2311.03099",
    ),
    "model_stock": MergeMethod(
        lambda one: model_stock(one.origin, one.tensors),
        "the base and the mean, by the angle between the δ_k",
        ("base",),
        "arXiv 2403.19522",
    ),
    "flow": MergeMethod(
        None,
        "layers of several models, one after the other",
        ("flow.layers", "flow.scales"),
        "arXiv 2403.13187",
        note="layers of several models, one after the other",
        single=True,
    ),
}
"""Every method by name. Options, help, dispatch and the table of docs/merge.md are made from it."""
