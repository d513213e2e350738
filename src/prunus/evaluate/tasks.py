"""What can be measured: tasks of lm-evaluation-harness as the Minitron paper sets them, and four skills of our own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_LARGEST = 709.0  # nats, above which the exponential is no float
SKILLS = ("instruction_following", "roleplay", "rag", "function_calling")
"""Answered in words and checked by `prunus.verify`, or by a judge."""


@dataclass(frozen=True)
class Known:
    """How a task of the harness is set.

    Attributes:
        num_fewshot: Worked examples before each question (Minitron, arXiv 2407.14679, section 4).
        metrics: What is kept of what the harness reports, the first being the one that counts.
        generates: Whether it is answered in words.
        code: Whether its answers are run.
    """

    num_fewshot: int
    metrics: tuple[str, ...]
    generates: bool = False
    code: bool = False


HARNESS = {
    "mmlu": Known(5, ("acc",)),
    "hellaswag": Known(10, ("acc_norm", "acc")),
    "arc_challenge": Known(25, ("acc_norm", "acc")),
    "arc_easy": Known(0, ("acc_norm", "acc")),
    "winogrande": Known(5, ("acc",)),
    "piqa": Known(0, ("acc_norm", "acc")),
    "truthfulqa_mc2": Known(0, ("acc",)),
    "lambada_openai": Known(0, ("acc", "perplexity")),
    "gsm8k": Known(5, ("exact_match",), generates=True),
    "mbpp": Known(0, ("pass_at_1",), generates=True, code=True),
    "humaneval": Known(0, ("pass@1",), generates=True, code=True),
}
"""Those whose settings are known here; any other is set as the harness sets it."""

BASE = tuple(name for name, known in HARNESS.items() if name != "arc_easy" and not known.code)
"""What `base` stands for; where code may be run also `CODE`."""
CODE = tuple(name for name, known in HARNESS.items() if known.code)


@dataclass(frozen=True)
class Derived:
    """A figure that is a function of a mean over items, and no mean itself.

    Attributes:
        mean: The mean that it is computed from.
        value: The function, which rises.
        slope: Its derivative, for the standard error.
    """

    mean: str
    value: Callable[[float], float]
    slope: Callable[[float], float]


def _exp(mean: float) -> float:
    """The exponential; infinite where a float has no room for it."""
    return math.inf if mean > _LARGEST else math.exp(mean)


DERIVED = {
    "perplexity": Derived("nll", _exp, _exp),
    "word_perplexity": Derived("nll_per_word", _exp, _exp),
    "byte_perplexity": Derived("nll_per_byte", _exp, _exp),
    "bits_per_byte": Derived("nll_per_byte", lambda mean: mean / math.log(2), lambda _: 1 / math.log(2)),
}
"""Figures by their names in the harness, whose items are log-likelihoods. Items keep the negative log-likelihood, in
nats, under the name of its mean: `nll` of each answer, or that of a text over its words or bytes."""

GRADE, NATS, PERPLEXITY, BITS, SHARE, POINTS = "grade", "nats", "perplexity", "bits", "share", "points"


def unit_of(metric: str, bounded: bool) -> str:
    """The unit of a metric.

    A judge's `grade` is from 1 to 10, a `share` from 0 to 1; the scale of `points` is the metric's choice.

    Args:
        metric: Its name.
        bounded: Whether it is between 0 and 1 for every item.
    """
    if metric.startswith("judge"):
        return GRADE
    if metric in {derived.mean for derived in DERIVED.values()}:
        return NATS
    if metric in DERIVED:
        return BITS if metric == "bits_per_byte" else PERPLEXITY
    return SHARE if bounded else POINTS
