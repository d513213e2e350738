"""Distillation losses: pure functions of logits that return the loss of every token in nats.

These are the definitions; `kernels.py` computes the same for a few rows at a time, and is tested against them.
Logits are [..., V], the teacher's without gradient; p_t and p_s are the two softmaxes at temperature T; losses are
[...]. Losses between softmaxes are multiplied by T² (Hinton et al. 2015, arXiv 1503.02531, section 2.1), so that the
size of gradients does not depend on T.

V vocabulary, H hidden, K kept tokens
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(teacher ‖ student) = Σ_v p_t (log p_t - log p_s).

    Hinton et al. 2015 (arXiv 1503.02531); Minitron's choice at T = 1 (arXiv 2407.14679, section 3 and table 15).
    """
    log_s, log_t = _log_softmaxes(student, teacher, temperature)
    return (log_t.exp() * (log_t - log_s)).sum(dim=-1) * temperature**2


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(student ‖ teacher) = Σ_v p_s (log p_s - log p_t). MiniLLM (Gu et al. 2024, arXiv 2306.08543)."""
    log_s, log_t = _log_softmaxes(student, teacher, temperature)
    return (log_s.exp() * (log_s - log_t)).sum(dim=-1) * temperature**2


def jensen_shannon(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0, beta: float = 0.5
) -> torch.Tensor:
    """JSD(β) = β KL(p_t ‖ m) + (1 - β) KL(p_s ‖ m) with m = β p_t + (1 - β) p_s.

    GKD (Agarwal et al. 2024, arXiv 2306.13649), for 0 < β < 1.
    """
    log_s, log_t = _log_softmaxes(student, teacher, temperature)
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log(1 - beta))
    to_t = (log_t.exp() * (log_t - log_m)).sum(dim=-1)
    to_s = (log_s.exp() * (log_s - log_m)).sum(dim=-1)
    return (beta * to_t + (1 - beta) * to_s) * temperature**2


def total_variation(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """½ Σ_v |p_t - p_s|. f-DISTILL (Wen et al. 2023, arXiv 2307.15190)."""
    log_s, log_t = _log_softmaxes(student, teacher, temperature)
    return (log_t.exp() - log_s.exp()).abs().sum(dim=-1) * temperature**2 / 2


def mean_squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """(1 / n) ‖x_t - x_s‖² of logits or of hidden states [..., n].

    Of logits: Kim et al. 2021 (arXiv 2105.08919) and arXiv 2407.14679, table 15; of states: TinyBERT (Jiao et al. 2020,
    arXiv 1909.10351).
    """
    return (student - teacher.detach()).square().mean(dim=-1)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cos(x_t, x_s) of logits or of hidden states [..., n]. arXiv 2407.14679, section 3, tables 15 and 17."""
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1)


def relative_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """‖x_s - x_t‖² / ‖x_t‖² of hidden states [..., n]: the squared error, relative to each token's own size."""
    target = teacher.detach()
    return (student - target).square().sum(dim=-1) / target.square().sum(dim=-1).clamp_min(1e-12)


def sparse_forward_kl(
    student: torch.Tensor, ids: torch.Tensor, probabilities: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Forward KL over the teacher's K likeliest tokens, with the remaining mass as one bucket.

    Σ_k p_t(k) (log p_t(k) - log p_s(k)) + r_t (log r_t - log r_s) with r = 1 - Σ_k p(k). Masses sum to 1 on both sides;
    renormalising the K instead would teach that all other tokens have no mass. By the data processing inequality, the
    result is at most the full KL. An id may occur several times, as when tokens are sampled from the teacher
    (Anshumann et al. 2025, arXiv 2503.16870): its probabilities add up, and if all sum to 1 there is no bucket.

    Args:
        student: Logits [..., V].
        ids: [..., K].
        probabilities: p_t of `ids` at temperature T, [..., K].
        temperature: T, for both models.
    """
    p_t = torch.zeros_like(student).scatter_add_(-1, ids, probabilities.to(student.dtype))
    log_s = F.log_softmax(student / temperature, dim=-1)
    rest_t = (1 - p_t.sum(dim=-1)).clamp_min(0)
    log_rest = log_s.masked_fill(p_t > 0, torch.finfo(log_s.dtype).min).logsumexp(dim=-1)
    kept = (torch.xlogy(p_t, p_t) - p_t * log_s).sum(dim=-1)
    rest = torch.xlogy(rest_t, rest_t) - torch.where(rest_t > TAIL, rest_t * log_rest, 0)
    return (kept + rest) * temperature**2


TAIL = 1e-5
"""Remaining mass below this is rounding error of a float32 sum to 1, and counts as none."""


def _log_softmaxes(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher.detach() / temperature, dim=-1),
    )
