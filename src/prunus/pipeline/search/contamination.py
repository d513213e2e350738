"""Contamination check: the text that ranks candidates must share no document with the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from prunus.data.config import DataConfig, Source, SourceRef
from prunus.data.documents import documents
from prunus.data.sources import is_in
from prunus.errors import RecipeError
from prunus.fingerprint import digest
from prunus.graph.hub import Hub
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.world.config import WORLD

_COMPARED = 50_000  # documents of each text
_SHOWN = 60  # characters of a shared document


def check_apart(text: Sequence[Source], data: DataConfig, evaluate: EvaluateConfig, hub: Hub) -> None:
    """Refuse a ranking text that the evaluation also reads: the same source, or a document in both.

    Args:
        text: `search.text`; if empty, the part of the corpus that is set aside.
        data: The recipe's text.
        evaluate: The evaluation; its tasks' items count as well.
        hub: Source of text.

    Raises:
        RecipeError: Names the source or the document.
    """
    for i, source in enumerate(text):
        for where, other in _reported(data, evaluate):
            if _same(source, other):
                raise RecipeError(
                    f"search.text.{i}: the evaluation reads {source.path} too ({where}), so it would overestimate a "
                    "shape chosen by that text; allowed: another text, or none, which sets a part of the corpus aside"
                )
    if not text and not data.held_out:
        return  # both are parts of one text, split by document hashes: equal documents are in the same part
    pairs = [(one, other) for one in text or data.corpus for other in data.held_out]
    if pairs and all(one.path == other.path == WORLD and one.split != other.split for one, other in pairs):
        return  # splits of the generated world share no name, value or tool
    shared = None
    with hub.tolerate_missing():
        known = {digest(document.strip()) for document in _evaluated(data)}
        shared = next((document for document in _ranked(text, data) if digest(document.strip()) in known), None)
    if shared is not None:
        name = "search.text" if text else "data.corpus, of which a part is set aside for the search,"
        raise RecipeError(
            f"{name} and the evaluation's text share a document: {shared.strip()[:_SHOWN]!r}...; shapes must "
            "not be ranked on text that the evaluation reports: remove it from one of the two"
        )


def _reported(data: DataConfig, evaluate: EvaluateConfig) -> Iterator[tuple[str, SourceRef]]:
    """(option, source) of everything that the evaluation reads."""
    for i, source in enumerate(data.held_out or data.corpus):
        yield (f"data.held_out.{i}" if data.held_out else f"data.corpus.{i}, of which a part is held out"), source
    for name, task in evaluate.all_tasks().items():
        if task.data is not None:
            split = "held_out" if task.data == WORLD else "train"
            yield f"evaluate.tasks.{name}", SourceRef(path=task.data, split=split, world=task.world)


def _same(one: SourceRef, other: SourceRef) -> bool:
    if one.path == other.path == WORLD:
        return one.split == other.split
    files = [Path(place.path).expanduser() for place in (one, other)]
    if all(file.is_file() for file in files):
        return files[0].samefile(files[1])
    return (one.path, one.name, one.split) == (other.path, other.name, other.split)


def _evaluated(data: DataConfig) -> Iterator[str]:
    if data.held_out:
        return _read(data.held_out, "data.held_out")
    part = partial(is_in, "held_out", fraction=data.held_out_fraction)
    return (text for text in _read(data.corpus, "data.corpus") if part(text))


def _ranked(text: Sequence[Source], data: DataConfig) -> Iterable[str]:
    if text:
        return _read(text, "search.text")
    part = partial(is_in, "ranking", fraction=data.held_out_fraction)
    return (text for text in _read(data.corpus, "data.corpus") if part(text))


def _read(sources: Sequence[Source], where: str) -> Iterator[str]:
    for i, source in enumerate(sources):
        yield from islice(documents(source, f"{where}.{i}"), _COMPARED)
