"""Several sources as one: in turn, or each by its weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from prunus.data.config import Source, TokensConfig
from prunus.data.sources import Reader, is_in
from prunus.errors import DataError

_CHARACTERS = 4 << 20  # of a batch; tokenising takes about a hundred bytes of memory for each


class Mixture:
    """Documents of several sources, a batch at a time.

    With weights, the next batch comes from the source that is furthest behind its share, and reading stops with the
    first source that is exhausted: going on would bend the mixture.

    Args:
        sources: What to read.
        wanted: Which documents.
        place: Where another reader of the same was, to go on from there.
        where: What to call them in messages, before their number.

    Raises:
        DataError: A source cannot be read; also while it is read.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        wanted: Callable[[str], bool],
        place: dict[str, Any] | None = None,
        where: str = "data source",
    ) -> None:
        begun = place or {"readers": [None] * len(sources), "drawn": [0] * len(sources), "current": 0}
        readers = zip(sources, begun["readers"], strict=True)
        self.readers = [Reader(source, f"{where} {i}", at) for i, (source, at) in enumerate(readers)]
        self.texts = [filter(wanted, reader.documents()) for reader in self.readers]
        self.weights = [source.weight for source in sources]
        self.drawn: list[int] = begun["drawn"]
        self.current: int = begun["current"]

    @property
    def place(self) -> dict[str, Any]:
        """How far all of them are, behind the last batch."""
        return {"readers": [reader.place for reader in self.readers], "drawn": self.drawn, "current": self.current}

    def batch(self, size: int) -> list[str]:
        """The next documents, all of one source, or none if there are no more; fewer where they are long."""
        if self.weights[0] is not None:
            self.current = min(range(len(self.texts)), key=lambda i: self.drawn[i] / (self.weights[i] or 1.0))
            return _some(self.texts[self.current], size)
        while not (texts := _some(self.texts[self.current], size)) and self.current + 1 < len(self.texts):
            self.current += 1
        return texts

    def count(self, tokens: int) -> None:
        """Say how many tokens the last batch had."""
        self.drawn[self.current] += tokens


def check_some(sources: Sequence[Source], config: TokensConfig, where: str) -> None:
    """Refuse text of which the `data` step would keep no document, before any work.

    Raises:
        DataError: A source cannot be read, or none of its documents belongs to the part.
        HubError: A source is on the hub, which does not give it.
    """
    if not Mixture(sources, partial(is_in, config.part, fraction=config.held_out_fraction), where=where).batch(1):
        raise none_left(sources, config, where)


def none_left(sources: Sequence[Source], config: TokensConfig, where: str) -> DataError:
    """The error for text of which no document is kept."""
    paths = ", ".join(source.path for source in sources)
    if config.part == "all":
        return DataError(f"{where}: no document is left in {paths}")
    return DataError(
        f"{where}: no document is left in {paths} on the side {config.part!r}, with held_out_fraction: "
        f"{config.held_out_fraction} (a document's hash decides); allowed: more documents, another "
        "data.held_out_fraction, or a text of its own by data.held_out"
    )


def _some(texts: Iterator[str], size: int) -> list[str]:
    """The next texts: `size` of them, or as many as have `_CHARACTERS` together."""
    found: list[str] = []
    characters = 0
    while len(found) < size and characters < _CHARACTERS and (text := next(texts, None)) is not None:
        found.append(text)
        characters += len(text)
    return found
