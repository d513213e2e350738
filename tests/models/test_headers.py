"""Headers of safetensors files: refused where the library refuses them, and else read as the library reads them."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from prunus.errors import ModelError
from prunus.models import checkpoint
from prunus.models.checkpoint import ITEM_BITS, WEIGHTS, read_bytes, read_header, read_tensors


def write(file: Path, header: bytes, data: bytes) -> bytes:
    contents = struct.pack("<Q", len(header)) + header + data
    file.write_bytes(contents)
    return contents


def compare(file: Path, contents: bytes) -> None:
    """Hold our reader against the library's own: the same tensors, to the last byte, or a refusal by both."""
    try:
        known = deserialize(contents)
    except SafetensorError:
        with pytest.raises(ModelError, match=WEIGHTS):
            read_header(file)
        return
    expected = {name: (value["dtype"], value["shape"], bytes(value["data"])) for name, value in known}
    found = {info.name: (info.dtype, list(info.shape), read_bytes(info)) for info in read_header(file)}
    assert found == expected


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def text(**entries: Any) -> bytes:
    return json.dumps(entries).encode()


ONE = json.dumps(entry())[1:-1]
HEADERS: dict[str, tuple[bytes, int]] = {
    "whole": (text(a=entry(), b=entry("BF16", [2, 1], [8, 12])), 12),
    "in another order": (text(b=entry("BF16", [2, 1], [8, 12]), a=entry()), 12),
    "no tensors": (b"{}", 0),
    "a scalar": (text(a=entry("F64", [], [0, 8])), 8),
    "of no size": (text(a=entry(), b=entry("F32", [0, 3], [8, 8]), c=entry("I8", [1], [8, 9])), 9),
    "spaces at the end": (text(a=entry()) + b"  \n ", 8),
    "not aligned": (text(a=entry("U8", [1], [0, 1]), b=entry("F32", [1], [1, 5])), 5),
    "a name twice": (f'{{"a": {{{ONE}}}, "a": {json.dumps(entry("F32", [2], [8, 16]))}}}'.encode(), 16),
    "a name twice, for the same bytes": (f'{{"a": {{{ONE}}}, "a": {json.dumps(entry("I32"))}}}'.encode(), 8),
    "a key twice": (f'{{"a": {{{ONE}, "dtype": "I32"}}}}'.encode(), 8),
    "overlapping": (text(a=entry(), b=entry("F32", [2], [4, 12])), 12),
    "shifted": (text(a=entry("F32", [2], [4, 12])), 12),
    "a hole": (text(a=entry(), b=entry("F32", [1], [12, 16])), 16),
    "trailing bytes": (text(a=entry()), 9),
    "cut short": (text(a=entry()), 7),
    "a shape of another size": (text(a=entry("F32", [3])), 8),
    "floats": (text(a=entry("F32", [2.0])), 8),
    "float offsets": (text(a=entry("F32", [2], [0.0, 8.0])), 8),
    "booleans": (text(a=entry("F32", [True], [False, 4])), 4),
    "negative": (text(a=entry("F32", [-2])), 8),
    "backwards": (text(a=entry("F32", [2], [8, 0])), 8),
    "huge": (text(a=entry("F32", [2**63, 2**63])), 8),
    "an unknown type": (text(a=entry("Q4")), 8),
    "a type that is no text": (text(a=entry(5)), 8),
    "three offsets": (text(a=entry("F32", [2], [0, 4, 8])), 8),
    "an entry that is a list": (b'{"a": ["F32", [2], [0, 8]]}', 8),
    "more keys": (text(a={**entry(), "more": [1]}), 8),
    "fewer keys": (text(a={"dtype": "F32", "shape": [2]}), 8),
    "metadata": (text(a=entry(), __metadata__={"format": "pt"}), 8),
    "metadata of numbers": (text(a=entry(), __metadata__={"format": 1}), 8),
    "metadata that is a list": (text(a=entry(), __metadata__=["pt"]), 8),
    "metadata of null": (text(a=entry(), __metadata__=None), 8),
    "nested": (b'{"a": ' + b"[" * 100_000 + b"}", 8),
    "a list": (b"[]", 0),
    "a byte order mark": (b"\xef\xbb\xbf{}", 0),
    "not UTF-8": (b'{"\xff": {}}', 0),
    "a lone surrogate": (b'{"\\ud800": ' + json.dumps(entry()).encode() + b"}", 8),
    "NaN": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', 8),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_is_what_the_library_makes_of_it(tmp_path: Path, kind: str) -> None:
    header, size = HEADERS[kind]
    compare(tmp_path / WEIGHTS, write(tmp_path / WEIGHTS, header, bytes(range(size))))


@pytest.mark.parametrize("dtype", ITEM_BITS)
def test_every_type_of_the_format_is_read(tmp_path: Path, dtype: str) -> None:
    size = 8 * ITEM_BITS[dtype] // 8
    header = text(a=entry(dtype, [2, 4], [0, size]), b=entry("U8", [3], [size, size + 3]))
    compare(tmp_path / WEIGHTS, write(tmp_path / WEIGHTS, header, bytes(range(size + 3))))


def test_the_library_knows_no_other_types(tmp_path: Path) -> None:
    with pytest.raises(SafetensorError) as refused:
        deserialize(write(tmp_path / WEIGHTS, text(a=entry("?")), b""))
    named = str(refused.value).partition("expected one of ")[2].replace("`", "").partition(" at ")[0]
    assert sorted(named.split(", ")) == sorted(ITEM_BITS)


@pytest.mark.parametrize("start", [b"", b"\0" * 7, b"\1" + b"\0" * 7 + b"{", b"\xff" * 8, struct.pack("<Q", 10**8 + 1)])
def test_lengths_that_are_none(tmp_path: Path, start: bytes) -> None:
    (tmp_path / WEIGHTS).write_bytes(start)
    compare(tmp_path / WEIGHTS, start)


NUMBERS = st.integers(-1, 30) | st.sampled_from([0.0, 4.0, 2**40, 2**64, True, None, "4"])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*ITEM_BITS, "F32", "F32", "X"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3),
    }
)


@st.composite
def neighbours(draw: Any) -> dict[str, Any]:
    """Entries that lie one after the other, of which some are then moved by a little."""
    place, header = 0, {}
    for name in draw(st.lists(st.text("abc_", max_size=3), max_size=4, unique=True)):
        shape = draw(st.lists(st.integers(0, 3), max_size=2))
        dtype = draw(st.sampled_from(sorted(ITEM_BITS)))
        bits = ITEM_BITS[dtype]
        for size in shape:
            bits *= size
        moved = draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
        header[name] = entry(dtype, shape, [place, place + bits // 8 + moved])
        place += bits // 8
    return header


@settings(max_examples=400, deadline=None)
@given(
    header=neighbours() | st.dictionaries(st.text(max_size=3), ENTRIES, max_size=3),
    edits=st.lists(st.tuples(st.integers(0, 200), st.sampled_from(b'{}[],:"0123456789 .-eaF\x00\xff')), max_size=2),
    size=st.integers(0, 60),
)
def test_any_header_is_what_the_library_makes_of_it(tmp_path_factory, header, edits, size) -> None:
    raw = bytearray(json.dumps(header).encode())
    for place, value in edits:
        if place < len(raw):
            raw[place] = value
    ends = [item["data_offsets"][-1] for item in header.values() if type(item["data_offsets"][-1]) is int]
    data = bytes(i % 251 for i in range(max(ends, default=0) if not edits and max(ends, default=0) < 10**4 else size))
    file = tmp_path_factory.mktemp("header") / WEIGHTS
    compare(file, write(file, bytes(raw), data))


def test_more_tensors_than_the_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_TENSORS", 3)
    header = {str(i): entry("U8", [1], [i, i + 1]) for i in range(4)}
    write(tmp_path / WEIGHTS, text(**header), bytes(4))
    with pytest.raises(ModelError, match="4 tensors; at most 3 are read"):
        read_tensors(tmp_path)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        read_tensors(tmp_path)
