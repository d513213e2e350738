"""From what each item is worth to a task's figures: means with their errors, and paired differences to the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.evaluate.config import EvaluateConfig
from prunus.evaluate.intervals import mcnemar, paired_difference, ratio_interval, standard_error

Row = dict[str, Any]
"""One item of a task: `id`, `group`, and `scores`, a pair (sum, count) for each metric."""


def summarise(rows: Sequence[Row], beside: Sequence[Row], config: EvaluateConfig) -> dict[str, Any]:
    """The figures of a task.

    Args:
        rows: A model's items.
        beside: The teacher's, or none; those with the same id are paired.
        config: Level, resamples and seed.

    Returns:
        `items`, `metrics`, and, where there are several groups, `groups`, each with the same two.
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
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    return {name: figure for name in names if (figure := _figure(name, rows, beside, config))}


def _figure(name: str, rows: Sequence[Row], beside: Sequence[Row], config: EvaluateConfig) -> dict[str, Any]:
    """One metric over the items that have it: `value`, `low`, `high`, `stderr`, `items`.

    Beside the teacher also the paired `difference`, and in it `mcnemar` where every item is right or wrong.
    """
    ours = {row["id"]: row["scores"][name] for row in rows if name in row["scores"]}
    theirs = {row["id"]: row["scores"][name] for row in beside if name in row["scores"]}
    pairs = np.array(list(ours.values()), dtype=float)
    if not pairs[:, 1].sum():
        return {}
    settings = (config.confidence, config.resamples, config.seed)
    figure: dict[str, Any] = {
        **ratio_interval(pairs[:, 0], pairs[:, 1], *settings),
        "items": len(pairs),
    }
    if len(pairs) > 1:
        figure["stderr"] = standard_error(pairs[:, 0], pairs[:, 1])
    both = [item for item in ours if item in theirs]
    if both:
        a, b = (np.array([of[item] for item in both], dtype=float) for of in (ours, theirs))
        if a[:, 1].sum() and b[:, 1].sum():
            figure["difference"] = {**paired_difference(a, b, *settings), "items": len(both)}
            if all(np.isin(of[:, 0], (0, 1)).all() and (of[:, 1] == 1).all() for of in (a, b)):
                figure["difference"]["mcnemar"] = mcnemar(a[:, 0], b[:, 0])
    return figure


CHANCE = "chance"
"""The metric of multiple choice that says what guessing gets."""

CHOSEN, WRITTEN = 0.9, 0.7
"""Shares of the teacher's score: choosing survives above the first, writing fails below the second."""

_SURE = 2.0  # standard errors that a teacher must be above chance, for what is left of its score to say anything


def hidden_loss(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Warnings where a model still chooses among answers nearly as its teacher does, and no longer writes so.

    Args:
        tasks: The figures by task, with `first` (its metric that counts) and `generates`.
    """
    chosen, written, repeats = [], [], []
    for name, task in tasks.items():
        figure = task.get("metrics", {}).get(task.get("first"), {})
        difference = figure.get("difference")
        repetition = task.get("metrics", {}).get("repetition", {}).get("difference")
        if repetition and repetition["low"] > 0.05:
            repeats.append(f"{name} (+{repetition['value']:.0%} repeated)")
        if not difference:
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
        f"Multiple choice keeps {np.mean(chosen):.0%} of the teacher's score above chance, and writing does not: "
        f"{', '.join(written + repeats)}."
    ]
