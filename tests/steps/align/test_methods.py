"""The table of methods: its entries are whole, and documented."""

import re
from inspect import signature
from pathlib import Path

import pytest

from prunus.steps.align import losses
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.methods import METHODS, having

TENSORS = {"gap", "reward_gap", "chosen", "rejected", "chosen_lengths", "rejected_lengths"}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.learns == "pairs"])
def test_a_method_of_pairs_has_a_formula_of_tensors_and_options_that_it_has(name: str) -> None:
    read = set(signature(getattr(losses, name)).parameters) - TENSORS
    assert read <= {"beta", *METHODS[name].options}


def test_every_option_of_a_method_is_an_option_and_refused_with_the_others() -> None:
    for option in {option for method in METHODS.values() for option in method.options}:
        assert option in AlignConfig.model_fields
        assert having(option)
    assert not having("batch_size")
    with pytest.raises(ValueError, match="gamma: not an option of dpo; allowed with simpo"):
        AlignConfig(method="dpo", gamma=0.1)


def test_docs_name_every_method_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", Path("docs/align.md").read_text(), flags=re.MULTILINE)
    table = rows[rows.index("`method`") + 1 :][: len(METHODS)]
    named = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named[: len(METHODS)]) == sorted(METHODS)
