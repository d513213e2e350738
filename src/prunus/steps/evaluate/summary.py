"""From the scores of items to a task's figures: means with their errors, and paired differences to the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.intervals import mcnemar, paired_difference, ratio_interval, standard_error
from prunus.steps.evaluate.tasks import DERIVED, Derived
from prunus.verify.skill import GRADE, SHARE

Row = dict[str, Any]
"""One item of a task: `id`, `group`, and `scores`, a pair (sum, count) for each metric."""


def summarise(rows: Sequence[Row], beside: Sequence[Row], config: EvaluateConfig) -> dict[str, Any]:
    """The figures of a task.

    Args:
        rows: A model's items.
        beside: The teacher's items, or none; items with the same id are paired.
        config: Confidence level, resamples and seed.

    Returns:
        `items`, `metrics`, and, if there are several groups, `groups`, each with the same two.
    """
    found = {"items": len(rows), "metrics": _metrics(rows, beside, config)}
    groups = list(dict.fromkeys(row["group"] for row in rows if row["group"] is not None))
    if len(groups) > 1:
        found["groups"] = {
            group: {
                "items": sum(row["group"] == group for row in rows),
                "metrics": _metrics([row for row in rows if row["group"] == group], beside, config),
            }
            for group in groups
        }
    return found


def _metrics(rows: Sequence[Row], beside: Sequence[Row], config: EvaluateConfig) -> dict[str, dict[str, float]]:
    """The figures of every metric that some item has; figures derived from a mean come before it."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["scores"]):
        of_mean = {one: derived for one, derived in DERIVED.items() if derived.mean == name}
        found |= {one: _figure(name, rows, beside, config, derived) for one, derived in of_mean.items()}
        found[name] = _figure(name, rows, beside, config)
    return {name: figure for name, figure in found.items() if figure}


def _figure(
    name: str, rows: Sequence[Row], beside: Sequence[Row], config: EvaluateConfig, derived: Derived | None = None
) -> dict[str, Any]:
    """One metric over the items that have it, or a figure derived from it: `value`, `low`, `high`, `stderr`, `items`.

    With a teacher also the paired `difference`, which has `mcnemar` if every item is either right or wrong. Empty if
    all counts are 0, or if the value or its interval is not finite.
    """
    ours = {row["id"]: row["scores"][name] for row in rows if name in row["scores"]}
    theirs = {row["id"]: row["scores"][name] for row in beside if name in row["scores"]}
    pairs = np.array(list(ours.values()), dtype=float)
    if not pairs[:, 1].sum():
        return {}
    transform = np.vectorize(derived.value, otypes=[float]) if derived else lambda ratio: ratio
    settings = (config.confidence, config.resamples, config.seed, transform)
    figure: dict[str, Any] = {
        **ratio_interval(pairs[:, 0], pairs[:, 1], *settings),
        "items": len(pairs),
    }
    if not all(map(np.isfinite, figure.values())):
        return {}
    if len(pairs) > 1:
        slope = derived.slope(pairs[:, 0].sum() / pairs[:, 1].sum()) if derived else 1.0
        figure["stderr"] = slope * standard_error(pairs[:, 0], pairs[:, 1])
    both = [item for item in ours if item in theirs]
    if both:
        a, b = (np.array([of[item] for item in both], dtype=float) for of in (ours, theirs))
        if a[:, 1].sum() and b[:, 1].sum():
            difference = paired_difference(a, b, *settings)
            if all(map(np.isfinite, difference.values())):
                figure["difference"] = {**difference, "items": len(both), **_exact_test(a, b)}
    return figure


def _exact_test(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """McNemar's p-value of two models' scores [N, 2], if every item is either right or wrong."""
    if all(np.isin(of[:, 0], (0, 1)).all() and (of[:, 1] == 1).all() for of in (a, b)):
        return {"mcnemar": mcnemar(a[:, 0], b[:, 0])}
    return {}


CHANCE = "chance"
"""The metric of multiple-choice tasks with the expected score of guessing."""

CHOSEN, WRITTEN = 0.9, 0.7
"""Shares of the teacher's score: above the first, multiple choice is retained; below the second, generation is lost."""

_SURE = 2.0  # the teacher must exceed chance by this many standard errors for shares of its score to be meaningful


def hidden_loss(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Warnings if a model keeps its teacher's multiple-choice scores but not the scores of generated answers.

    Args:
        tasks: The figures by task, with `first` (the main metric), `unit` (its unit) and `generates`.
    """
    chosen, written, repeats = [], [], []
    for name, task in tasks.items():
        figure = task.get("metrics", {}).get(task.get("first"), {})
        difference = figure.get("difference")
        repetition = task.get("metrics", {}).get("repetition", {}).get("difference")
        if repetition and repetition["low"] > 0.05:
            repeats.append(f"{name} (+{repetition['value']:.0%} repeated)")
        if not difference or task.get("unit") not in (SHARE, GRADE):  # for other units, lower may be better
            continue
        chance = task["metrics"].get(CHANCE, {}).get("value", 0.0)
        theirs = figure["value"] - difference["value"] - chance
        if theirs <= _SURE * figure.get("stderr", 0.0):
            continue
        share = (figure["value"] - chance) / theirs
        if not task["generates"]:
            chosen.append(share)
        elif share < WRITTEN and difference["high"] < 0:
            written.append(f"{name} ({share:.0%})")
    if not chosen or float(np.mean(chosen)) < CHOSEN or not (written or repeats):
        return []
    return [
        f"Multiple choice keeps {np.mean(chosen):.0%} of the teacher's score above chance, but generation does not: "
        f"{', '.join(written + repeats)}."
    ]
