"""The distillation losses by name: each a formula, and optionally a kernel.

A new loss needs a formula in `losses`, of logits [..., V] and of options by name; its name in `config.Loss`; and an
entry here. Its gradient comes from autograd, for a block of rows at a time. A kernel in `kernels` that writes the
gradient in place makes it faster, and is tested against the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch

from prunus.kd import kernels, losses
from prunus.kd.config import GuideConfig
from prunus.kd.kernels import Divergence


@dataclass(frozen=True)
class Loss:
    """A distillation loss.

    Attributes:
        formula: Maps the logits of student and teacher [R, V], and options by name, to the loss of each token [R].
        kernel: The same, and overwrites the student's logits with the gradient; None for autograd's gradient.
    """

    formula: Callable[..., torch.Tensor]
    kernel: Callable[..., torch.Tensor] | None = None

    def rows(self, config: GuideConfig) -> Divergence:
        """The loss as a function of logits, with its options bound."""
        named = signature(self.formula).parameters.keys() & GuideConfig.model_fields
        options = {name: getattr(config, name) for name in named}
        return partial(self.kernel or partial(by_autograd, self.formula), **options)

    @property
    def scaled(self) -> bool:
        """Whether a temperature divides the logits, and its square multiplies the loss."""
        return "temperature" in signature(self.formula).parameters


LOSSES = {
    "forward_kl": Loss(losses.forward_kl, kernels.forward_kl_rows),
    "reverse_kl": Loss(losses.reverse_kl, kernels.reverse_kl_rows),
    "jensen_shannon": Loss(losses.jensen_shannon, kernels.jensen_shannon_rows),
    "total_variation": Loss(losses.total_variation, kernels.total_variation_rows),
    "mse": Loss(losses.mean_squared_error, kernels.mean_squared_error_rows),
    "cosine": Loss(losses.cosine_distance, kernels.cosine_rows),
}


def divergence_of(config: GuideConfig) -> Divergence:
    """The loss selected by the options, as a function of logits."""
    if config.top_k is not None:
        return partial(kernels.top_k_rows, temperature=config.temperature, count=config.top_k)
    return LOSSES[config.loss].rows(config)


def may_compile(config: GuideConfig) -> bool:
    """Whether the loss consists of plain tensor operations: neither a sort (`top_k`) nor autograd."""
    return config.top_k is None and LOSSES[config.loss].kernel is not None


def by_autograd(
    formula: Callable[..., torch.Tensor], student: torch.Tensor, teacher: torch.Tensor, **options: float
) -> torch.Tensor:
    """The losses [R] of any formula; overwrites the student's logits [R, V] with the gradient."""
    with torch.enable_grad():
        leaf = student.detach().clone().requires_grad_()
        each = formula(leaf, teacher, **options)
        (gradient,) = torch.autograd.grad(each.sum(), leaf)
    student.copy_(gradient)
    return each.detach()
