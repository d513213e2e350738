"""The losses of losses.py, a few rows of logits at a time, in place, for the LM head of `training.head` to call.

Every function takes logits of the student z [R, V], writes the gradient of each token's loss by them over them, and
returns the losses [R]. Forward KL and its sparse form are written out, since a step spends its time there; the others
are taken from their definition by autograd, block by block, which costs memory for one block.

R rows, V vocabulary, K kept tokens
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from prunus.distill.losses import TAIL

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the logits of student and teacher [R, V] to losses [R]; the gradient is left in the first."""


def forward_kl_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """`forward_kl`: dz = T (p_s - p_t), by T² of the loss and 1 / T of the logits. Both arguments are written over."""
    if temperature != 1:
        student.div_(temperature)
        teacher.div_(temperature)
    log_t, log_s = F.log_softmax(teacher, dim=-1), F.log_softmax(student, dim=-1)
    p_t, p_s = torch.exp(log_t, out=teacher), torch.exp(log_s, out=student)
    losses = torch.linalg.vecdot(p_t, log_t.sub_(log_s))
    p_s.sub_(p_t)
    if temperature != 1:
        p_s.mul_(temperature)
    return losses * temperature**2


def sparse_forward_kl_rows(
    student: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """`sparse_forward_kl`: dz = T (p_s - p_t) at `ids`, and T p_s (1 - r_t / r_s) elsewhere."""
    if temperature != 1:
        student.div_(temperature)
    log_s = F.log_softmax(student, dim=-1)
    at_ids = log_s.gather(-1, ids)
    merged = student.zero_().scatter_add_(-1, ids, probabilities).gather(-1, ids)  # an id drawn twice has both
    losses = (torch.xlogy(probabilities, merged) - probabilities * at_ids).sum(dim=-1)
    rest_t = (1 - probabilities.sum(dim=-1)).clamp_min(0)
    p_s = torch.exp(log_s, out=student)
    if bool((rest_t > TAIL).any()):
        log_rest = log_s.scatter_(-1, ids, torch.finfo(log_s.dtype).min).logsumexp(dim=-1)
        has_rest = rest_t > TAIL
        losses += torch.where(has_rest, torch.xlogy(rest_t, rest_t) - rest_t * log_rest, 0)
        p_s.mul_(torch.where(has_rest, 1 - rest_t / log_rest.exp(), 1)[:, None])
    p_s.scatter_(-1, ids, at_ids.exp()).scatter_add_(-1, ids, -probabilities)
    p_s.mul_(temperature)
    return losses * temperature**2


def top_k_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float, count: int) -> torch.Tensor:
    """`sparse_forward_kl` over the teacher's `count` likeliest tokens."""
    log_t = F.log_softmax(teacher / temperature, dim=-1)
    kept, ids = log_t.topk(min(count, log_t.shape[-1]), dim=-1)
    return sparse_forward_kl_rows(student, ids, kept.exp(), temperature)


def by_autograd(formula: Divergence) -> Divergence:
    """The rows of a loss as it is defined."""

    def rows(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            logits = student.detach().clone().requires_grad_()
            losses = formula(logits, teacher)
            (gradient,) = torch.autograd.grad(losses.sum(), logits)
        student.copy_(gradient)
        return losses.detach()

    return rows
