"""The losses by a teacher, by their names in the options: each a formula, and a kernel where one is written.

A new loss is a formula in `losses` of logits [..., V] and, by name, of whatever options it takes; its name in
`config.Loss`; and an entry here. Its gradient comes by autograd, a block of rows at a time. A kernel in `kernels` that
writes the gradient in place makes it faster, and is tested against the formula.
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
    """A loss by a teacher.

    Attributes:
        formula: From the logits of student and teacher [R, V] and options by name to the loss of each token [R].
        kernel: The same with the gradient by the student's logits written over them; None takes autograd's.
    """

    formula: Callable[..., torch.Tensor]
    kernel: Callable[..., torch.Tensor] | None = None

    def rows(self, config: GuideConfig) -> Divergence:
        """It by a teacher, with its options filled in."""
        options = {name: getattr(config, name) for name in signature(self.formula).parameters if hasattr(config, name)}
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
    """The loss that the options name, for rows of logits."""
    if config.top_k is not None:
        return partial(kernels.top_k_rows, temperature=config.temperature, count=config.top_k)
    return LOSSES[config.loss].rows(config)


def may_compile(config: GuideConfig) -> bool:
    """Whether its rows are plain tensor operations: not a sort whose result is asked for, nor autograd."""
    return config.top_k is None and LOSSES[config.loss].kernel is not None


def by_autograd(
    formula: Callable[..., torch.Tensor], student: torch.Tensor, teacher: torch.Tensor, **options: float
) -> torch.Tensor:
    """The losses [R] of any formula; the gradient by the student's logits [R, V] is written over them."""
    with torch.enable_grad():
        leaf = student.detach().clone().requires_grad_()
        each = formula(leaf, teacher, **options)
        (gradient,) = torch.autograd.grad(each.sum(), leaf)
    student.copy_(gradient)
    return each.detach()
