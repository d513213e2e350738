"""What can be measured by lm-evaluation-harness: its tasks as the Minitron paper sets them, and units of metrics.

The skills, which are checked by rules of our own, are in `prunus.verify.skills`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prunus.steps.evaluate.columns import Row, arc, lambada, piqa, winogrande
from prunus.steps.evaluate.mmlu import mmlu_rows
from prunus.verify.skill import SHARE

_LARGEST = 709.0  # nats, above which the exponential is no float


@dataclass(frozen=True)
class HarnessTask:
    """How a task of the harness is set.

    Attributes:
        num_fewshot: Worked examples before each question (Minitron, arXiv 2407.14679, section 4).
        metrics: What is kept of what the harness reports, the first being the one that counts.
        definition: Its file in the harness's folder of tasks, `{part}` standing for a part's name; looked up in the
            harness's index if not given, which takes it many seconds to make.
        choices: Answers that are read to each question.
        columns: Gives a row of a local copy the columns that the task has on the hub; raises LookupError, TypeError,
            ValueError or AttributeError for a row of another form. None where copies have them.
        folder: Reads a folder in the task's own form, by its path and the option's: each part's name, rows and worked
            examples. None where it has none.
        base: Whether `base` stands for it, among others.
        generates: Whether it is answered in words.
        code: Whether its answers are run.
    """

    num_fewshot: int
    metrics: tuple[str, ...]
    definition: str | None = None
    choices: int = 1
    columns: Callable[[Row], Row] | None = None
    folder: Callable[[str, str], Iterator[tuple[str, list[Row], list[Row]]]] | None = None
    base: bool = False
    generates: bool = False
    code: bool = False


_NORM = ("acc_norm", "acc")  # accuracy by the choices' lengths, and without

HARNESS = {
    "mmlu": HarnessTask(5, ("acc",), "mmlu/default/mmlu_{part}.yaml", 4, folder=mmlu_rows, base=True),
    "hellaswag": HarnessTask(10, _NORM, "hellaswag/hellaswag.yaml", 4, base=True),
    "arc_challenge": HarnessTask(25, _NORM, "arc/arc_challenge.yaml", 4, arc, base=True),
    "arc_easy": HarnessTask(0, _NORM, "arc/arc_easy.yaml", 4, arc),
    "winogrande": HarnessTask(5, ("acc",), "winogrande/default.yaml", 2, winogrande, base=True),
    "piqa": HarnessTask(0, _NORM, "piqa/piqa.yaml", 2, piqa, base=True),
    "truthfulqa_mc2": HarnessTask(0, ("acc",), "truthfulqa/truthfulqa_mc2.yaml", 6, base=True),
    "lambada_openai": HarnessTask(0, ("acc", "perplexity"), "lambada/lambada_openai.yaml", columns=lambada, base=True),
    "gsm8k": HarnessTask(5, ("exact_match",), "gsm8k/gsm8k.yaml", base=True, generates=True),
    "mbpp": HarnessTask(0, ("pass_at_1",), base=True, generates=True, code=True),
    "humaneval": HarnessTask(0, ("pass@1",), base=True, generates=True, code=True),
}
"""Those whose settings are known here; any other is set as the harness sets it."""


def base_tasks(run_code: bool) -> list[str]:
    """The tasks that `base` stands for: the Minitron paper's; those that run code where that is allowed."""
    return [name for name, task in HARNESS.items() if task.base and (run_code or not task.code)]


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

NATS, PERPLEXITY, BITS, POINTS = "nats", "perplexity", "bits", "points"


def unit_of(metric: str, bounded: bool) -> str:
    """The unit of a metric of the harness: a `share` is from 0 to 1; the scale of `points` is the metric's choice.

    Args:
        metric: Its name.
        bounded: Whether it is between 0 and 1 for every item.
    """
    if metric in {derived.mean for derived in DERIVED.values()}:
        return NATS
    if metric in DERIVED:
        return BITS if metric == "bits_per_byte" else PERPLEXITY
    return SHARE if bounded else POINTS
