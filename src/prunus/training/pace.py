"""Default batch size, sequence length and learning rate, from the tokens of a run and the model's size.

Two regions are known. A half of SmolLM2-135M was distilled on 25 to 98 thousand tokens with a peak rate of 6e-4 at
hidden size 480; at 49 thousand, steps of 512 tokens were better than steps of 1,920 (docs/decisions/0006).
Llama-3.1-Minitron 4B took 94 billion tokens, with 9.4 million tokens per step and a peak rate of 1e-4 at hidden size
3072 (arXiv 2408.11796, table 4). Between them, tokens per step grow as a power of the run's tokens; rates fall with the
hidden size, which also holds at 48 and 128 (docs/recovery.md).
"""

from __future__ import annotations

_TOKENS, _STEP = 500_000, 2048  # extrapolated: 660 tokens per step at 98 thousand
_GROWTH = 0.6943  # log(9.437e6 / 2048) / log(94e9 / 5e5)
_SEQUENCES = 4  # per step, at least, in short runs
_SHORTEST, _LONGEST = 128, 8192
_STEPS = 20
_RATE = 0.3  # divided by hidden_size: 1e-4 at 3072, 5e-4 at 576
_MAX_RATE = 1e-2
_MIN_SHARE = 0.1


def step_tokens(tokens: int, hidden_size: int) -> int:
    """Tokens of one optimiser step.

    Args:
        tokens: Tokens of the run.
        hidden_size: The model's. Muon takes about 25 x hidden_size FLOP per parameter and step, distillation about 10
            per parameter and token: with hidden_size tokens per step, the optimiser already dominates. This is the
            minimum, unless it would leave the run fewer than twenty steps.
    """
    least = min(hidden_size, tokens // _STEPS)
    return max(1, least, round(_STEP * (tokens / _TOKENS) ** _GROWTH))


def sequence_length(tokens: int, hidden_size: int, context: int, batch_size: int = _SEQUENCES) -> int:
    """Tokens per sequence: a power of two within the model's context, for `batch_size` sequences per step."""
    step = step_tokens(tokens, hidden_size)
    length = min(max(step // batch_size, _SHORTEST), _LONGEST, context, max(tokens, 2))
    return 1 << (length.bit_length() - 1)


def batch_size(tokens: int, hidden_size: int, length: int) -> int:
    """Sequences per step."""
    return max(1, round(step_tokens(tokens, hidden_size) / length))


def warmup_steps(steps: int) -> int:
    """Warm-up steps: a twentieth of the steps, at most 40 as in arXiv 2408.11796."""
    return min(40, steps // 20)


def learning_rate(hidden_size: int, cut: float) -> float:
    """The peak learning rate for a student with half of its teacher's parameters; less for one closer to its teacher.

    Args:
        hidden_size: The trained model's.
        cut: The fraction of the teacher's non-embedding parameters that was removed. With only its vocabulary pruned,
            a student is close to its teacher, and a high rate would move it away.
    """
    return round_rate(min(_RATE / hidden_size, _MAX_RATE) * min(1.0, max(2 * cut, _MIN_SHARE)))


def lora_factor(rank: int) -> float:
    """The factor of default rates: 10 if only updates of some rank are trained (LoRA), 1 if all weights are (rank 0).

    Ten times the rate is best at every rank (Schulman et al. 2025, thinkingmachines.ai/blog/lora).
    """
    return 10.0 if rank else 1.0


def round_rate(rate: float) -> float:
    """Round a rate to two digits, which is the precision of these rules."""
    return float(f"{rate:.1e}")
