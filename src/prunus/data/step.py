"""The `data` step: tokenises text into one stream, which all steps that train or score share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.documents import dialogue_of
from prunus.data.endings import ends_of
from prunus.data.mixture import Mixture, no_documents
from prunus.data.sources import is_in
from prunus.data.stream import Stream
from prunus.data.template import Template
from prunus.data.tokenizing import opening_of, prefix_of, text_ends
from prunus.data.tokens import IDS
from prunus.models.folder import ModelFolder
from prunus.models.pretrained import load_tokenizer
from prunus.models.token_rows import check_ids, rows_of
from prunus.runtime import Runtime

_BATCH = 256  # documents that are tokenised together


@dataclass(frozen=True)
class Inputs:
    """The text, and the folder of the tokenizer."""

    sources: tuple[Source, ...]
    tokenizer: Path


def run(config: TokensConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Tokenise the sources into `out`; a killed step resumes after the last documents in its checkpoint.

    Writes `tokens.bin` (ids, 16 or 32 bits), `document_ends.npy`, `document_bytes.npy` and `tokens.json`.

    Returns:
        The number of documents, tokens and bytes.

    Raises:
        DataError: A source cannot be read, or no document is kept.
        ModelError: A source holds conversations, and there is no chat template.
    """
    tokenizer = load_tokenizer(inputs.tokenizer)
    ends = text_ends(tokenizer, ModelFolder(inputs.tokenizer).config) if config.append_eos else ()
    opening = opening_of(tokenizer)
    check_ids([*opening, *ends[:1]], tokenizer, inputs.tokenizer)
    template = cache(lambda: Template(tokenizer, config.template, ends_of(inputs.tokenizer, tokenizer)))
    root = out / "checkpoints"
    keep = partial(is_in, config.part, fraction=config.held_out_fraction)
    with (out / IDS).open("ab") as file, console.progress("tokenise", config.max_tokens, "tokens") as progress:
        stream = Stream(file, max(len(tokenizer), rows_of(inputs.tokenizer) or 0), prefix_of(tokenizer), opening)
        mixture = Mixture(inputs.sources, keep, stream.resume(root / "data"))
        saved = time.monotonic()
        while (config.max_tokens is None or stream.tokens < config.max_tokens) and (texts := mixture.batch(_BATCH)):
            before = stream.tokens
            if mixture.source.rows == "chat":
                for one in template().render(dialogue_of(text, mixture.source) for text in texts):
                    stream.write(one.text, one.ids, one.answers)
            else:
                for text, ids in zip(texts, tokenizer(texts, verbose=False)["input_ids"], strict=True):
                    stream.write(text, ids if not ends or set(ids[-1:]) & set(ends) else [*ids, ends[0]])
            mixture.count(stream.tokens - before)
            progress.update(stream.tokens)
            if time.monotonic() - saved >= runtime.checkpoint_minutes * 60:
                stream.checkpoint(root / "data", mixture.state)
                saved = time.monotonic()
    if not stream.tokens:
        raise no_documents(inputs.sources, config, "data")
    facts = stream.finish(out)
    remove_checkpoints(out)
    return facts
