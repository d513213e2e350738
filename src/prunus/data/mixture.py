"""Several sources as one: one after the other, or mixed by weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from prunus.data.config import Source, TokensConfig
from prunus.data.documents import reader_of
from prunus.data.sources import is_in
from prunus.errors import DataError

_CHARACTERS = 4 << 20  # the most per batch; tokenising takes about a hundred bytes of memory per character


class Mixture:
    """Documents of several sources, a batch at a time.

    With weights, the next batch comes from the source that is furthest behind its share, and reading stops when the
    first source is exhausted, since continuing would change the proportions.

    Args:
        sources: The sources.
        keep: Selects documents.
        state: The state of an earlier reader of the same sources, to resume from.
        where: Their name in messages, before their number.

    Raises:
        DataError: A source cannot be read; also while reading.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        keep: Callable[[str], bool],
        state: dict[str, Any] | None = None,
        where: str = "data source",
    ) -> None:
        start = state or {"readers": [None] * len(sources), "drawn": [0] * len(sources), "current": 0}
        readers = zip(sources, start["readers"], strict=True)
        self.readers = [reader_of(source, f"{where} {i}", at) for i, (source, at) in enumerate(readers)]
        self.texts = [filter(keep, reader.documents()) for reader in self.readers]
        self.weights = [source.weight for source in sources]
        self.drawn: list[int] = start["drawn"]
        self.current: int = start["current"]

    @property
    def state(self) -> dict[str, Any]:
        """The position of all readers after the last batch, as JSON values."""
        return {"readers": [reader.state for reader in self.readers], "drawn": self.drawn, "current": self.current}

    @property
    def source(self) -> Source:
        """The source of the last batch."""
        return self.readers[self.current].source

    def batch(self, size: int) -> list[str]:
        """The next documents, all from one source; fewer than `size` if they are long, none at the end."""
        if self.weights[0] is not None:
            self.current = min(range(len(self.texts)), key=lambda i: self.drawn[i] / (self.weights[i] or 1.0))
            return _some(self.texts[self.current], size)
        while not (texts := _some(self.texts[self.current], size)) and self.current + 1 < len(self.texts):
            self.current += 1
        return texts

    def count(self, tokens: int) -> None:
        """Report the number of tokens in the last batch."""
        self.drawn[self.current] += tokens


def check_not_empty(sources: Sequence[Source], config: TokensConfig, where: str) -> None:
    """Refuse sources from which the `data` step would keep no document, before any work.

    Raises:
        DataError: A source cannot be read, or none of its documents belongs to the part.
        HubError: A source cannot be fetched from the hub.
    """
    if not Mixture(sources, partial(is_in, config.part, fraction=config.held_out_fraction), where=where).batch(1):
        raise no_documents(sources, config, where)


def no_documents(sources: Sequence[Source], config: TokensConfig, where: str) -> DataError:
    """The error for sources from which no document is kept."""
    paths = ", ".join(source.path for source in sources)
    if config.part == "all":
        return DataError(f"{where}: no document is left in {paths}")
    return DataError(
        f"{where}: no document is left in {paths} on the side {config.part!r} of the split by hash, with "
        f"held_out_fraction: {config.held_out_fraction}; allowed: more documents, another "
        "data.held_out_fraction, or separate text in data.held_out"
    )


def _some(texts: Iterator[str], size: int) -> list[str]:
    """The next texts: at most `size`, and no more after `_CHARACTERS` characters."""
    result: list[str] = []
    characters = 0
    while len(result) < size and characters < _CHARACTERS and (text := next(texts, None)) is not None:
        result.append(text)
        characters += len(text)
    return result
