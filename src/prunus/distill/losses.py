"""Distillation losses: pure functions of logits.

B batch, S sequence, V vocabulary, H hidden
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """KL(teacher ‖ student) = Σ_v p_t (log p_t - log p_s), the mean over tokens, in nats.

    Hinton et al. 2015 (arXiv 1503.02531), with their factor T² so that the gradient's size does not depend on T;
    Minitron's choice at T = 1 (arXiv 2407.14679, section 3 and table 15).

    Args:
        student: Logits [B, S, V].
        teacher: Logits [B, S, V]; no gradient flows into them.
        temperature: T, by which both are divided.

    Returns:
        A scalar.
    """
    log_s = F.log_softmax(student.float() / temperature, dim=-1).flatten(0, -2)
    log_t = F.log_softmax(teacher.detach().float() / temperature, dim=-1).flatten(0, -2)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def stream_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """‖x_s - x_t‖² / ‖x_t‖² of the residual stream, the mean over tokens.

    The mean squared error of states of TinyBERT (Jiao et al. 2020, arXiv 1909.10351), relative to each
    token's own size, and through the basis of the cut in place of a projection that is learned.

    Args:
        student: [B, S, H].
        teacher: [B, S, H], in the student's basis; no gradient flows into it.

    Returns:
        A scalar.
    """
    wanted = teacher.detach().float()
    errors = (student.float() - wanted).square().sum(dim=-1)
    return (errors / wanted.square().sum(dim=-1).clamp_min(1e-12)).mean()
