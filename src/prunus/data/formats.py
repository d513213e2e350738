"""Readers of local files, one per format: rows one by one, in bounded memory; errors name the line.

Python's own `json` reads JSON: readers that infer types turn texts into dates and numbers, refuse rows of mixed types,
and can crash on a line of brackets.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from io import BufferedReader, TextIOWrapper
from typing import Any

from prunus.errors import DataError
from prunus.files import MAX_DEPTH, depth_exceeds

Row = dict[str, Any]
Format = Callable[[BufferedReader, str, int, str | None], Iterator[Row]]
"""Arguments: the open file, its name for messages, the number of rows to skip, and the only column to read, if any."""

MAX_ROW = 64 << 20
"""The most bytes of a row."""
MIN_DOCUMENT, MAX_DOCUMENT = 1_000, 1 << 20
"""A document of a .txt file ends at the first blank line after `MIN_DOCUMENT` characters, or at the first end of a line
after `MAX_DOCUMENT`."""
_CHUNK = 1 << 20
_BATCH = 256  # rows of a table that are converted at a time
_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


def json_lines(handle: BufferedReader, where: str, skip: int, column: str | None) -> Iterator[Row]:
    r"""One JSON object per line; only "\n" ends a line. A file that begins with `[` is read as a list."""
    if handle.peek(_BATCH).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from json_values(handle, where, skip, column)
        return
    for number, text in _lines(handle, where):
        if skip and text.strip():
            skip -= 1
        elif text.strip():
            here = f"{where}, line {number}"
            try:
                value = json.loads(text, object_pairs_hook=_object)
            except (ValueError, RecursionError) as problem:
                raise _not_json(problem, here) from None
            yield _row(value, text, here)


def json_values(handle: BufferedReader, where: str, skip: int, column: str | None) -> Iterator[Row]:
    """A JSON list of objects or texts, or concatenated objects; only one of them is in memory."""
    del column
    for number, (value, text) in enumerate(_Values(handle, where), start=1):
        if number > skip:
            yield _row({"text": value} if isinstance(value, str) else value, text, f"{where}, row {number}")


def csv_rows(handle: BufferedReader, where: str, skip: int, column: str | None) -> Iterator[Row]:
    """A CSV file with a header; every cell is text."""
    del column
    csv.field_size_limit(MAX_ROW)
    lines = csv.reader((text for _, text in _lines(handle, where)), strict=True)
    try:
        names = next(lines, [])
        twice = {name for name in names if name and names.count(name) > 1} if len(set(names)) < len(names) else set()
        if twice:
            raise DataError(f"{where}, line 1: two columns are called {min(twice)!r}")
        for cells in lines:
            if cells and len(cells) != len(names):
                raise DataError(f"{where}, line {lines.line_num}: {len(cells)} cells, expected {len(names)}")
            if cells and skip:
                skip -= 1
            elif cells:
                yield dict(zip(names, cells, strict=True))
    except csv.Error as problem:
        raise DataError(f"{where}, line {lines.line_num} cannot be read: not CSV: {problem}") from None


def text_documents(handle: BufferedReader, where: str, skip: int, column: str | None) -> Iterator[Row]:
    """Plain text, split at blank lines into documents of at least `MIN_DOCUMENT` characters, in the column `text`."""
    del column
    for number, text in enumerate(_documents(handle, where), start=1):
        if number > skip:
            yield {"text": text}


def parquet_rows(handle: BufferedReader, where: str, skip: int, column: str | None) -> Iterator[Row]:
    """A Parquet file, one row group after the other."""
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(handle)
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise DataError(f"{where}: two columns are called {next(n for n in names if names.count(n) > 1)!r}")
    columns = [column] if column in names else None
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if skip >= rows:
            skip -= rows
            continue
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=columns):
            yield from batch.slice(skip).to_pylist()
            skip = max(0, skip - len(batch))


class _Values:
    """JSON values, each with its text: the elements of a list, or concatenated values."""

    def __init__(self, handle: BufferedReader, where: str) -> None:
        self.text, self.where = TextIOWrapper(handle, encoding="utf-8-sig", newline=""), where
        self.read = json.JSONDecoder(object_pairs_hook=_object).raw_decode
        self.buffer, self.at, self.number = "", 0, 0

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        if self._next() != "[":
            while self._next():
                yield self._value()
            return
        self.at += 1
        more = self._next() != "]"
        while more:
            yield self._value()
            mark = self._next()
            more = mark == ","
            if not more and mark != "]":
                raise DataError(f"{self.where}, after row {self.number}: {mark!r}, expected a comma or the list's end")
            self.at += more
        self.at += 1
        if self._next():
            raise DataError(f"{self.where}: {self._next()!r} after the end of the list")

    def _next(self) -> str:
        """The next character that is not whitespace; empty at the end."""
        while True:
            match = _SPACE.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer) or not self._grow():
                return self.buffer[self.at : self.at + 1]

    def _value(self) -> tuple[Any, str]:
        """Read the value at the current position."""
        self.number += 1
        here = f"{self.where}, row {self.number}"
        self._next()
        while True:
            try:
                value, end = self.read(self.buffer, self.at)
            except RecursionError as problem:
                raise _not_json(problem, here) from None
            except ValueError as problem:  # the value may continue beyond the buffer
                end = len(self.buffer)
                if end - self.at <= MAX_ROW and not self._grow():
                    raise _not_json(problem, here, self.at, "JSON, nor JSON by lines") from None
            else:
                text = self.buffer[self.at : end]
                if len(text) <= MAX_ROW:
                    self.at = end
                    return value, text
            if end - self.at > MAX_ROW:
                raise _too_long(here)

    def _grow(self) -> bool:
        """Read more, doubling the buffer, so that a long value is parsed only a few times."""
        more = self.text.read(max(_CHUNK, len(self.buffer) - self.at))
        self.buffer, self.at = self.buffer[self.at :] + more, 0
        return bool(more)


def _lines(handle: BufferedReader, where: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, line ends included, each of bounded length."""
    number = 0
    while line := handle.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            raise _too_long(f"{where}, line {number}")
        try:
            yield number, (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode()
        except UnicodeDecodeError as problem:
            reason = f"not UTF-8: {problem.reason} at byte {problem.start + 1} of it"
            raise DataError(f"{where}, line {number} cannot be read: {reason}") from None


def _documents(handle: BufferedReader, where: str) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for _, line in _lines(handle, where):
        text = line.replace("\r\n", "\n").replace("\r", "\n")
        ends = not text.strip() and size >= MIN_DOCUMENT
        if not ends and (lines or text.strip()):
            lines.append(text)
            size += len(text)
        if ends or size >= MAX_DOCUMENT:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r:.80}")
    return result


def _row(value: Any, text: str, where: str) -> Row:
    """Check that a JSON value is a valid row: an object, not nested too deep, without lone surrogates."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds {type(value).__name__}, expected an object")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth_exceeds(value, MAX_DEPTH):
        raise _not_json(RecursionError(), where)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as problem:
            surrogate = f"\\u{ord(problem.object[problem.start]):04x}"
            raise DataError(f"{where}: {surrogate} is a lone surrogate, half of a character") from None
    return value


def _not_json(problem: Exception, where: str, start: int = 0, what: str = "JSON") -> DataError:
    if isinstance(problem, RecursionError):
        return DataError(f"{where} cannot be read: nested deeper than {MAX_DEPTH} levels")
    if isinstance(problem, json.JSONDecodeError):
        reason = f"{problem.msg.removesuffix(' at')} at character {problem.pos - start + 1} of it"
        return DataError(f"{where} cannot be read: not {what}: {reason}")
    return DataError(f"{where} cannot be read: not {what}: {problem}")


def _too_long(where: str) -> DataError:
    return DataError(f"{where} cannot be read: longer than {MAX_ROW:,} bytes; split it into several rows")
