"""Losses of alignment: pure functions of log-probabilities, lengths and rewards that give a loss per pair or answer.

Notation: log π(y) = Σ log π(y_t | y_<t) is the log-probability of an answer after its prompt, in nats; π_ref is the
reference model; h(y) = log π(y) - log π_ref(y) is the log-ratio; D = h(chosen) - h(rejected) is the *gap* of a pair.
With `per_token`, all of these are divided by the answer's length. σ is the sigmoid. Tensors are [B], the pairs or
answers of a batch; rewards and the reference's log-probabilities have no gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def sft(log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """-log π(y) / |y|: cross-entropy per token of an answer."""
    return -log_probs / lengths


def gap(
    chosen: torch.Tensor, rejected: torch.Tensor, reference_chosen: torch.Tensor, reference_rejected: torch.Tensor
) -> torch.Tensor:
    """D = log π/π_ref (chosen) - log π/π_ref (rejected)."""
    return (chosen - reference_chosen) - (rejected - reference_rejected)


def dpo(gap: torch.Tensor, beta: float) -> torch.Tensor:
    """-log σ(β D). Rafailov et al. 2023 (arXiv 2305.18290, equation 7)."""
    return -F.logsigmoid(beta * gap)


def cdpo(gap: torch.Tensor, beta: float, label_smoothing: float) -> torch.Tensor:
    """-(1 - ε) log σ(β D) - ε log σ(-β D), where labels are wrong with probability ε.

    Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    """
    return (1 - label_smoothing) * dpo(gap, beta) + label_smoothing * dpo(-gap, beta)


def ipo(gap: torch.Tensor, beta: float) -> torch.Tensor:
    """(D - 1 / (2 τ))², τ being `beta`. Azar et al. 2023 (arXiv 2310.12036, equation 17)."""
    return (gap - 1 / (2 * beta)).square()


def rpo(
    gap: torch.Tensor, reward_gap: torch.Tensor, beta: float, eta: float, distance: str = "backward_kl"
) -> torch.Tensor:
    """Reward-aware preference optimisation (RPO): the distance between the model's reward gap and the given one.

    Nemotron-4 340B (arXiv 2406.11704, section 3.3.2) and NeMo-Aligner (arXiv 2405.01481). With b = β D and
    a = η (r(chosen) - r(rejected)), `backward_kl` is KL(Bern σ(a) ‖ Bern σ(b)), `forward_kl` is
    KL(Bern σ(b) ‖ Bern σ(a)), and `squared` is (b - a)².

    Backward KL is DPO with the soft label σ(a), minus the label's entropy; for η → ∞ it becomes DPO; and `squared` with
    a = 1/2 is β² IPO(τ = β).
    """
    implied, given = beta * gap, (eta * reward_gap).to(gap.dtype)
    if distance == "squared":
        return (implied - given).square()
    first, second = (given, implied) if distance == "backward_kl" else (implied, given)
    return bernoulli_kl(first, second)


def bernoulli_kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(Bern σ(a) ‖ Bern σ(b)) of log-odds a and b: σ(a) (log σ(a) - log σ(b)) + σ(-a) (log σ(-a) - log σ(-b))."""
    yes = first.sigmoid() * (F.logsigmoid(first) - F.logsigmoid(second))
    return yes + (-first).sigmoid() * (F.logsigmoid(-first) - F.logsigmoid(-second))


def simpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    beta: float,
    gamma: float,
) -> torch.Tensor:
    """-log σ(β/|c| log π(c) - β/|r| log π(r) - γ), without a reference.

    Meng et al. 2024 (arXiv 2405.14734, equation 6). γ is the target margin itself; the paper's implementation tunes it
    as a share of β.
    """
    return -F.logsigmoid(beta * (chosen / chosen_lengths - rejected / rejected_lengths) - gamma)


def orpo(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    odds_weight: float,
) -> torch.Tensor:
    """-log P(c) + λ `odds_ratio`, with log P(y) = log π(y) / |y|.

    Hong et al. 2024 (arXiv 2403.07691, equations 3 to 7); without a reference.
    """
    c, r = chosen / chosen_lengths, rejected / rejected_lengths
    return -c + odds_weight * odds_ratio(c, r)


def odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """-log σ(log odds(c) / odds(r)) of log P, with odds(y) = P(y) / (1 - P(y))."""
    return -F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def log_odds(log_p: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of log p < 0; log(1 - p) by expm1 or log1p, whichever is more accurate."""
    rest = torch.where(log_p > -math.log(2), torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))
    return log_p - rest


def kto(
    log_ratio: torch.Tensor,
    desirable: torch.Tensor,
    baseline: torch.Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """λ (1 - σ(β (h - z))) of desirable answers, λ (1 - σ(β (z - h))) of undesirable ones, with h = log π/π_ref.

    Ethayarajh et al. 2024 (arXiv 2402.01306, equation 8).

    Args:
        log_ratio: h of each answer.
        desirable: Whether the answer is desirable.
        baseline: z ≥ 0, an estimate of KL(π ‖ π_ref), a scalar without gradient.
        beta: β.
        desirable_weight: λ of desirable answers.
        undesirable_weight: λ of undesirable ones.
    """
    sign = desirable.to(log_ratio.dtype) * 2 - 1
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    return weight * (1 - torch.sigmoid(sign * beta * (log_ratio - baseline)))


def kto_baseline(log_ratio: torch.Tensor) -> torch.Tensor:
    """KTO's estimate of KL(π ‖ π_ref), z = max(0, mean h(y')) over answers y' to other prompts (as above)."""
    return log_ratio.detach().mean().clamp_min(0)


def spin(gap: torch.Tensor, beta: float) -> torch.Tensor:
    """log(1 + exp(-λ D)): DPO with the data's answer as chosen, and the previous round's model's answer as rejected.

    Chen et al. 2024 (arXiv 2401.01335, equation 4.7).
    """
    return dpo(gap, beta)


def bradley_terry(chosen: torch.Tensor, rejected: torch.Tensor, margin: torch.Tensor | float = 0.0) -> torch.Tensor:
    """-log σ(r(c) - r(r) - m): the loss of a reward model.

    Ouyang et al. 2022 (arXiv 2203.02155, equation 1), with the margin m of Llama 2 (arXiv 2307.09288, equation 2).
    """
    return -F.logsigmoid(chosen - rejected - margin)
