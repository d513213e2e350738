"""What a skill is: the checks that its questions carry, the metrics of an answer, and the reward made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Check = Mapping[str, Any]
"""What a question's answer is checked by."""
Tools = Sequence[Mapping[str, Any]]
"""Functions that may be called, as `{name, description, parameters}` or `{type: function, function: {...}}`."""
Scores = dict[str, tuple[float, float]]
"""An answer's score by each metric, as a pair (sum, count): 3 of 4 instructions followed is (3, 4), a right answer is
(1, 1). Sums and counts are kept apart so that any mean of them has its interval."""

GRADE, SHARE = "grade", "share"
"""Units of metrics: a judge's grade from 1 to 10, and a share from 0 to 1."""


@dataclass(frozen=True)
class Skill:
    """A skill, whose answers are checked by rules.

    Attributes:
        name: Its name in recipes.
        keys: What a check of it may hold; at least one of these.
        metrics: The unit of each of its metrics.
        first: The metric that counts; of several the first that an answer has.
        binary: The metric that is 1 of a right answer, for pass@k.
        score: From an answer, its check and the tools at hand to the scores that are reported. Raises LookupError,
            TypeError, AttributeError or ValueError where the check is not of the skill's form.
        reward: From these scores, the answer and its check to what the answer is worth in training, from 0 to 1. It is
            as strict as the score where an answer is right, and may tell wrong ones apart.
        judged: Whether `judge: true` may stand in a check in place of rules.
    """

    name: str
    keys: tuple[str, ...]
    metrics: Mapping[str, str]
    first: tuple[str, ...]
    binary: str
    score: Callable[[str, Check, Tools], Scores]
    reward: Callable[[Scores, str, Check], float]
    judged: bool = False
