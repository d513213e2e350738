"""The `create` step: a teacher from nothing, where no trained one is at hand; `correct` then trains it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from prunus.console import Console
from prunus.create.config import CreateConfig
from prunus.data.config import Source
from prunus.data.sources import documents
from prunus.errors import DataError
from prunus.models.draw import draw_model
from prunus.runtime import Runtime

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>")


@dataclass(frozen=True)
class Inputs:
    """The text that the tokenizer is learnt from."""

    sources: tuple[Source, ...]


def run(config: CreateConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write a model of random weights and its tokenizer to `out`.

    Returns:
        The size of the vocabulary.

    Raises:
        DataError: The text has too little variety for the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = chain.from_iterable(documents(source, f"data.corpus.{i}") for i, source in enumerate(inputs.sources))
    tokenizer.train_from_iterator(islice(texts, config.tokenizer_documents), trainer)
    if tokenizer.get_vocab_size() < config.vocab_size:
        raise DataError(
            f"teacher.create.vocab_size: {config.vocab_size}, but the corpus yields no more than "
            f"{tokenizer.get_vocab_size()} tokens; lower it, or give more text"
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(out)
    draw_model(config.model_config_json(), out, config.seed)
    console.say(f"a tokenizer of {config.vocab_size} tokens and random weights: {out.name}")
    return {"vocab_size": config.vocab_size}
