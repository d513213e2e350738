"""The `create` step: a new teacher with random weights, which `correct` then trains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.data.config import Source
from prunus.data.documents import documents
from prunus.errors import DataError
from prunus.models.draw import draw_model
from prunus.runtime import Runtime
from prunus.steps.create.config import CreateConfig
from prunus.steps.create.mimetic import make_mimetic
from prunus.world.rows import BEGIN, CALL_MARKS, CITATIONS, END, MARKS, template


@dataclass(frozen=True)
class Inputs:
    """The text that the tokenizer is trained on."""

    sources: tuple[Source, ...]


def run(config: CreateConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write a model with random weights, and its tokenizer, to `out`.

    Returns:
        The size of the vocabulary.

    Raises:
        DataError: The text has too little variety for the vocabulary.
    """
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(config, inputs.sources),
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
    if config.chat:
        fast.chat_template = template()
    fast.save_pretrained(out)
    draw_model(config.model_config_json(), out, config.seed, make_mimetic if config.attention == "mimetic" else None)
    console.say(f"{out.name}: a tokenizer of {config.vocab_size} tokens, and random weights")
    return {"vocab_size": config.vocab_size}


def _train_tokenizer(config: CreateConfig, sources: tuple[Source, ...]) -> Any:
    """Train a byte-level BPE tokenizer on the first documents, without the special tokens in them.

    Raises:
        DataError: The text has too little variety for the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if config.split_digits:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.pre_tokenizer])
    tokenizer.decoder = decoders.ByteLevel()
    special = (BEGIN, END, *(MARKS if config.chat else ()))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    marks = re.compile("|".join(map(re.escape, special)))
    texts = islice(_in_turn(sources), config.tokenizer_documents)
    tokenizer.train_from_iterator(chain.from_iterable(map(marks.split, texts)), trainer)
    if tokenizer.get_vocab_size() < config.vocab_size:
        raise DataError(
            f"teacher.create.vocab_size: {config.vocab_size}, but the corpus yields no more than "
            f"{tokenizer.get_vocab_size()} tokens; lower it, or give more text"
        )
    return _with_calls_in_text(tokenizer)


def _with_calls_in_text(tokenizer: Any) -> Any:
    """Make the tokens of calls not special, so that decoding keeps them; the trainer makes all of them special."""
    raw = json.loads(tokenizer.to_str())
    for token in raw["added_tokens"]:
        token["special"] = token["content"] not in (*CALL_MARKS, *CITATIONS)
    return type(tokenizer).from_str(json.dumps(raw))


def _in_turn(sources: tuple[Source, ...]) -> Iterator[str]:
    """Documents of all sources, round-robin; exhausted sources are skipped."""
    readers = [documents(source, f"data.corpus.{i}") for i, source in enumerate(sources)]
    yield from (text for texts in zip_longest(*readers) for text in texts if text is not None)
