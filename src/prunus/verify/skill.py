"""A skill: the checks of its items, the metrics of an answer, and the reward computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Check = Mapping[str, Any]
"""What the answer to an item is verified by."""
Tools = Sequence[Mapping[str, Any]]
"""Functions that may be called, as `{name, description, parameters}` or `{type: function, function: {...}}`."""
Scores = dict[str, tuple[float, float]]
"""An answer's score by metric, as (sum, count): 3 of 4 instructions followed is (3, 4), a right answer is (1, 1). Sum
and count are separate so that an interval can be computed for any mean of them."""

GRADE, SHARE = "grade", "share"
"""Units of metrics: a judge's grade from 1 to 10, and a share from 0 to 1."""


@dataclass(frozen=True)
class Skill:
    """A skill, whose answers are checked by rules.

    Attributes:
        name: Its name in recipes.
        keys: Keys of a check; it has at least one of them.
        metrics: The unit of each metric.
        first: The main metric; of several, the first that an answer has.
        binary: The metric that is 1 for a right answer, for pass@k.
        score: (answer, check, available tools) -> reported scores. Raises LookupError, TypeError, AttributeError or
            ValueError if the check does not have the skill's form.
        reward: (scores, answer, check) -> reward in training, from 0 to 1. It is 1 only for answers that score as
            right, and may distinguish wrong ones.
        judged: Whether a check may have `judge: true` in place of rules.
    """

    name: str
    keys: tuple[str, ...]
    metrics: Mapping[str, str]
    first: tuple[str, ...]
    binary: str
    score: Callable[[str, Check, Tools], Scores]
    reward: Callable[[Scores, str, Check], float]
    judged: bool = False
