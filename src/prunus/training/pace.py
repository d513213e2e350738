"""How much at a time and how fast, where nobody says: from the tokens of a run and from the model's size.

Two points are known to work. SmolLM2-135M recovers in 50 thousand to a few million tokens with steps of 512 to 2,048
tokens and a peak rate of 5e-4 at hidden size 576; of two step sizes at 50 thousand tokens the smaller is better by far
(docs/decisions/0006). Llama-3.1-Minitron 4B took 94 billion tokens with steps of 9.4 million and a peak rate of 1e-4 at
hidden size 3072 (arXiv 2408.11796, table 4). Steps grow between them as a power of the tokens; rates fall with the
hidden size, which also holds at hidden sizes 48 and 128 (docs/recovery.md).
"""

from __future__ import annotations

_TOKENS, _STEP = 500_000, 2048
_GROWTH = 0.6943  # log(9.437e6 / 2048) / log(94e9 / 5e5)
_SEQUENCES = 4  # of a step, at least, where the text is short
_SHORTEST, _LONGEST = 64, 8192
_WIDTHS, _STEPS = 1, 20
_RATE = 0.3  # times 1 / hidden_size: 1e-4 at 3072, 5e-4 at 576
_FASTEST = 1e-2
_GENTLEST = 0.1


def step_tokens(tokens: int, hidden_size: int) -> int:
    """Tokens of one optimiser step.

    Args:
        tokens: Of the run.
        hidden_size: Of the model. Muon's products take about 25 hidden_size FLOP a parameter and step, and distillation
            some 10 a parameter and token: a step of hidden_size tokens is mostly the optimiser's, and shorter ones
            cost time without end. They are longer only if a run would have fewer than twenty of them.
    """
    least = min(_WIDTHS * hidden_size, tokens // _STEPS)
    return max(1, least, round(_STEP * (tokens / _TOKENS) ** _GROWTH))


def sequence_length(tokens: int, hidden_size: int, context: int, batch_size: int = _SEQUENCES) -> int:
    """Tokens of a sequence: a power of two, such that a step has `batch_size` of them, within the model's context."""
    step = step_tokens(tokens, hidden_size)
    wanted = min(max(step // batch_size, _SHORTEST), _LONGEST, context, max(tokens, 2))
    return 1 << (wanted.bit_length() - 1)


def batch_size(tokens: int, hidden_size: int, length: int) -> int:
    """Sequences of a step."""
    return max(1, round(step_tokens(tokens, hidden_size) / length))


def warmup_steps(steps: int) -> int:
    """A twentieth of the steps, and no more than the 40 of arXiv 2408.11796."""
    return min(40, steps // 20)


def learning_rate(hidden_size: int, cut: float) -> float:
    """The peak rate: that of a student of half of its teacher's parameters, and less for one that starts nearer to it.

    Args:
        hidden_size: Of the model that is trained.
        cut: The share of the teacher's non-embedding parameters that the student has not. One whose vocabulary alone
            was cut is near its teacher, and a high rate drives it away.
    """
    return round_rate(min(_RATE / hidden_size, _FASTEST) * min(1.0, max(2 * cut, _GENTLEST)))


def round_rate(rate: float) -> float:
    """Two digits of a rate, which is all that is known of it."""
    return float(f"{rate:.1e}")
