"""Token ids in configs are renumbered with a cut vocabulary, and transformers generates as before."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from prunus.errors import ModelError
from prunus.models.ids import renumber, required_ids
from tests.tiny import load

NEW = {1: 0, 2: 1, 5: 2, 6: 3}  # token 5 is token 2 now
LISTS: dict[str, tuple[Any, Any]] = {
    "eos_token_id": ([2, 9], [1]),
    "pad_token_id": (9, None),
    "forced_bos_token_id": (5, 2),
    "suppress_tokens": ([5, 9, 6], [2, 3]),
    "begin_suppress_tokens": ([9], None),
    "bad_words_ids": ([[5, 6], [5, 9], [1]], [[2, 3], [0]]),
    "force_words_ids": ([[5], [[6], [1, 2]]], [[2], [[3], [0, 1]]]),
    "forced_decoder_ids": ([[1, 5], [2, 6]], [[1, 2], [2, 3]]),
    "sequence_bias": ([[[5, 6], -1.5], [[9], 2.0]], [[[2, 3], -1.5]]),
    "max_new_tokens": (5, 5),
}


@pytest.mark.parametrize("key", LISTS)
def test_ids_are_those_of_the_student(key: str) -> None:
    before, after = LISTS[key]
    assert renumber({key: before}, NEW, "x") == {key: after}


def test_special_and_forced_tokens_are_required() -> None:
    config = {"eos_token_id": [2, 3], "pad_token_id": -1, "force_words_ids": [[[4]], [[5, 6]]], "bad_words_ids": [[7]]}
    assert required_ids(config) == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("key", ["bad_words_ids", "forced_decoder_ids", "sequence_bias", "suppress_tokens"])
@pytest.mark.parametrize("value", [[5, 6], [[5], 6], [[{}]], [["x", []]], [[[5]]]])
def test_lists_of_another_form_are_refused_or_read(key: str, value: Any) -> None:
    try:
        actual = renumber({key: value}, NEW, "here")[key]
    except ModelError as error:
        assert f"here: {key} is " in str(error)
    else:
        assert actual is None or isinstance(actual, list)


def test_generation_is_kept_from_the_same_tokens(teacher: Path) -> None:
    """The reference: the same model with permuted rows generates the same text with other ids."""
    model = load(teacher)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    new = {int(old): i for i, old in enumerate(order)}
    prompt = torch.arange(3, 20)[None]
    plain = model.generate(prompt, max_new_tokens=6, do_sample=False)[0, 17:].tolist()
    config = {
        "suppress_tokens": [plain[0]],
        "bad_words_ids": [[plain[1]], [plain[2], plain[3]]],
        "sequence_bias": [[[plain[4]], -50.0]],
        "max_new_tokens": 6,
        "do_sample": False,
    }
    expected = model.generate(prompt, generation_config=GenerationConfig(**config))[0].tolist()
    assert expected[17:] != plain
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight[order].clone())
    moved = torch.tensor([[new[int(i)] for i in prompt[0]]])
    changed = GenerationConfig(**json.loads(json.dumps(renumber(config, new, "x"))))
    actual = model.generate(moved, generation_config=changed)[0].tolist()
    assert actual == [new[i] for i in expected]
