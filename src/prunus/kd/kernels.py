"""The losses of losses.py for a few rows of logits at a time, in place; called by the LM head in `training.head`.

Every function takes the student's logits z [R, V], overwrites them with the gradient of each token's loss, and returns
the losses [R]. A loss f of p_s = softmax(z / T) has the gradient dz = T p_s (g - Σ_v p_s g) with g = ∂f / ∂p_s, where T
comes from the factor T² of the loss and 1 / T of the logits; each function states its g. Exponentials dominate the
cost, so forward KL, the usual loss, computes each only once.

R rows, V vocabulary, K kept tokens
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from prunus.kd.losses import TAIL

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps the logits of student and teacher [R, V] to losses [R]; overwrites the first with the gradient."""


def forward_kl_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """`forward_kl`: dz = T (p_s - p_t). Overwrites both arguments.

    With x the logits minus their maximum, and Z = Σ_v exp(x), the loss is Σ_v p_t (x_t - x_s) - log Z_t + log Z_s.
    """
    for logits in (student, teacher):
        if temperature != 1:
            logits.div_(temperature)
        logits.sub_(logits.amax(dim=-1, keepdim=True))
    difference = teacher - student
    e_s, e_t = student.exp_(), teacher.exp_()
    z_s, z_t = e_s.sum(dim=-1, keepdim=True), e_t.sum(dim=-1, keepdim=True)
    losses = torch.linalg.vecdot(e_t, difference) / z_t.squeeze(-1) + (z_s / z_t).log().squeeze(-1)
    e_s.mul_(temperature / z_s).addcmul_(e_t, temperature / z_t, value=-1)
    return losses * temperature**2


def reverse_kl_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """`reverse_kl`: g = log p_s - log p_t, whose mean is the loss."""
    log_s, log_t = torch.empty_like(student), F.log_softmax(teacher / temperature, dim=-1)
    p_s = _softmax(student, log_s, temperature)
    return _through_softmax(p_s, log_s.sub_(log_t), temperature) * temperature**2


def jensen_shannon_rows(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, beta: float = 0.5
) -> torch.Tensor:
    """`jensen_shannon`: g = (1 - β) (log p_s - log m); the derivative through m = β p_t + (1 - β) p_s is constant.

    Overwrites both arguments.
    """
    log_s, log_t = torch.empty_like(student), torch.empty_like(teacher)
    p_s, p_t = _softmax(student, log_s, temperature), _softmax(teacher, log_t, temperature)
    log_m = torch.lerp(p_s, p_t, beta).clamp_min_(torch.finfo(p_s.dtype).tiny).log_()
    to_t = torch.linalg.vecdot(p_t, log_t.sub_(log_m))
    to_s = _through_softmax(p_s, log_s.sub_(log_m).mul_(1 - beta), temperature)
    return (beta * to_t + to_s) * temperature**2


def total_variation_rows(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """`total_variation`: g = ½ sign(p_s - p_t)."""
    p_s, p_t = (torch.softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    difference = p_s - p_t
    losses = difference.abs().sum(dim=-1) / 2
    _through_softmax(student.copy_(p_s), difference.sign_().div_(2), temperature)
    return losses * temperature**2


def mean_squared_error_rows(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """`mean_squared_error` of logits: dz = (2 / V) (z - z_t)."""
    difference = student.sub_(teacher)
    losses = difference.square().mean(dim=-1)
    difference.mul_(2 / difference.shape[-1])
    return losses


def _softmax(logits: torch.Tensor, logs: torch.Tensor, temperature: float) -> torch.Tensor:
    """Overwrite logits [R, V] with probabilities, and `logs` [R, V] with their logarithms."""
    torch.sub(logits, logits.amax(dim=-1, keepdim=True), out=logs).div_(temperature)
    torch.exp(logs, out=logits)
    total = logits.sum(dim=-1, keepdim=True)
    logs.sub_(total.log())
    return logits.div_(total)


def _through_softmax(p_s: torch.Tensor, g: torch.Tensor, temperature: float) -> torch.Tensor:
    """Overwrite p_s [R, V] with T p_s (g - Σ_v p_s g), and return Σ_v p_s g, [R]."""
    mean = torch.linalg.vecdot(p_s, g)
    p_s.mul_(g.sub_(mean[:, None])).mul_(temperature)
    return mean


def sparse_forward_kl_rows(
    student: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """`sparse_forward_kl`: dz = T (p_s - p_t) at `ids`, and T p_s (1 - r_t / r_s) elsewhere."""
    if temperature != 1:
        student.div_(temperature)
    log_s = F.log_softmax(student, dim=-1)
    at_ids = log_s.gather(-1, ids)
    merged = (
        student.zero_().scatter_add_(-1, ids, probabilities).gather(-1, ids)
    )  # probabilities of an id that was sampled twice add up
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


def cosine_rows(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """`cosine_distance` of logits: dz = (cos z / ‖z‖ - z_t / ‖z_t‖) / ‖z‖."""
    norm_s, norm_t = (logits.norm(dim=-1, keepdim=True).clamp_min(1e-8) for logits in (student, teacher))
    student.div_(norm_s)
    cosine = torch.linalg.vecdot(student, teacher)[:, None] / norm_t
    student.mul_(cosine / norm_s).addcmul_(teacher, 1 / (norm_s * norm_t), value=-1)
    return 1 - cosine.squeeze(-1)
