"""Several sources as one: in turn, or each by its weight."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from prunus.data.config import Source
from prunus.data.sources import Reader


class Mixture:
    """Documents of several sources, a batch at a time.

    With weights, the next batch comes from the source that is furthest behind its share, and reading stops with the
    first source that is exhausted: going on would bend the mixture.

    Args:
        sources: What to read.
        wanted: Which documents.
        place: Where another reader of the same was, to go on from there.

    Raises:
        DataError: A source cannot be read; also while it is read.
    """

    def __init__(
        self, sources: tuple[Source, ...], wanted: Callable[[str], bool], place: dict[str, Any] | None = None
    ) -> None:
        begun = place or {"readers": [None] * len(sources), "drawn": [0] * len(sources), "current": 0}
        readers = zip(sources, begun["readers"], strict=True)
        self.readers = [Reader(source, f"data source {i}", at) for i, (source, at) in enumerate(readers)]
        self.texts = [filter(wanted, reader.documents()) for reader in self.readers]
        self.weights = [source.weight for source in sources]
        self.drawn: list[int] = begun["drawn"]
        self.current: int = begun["current"]

    @property
    def place(self) -> dict[str, Any]:
        """How far all of them are, behind the last batch."""
        return {"readers": [reader.place for reader in self.readers], "drawn": self.drawn, "current": self.current}

    def batch(self, size: int) -> list[str]:
        """The next documents, all of one source, or none if there are no more."""
        if self.weights[0] is not None:
            self.current = min(range(len(self.texts)), key=lambda i: self.drawn[i] / (self.weights[i] or 1.0))
            return list(islice(self.texts[self.current], size))
        while not (texts := list(islice(self.texts[self.current], size))) and self.current + 1 < len(self.texts):
            self.current += 1
        return texts

    def count(self, tokens: int) -> None:
        """Say how many tokens the last batch had."""
        self.drawn[self.current] += tokens
