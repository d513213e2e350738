"""What can be measured: tasks of lm-evaluation-harness as the Minitron paper sets them, and four skills of our own."""

from __future__ import annotations

from dataclasses import dataclass

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
