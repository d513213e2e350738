"""The `data` step: text in, one tokenised stream out. It is done once and shared by all that train and score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.sources import documents, is_held_out
from prunus.data.stream import Stream
from prunus.data.tokens import IDS
from prunus.errors import DataError
from prunus.models.load import load_tokenizer
from prunus.runtime import Runtime

_BATCH = 256  # documents that are tokenised together


@dataclass(frozen=True)
class Inputs:
    """The text, and the folder whose tokenizer cuts it."""

    sources: tuple[Source, ...]
    tokenizer: Path


def run(config: TokensConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Tokenise the sources into `out`.

    Writes `tokens.bin` (ids, 16 or 32 bits), `document_ends.npy`, `document_bytes.npy` and `tokens.json`.

    Returns:
        The number of documents, tokens and bytes.

    Raises:
        DataError: A source cannot be read, or nothing is left of it.
    """
    tokenizer = load_tokenizer(inputs.tokenizer)
    suffix = [tokenizer.eos_token_id] if config.append_eos and tokenizer.eos_token_id is not None else []
    with (out / IDS).open("wb") as file, console.progress("tokenise", config.max_tokens, "tokens") as progress:
        stream = Stream(file, len(tokenizer))
        for texts in _batches(config, inputs.sources, stream):
            for text, ids in zip(texts, tokenizer(texts, verbose=False)["input_ids"], strict=True):
                stream.write(text, [*ids, *suffix])
            progress.update(stream.tokens)
    if not stream.tokens:
        raise DataError(f"data: no document is left in {', '.join(source.path for source in inputs.sources)}")
    return stream.finish(out)


def _batches(config: TokensConfig, sources: tuple[Source, ...], stream: Stream) -> Iterator[list[str]]:
    """Batches of documents until the sources run out, or `stream` holds the wanted tokens.

    With weights, the next batch comes from the source that is furthest behind its share, and reading stops with the
    first source that is exhausted: going on would bend the mixture.
    """
    texts = [_kept(config, source, i) for i, source in enumerate(sources)]
    weights = [source.weight for source in sources]
    drawn = [0.0] * len(texts)
    current = 0
    while config.max_tokens is None or stream.tokens < config.max_tokens:
        if weights[0] is not None:
            current = min(range(len(texts)), key=lambda i: drawn[i] / (weights[i] or 1.0))
        batch = list(islice(texts[current], _BATCH))
        if batch:
            before = stream.tokens
            yield batch
            drawn[current] += stream.tokens - before
        elif weights[0] is None and current + 1 < len(texts):
            current += 1
        else:
            return


def _kept(config: TokensConfig, source: Source, number: int) -> Iterator[str]:
    for text in documents(source, f"data source {number}"):
        if config.part == "all" or is_held_out(text, config.held_out_fraction) == (config.part == "held_out"):
            yield text
