"""The methods of alignment, one entry each; the formula of a method of pairs is the function of its name in `losses`.

A new method is an entry here, and a formula there unless it learns by likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prunus.steps.conversations.config import Wanted

Name = Literal[
    "sft", "rpo", "dpo", "cdpo", "ipo", "simpo", "orpo", "kto", "distil", "best_of_n", "spin", "steerlm", "reward",
    "grpo", "rloo",
]  # fmt: skip

REFERRED = ("reference", "per_token")
"""The options of methods that take log-ratios to a reference."""


@dataclass(frozen=True)
class Method:
    """What a method is, and what its options are where a stage leaves them out.

    Attributes:
        learns: From what: the `likelihood` of answers; `pairs` of answers; answers with `labels`; pairs, as a `reward`
            model; or `online`, from answers that the model writes as it learns, which TRL trains.
        rows: What the rows of its data must have.
        options: The options that not every method has.
        learning_rate: Peak learning rate: NeMo-Aligner's for `rpo`, the papers' for the others.
        beta: β, or τ of `ipo`.
        answers: Answers that the model writes to each prompt before it learns; 0 where it learns from the data's.
        may_write: Whether it can learn from what the model writes at all.
        against_data: Whether what the model writes is the rejected answer, and the data's own the chosen one.
    """

    learns: Literal["likelihood", "pairs", "labels", "reward", "online"]
    rows: Wanted
    options: tuple[str, ...] = ()
    learning_rate: float = 1e-6
    beta: float = 0.1
    answers: int = 0
    may_write: bool = False
    against_data: bool = False

    @property
    def refers(self) -> bool:
        """Whether it takes log-ratios to a reference."""
        return "reference" in self.options


METHODS: dict[Name, Method] = {
    "sft": Method("likelihood", "answers", ("pack",), 2e-5),
    "rpo": Method("pairs", "rewards", (*REFERRED, "sft_weight", "eta", "distance"), 9e-6, 0.2, may_write=True),
    "dpo": Method("pairs", "pairs", (*REFERRED, "sft_weight"), may_write=True),
    "cdpo": Method("pairs", "pairs", (*REFERRED, "sft_weight", "label_smoothing"), may_write=True),
    "ipo": Method("pairs", "pairs", (*REFERRED, "sft_weight"), may_write=True),
    "simpo": Method("pairs", "pairs", ("sft_weight", "gamma"), beta=2.0, may_write=True),
    "orpo": Method("pairs", "pairs", ("odds_weight",), 8e-6, may_write=True),
    "kto": Method("labels", "labels", (*REFERRED, "desirable_weight", "undesirable_weight")),
    "distil": Method("likelihood", "answers", ("pack", "teacher", "guide"), 2e-5),
    "best_of_n": Method("likelihood", "answers", ("pack",), 2e-5, answers=4, may_write=True),
    "spin": Method("pairs", "pairs", (*REFERRED, "sft_weight"), answers=1, may_write=True, against_data=True),
    "steerlm": Method("likelihood", "attributes", ("pack",), 2e-5),
    "reward": Method("reward", "pairs", (), 1e-5, may_write=True),
    "grpo": Method("online", "answers", beta=0.04, answers=8, may_write=True),
    "rloo": Method("online", "answers", beta=0.05, answers=8, may_write=True),
}
assert tuple(METHODS) == get_args(Name)


def having(option: str) -> tuple[Name, ...]:
    """The methods that have an option; none for an option that every method has."""
    return tuple(name for name, method in METHODS.items() if option in method.options)
