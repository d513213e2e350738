"""The methods of alignment, one entry each. The loss of a method of pairs is the function of its name in `losses`.

A new method is an entry here, and a loss in `losses` unless it trains by likelihood.
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
"""Options of methods with log-ratios to a reference."""


@dataclass(frozen=True)
class Method:
    """A method, and the defaults of its options.

    Attributes:
        learns: Kind of training: `likelihood` of answers; `pairs` of answers; answers with `labels`; pairs, for a
            `reward` model; or `online`, from answers that the model generates during training (by TRL).
        rows: What each row of its data must contain.
        options: The options that not every method has.
        learning_rate: Peak learning rate: NeMo-Aligner's for `rpo`, the papers' for the others.
        beta: β, or τ of `ipo`.
        answers: Answers that the model generates for each prompt before training; 0: it trains on the data's answers.
        may_write: Whether it can train on generated answers.
        against_data: Whether generated answers are the rejected ones, and the data's answers the chosen ones.
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
        """Whether it uses log-ratios to a reference."""
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
    """The methods that have an option; empty for an option that every method has."""
    return tuple(name for name, method in METHODS.items() if option in method.options)
