"""Tasks of lm-evaluation-harness with the Minitron paper's settings, and units of metrics.

The skills, which Prunus checks by its own rules, are in `prunus.verify.skills`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prunus.steps.evaluate.columns import Row, arc, lambada, piqa, winogrande
from prunus.steps.evaluate.mmlu import mmlu_rows
from prunus.verify.skill import SHARE

_LARGEST = 709.0  # nats; the exponential of more overflows a float


@dataclass(frozen=True)
class HarnessTask:
    """Settings of a task of the harness.

    Attributes:
        num_fewshot: Few-shot examples before each question (Minitron, arXiv 2407.14679, section 4).
        metrics: The metrics to keep; the first is the main one.
        definition: Its file in the harness's folder of tasks, with `{part}` for a part's name; None: looked up in the
            harness's index, which takes many seconds to build.
        contexts: Number of contexts of each question: more than one if the choices stand in it, as in WinoGrande.
        columns: Converts a row of a local copy to the columns of the task on the hub; raises LookupError, TypeError,
            ValueError or AttributeError for a row of another form. None if copies have these columns.
        folder: Reads a folder in the task's original format: (path, name of the option) -> each part's name, rows and
            few-shot examples. None if there is no such format.
        base: Whether `base` includes it.
        generates: Whether answers are generated.
        code: Whether answers are executed.
    """

    num_fewshot: int
    metrics: tuple[str, ...]
    definition: str | None = None
    contexts: int = 1
    columns: Callable[[Row], Row] | None = None
    folder: Callable[[str, str], Iterator[tuple[str, list[Row], list[Row]]]] | None = None
    base: bool = False
    generates: bool = False
    code: bool = False


_NORM = ("acc_norm", "acc")  # accuracy normalised by the choices' lengths, and plain

HARNESS = {
    "mmlu": HarnessTask(5, ("acc",), "mmlu/default/mmlu_{part}.yaml", folder=mmlu_rows, base=True),
    "hellaswag": HarnessTask(10, _NORM, "hellaswag/hellaswag.yaml", base=True),
    "arc_challenge": HarnessTask(25, _NORM, "arc/arc_challenge.yaml", columns=arc, base=True),
    "arc_easy": HarnessTask(0, _NORM, "arc/arc_easy.yaml", columns=arc),
    "winogrande": HarnessTask(5, ("acc",), "winogrande/default.yaml", 2, winogrande, base=True),
    "piqa": HarnessTask(0, _NORM, "piqa/piqa.yaml", columns=piqa, base=True),
    "truthfulqa_mc2": HarnessTask(0, ("acc",), "truthfulqa/truthfulqa_mc2.yaml", base=True),
    "lambada_openai": HarnessTask(0, ("acc", "perplexity"), "lambada/lambada_openai.yaml", columns=lambada, base=True),
    "gsm8k": HarnessTask(5, ("exact_match",), "gsm8k/gsm8k.yaml", base=True, generates=True),
    "mbpp": HarnessTask(0, ("pass_at_1",), base=True, generates=True, code=True),
    "humaneval": HarnessTask(0, ("pass@1",), base=True, generates=True, code=True),
}
"""Tasks with settings of their own; all others use the harness's settings."""


def base_tasks(run_code: bool) -> list[str]:
    """The tasks of `base`: the Minitron paper's, including those that execute code only if that is allowed."""
    return [name for name, task in HARNESS.items() if task.base and (run_code or not task.code)]


@dataclass(frozen=True)
class Derived:
    """A figure that is a function of a mean over items.

    Attributes:
        mean: The mean that it is computed from.
        value: The function, which is increasing.
        slope: Its derivative, for the standard error.
    """

    mean: str
    value: Callable[[float], float]
    slope: Callable[[float], float]


def _exp(mean: float) -> float:
    """The exponential; infinity if it overflows."""
    return math.inf if mean > _LARGEST else math.exp(mean)


DERIVED = {
    "perplexity": Derived("nll", _exp, _exp),
    "word_perplexity": Derived("nll_per_word", _exp, _exp),
    "byte_perplexity": Derived("nll_per_byte", _exp, _exp),
    "bits_per_byte": Derived("nll_per_byte", lambda mean: mean / math.log(2), lambda _: 1 / math.log(2)),
}
"""Derived figures by their names in the harness, whose items are log-likelihoods. Items store the negative
log-likelihood, in nats, under the name of its mean: `nll` of an answer, or of a text per word or byte."""

NATS, PERPLEXITY, BITS, POINTS = "nats", "perplexity", "bits", "points"


def unit_of(metric: str, bounded: bool) -> str:
    """The unit of a metric of the harness: a `share` is from 0 to 1; `points` have the metric's own scale.

    Args:
        metric: Its name.
        bounded: Whether it is between 0 and 1 for every item.
    """
    if metric in {derived.mean for derived in DERIVED.values()}:
        return NATS
    if metric in DERIVED:
        return BITS if metric == "bits_per_byte" else PERPLEXITY
    return SHARE if bounded else POINTS
