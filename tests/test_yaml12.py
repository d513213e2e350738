"""YAML: the core schema of YAML 1.2, limits, and for any text at all a value or an error that names its place."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prunus import yaml12
from prunus.errors import RecipeError
from prunus.yaml12 import dump_yaml, parse_yaml, read_yaml
from tests.fuzz import fuzz


def read(text: str) -> Any:
    return parse_yaml(text, RecipeError, "r.yaml")


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(yaml12, "_LOADER", yaml.SafeLoader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("null", None), ("~", None), ("", None), ("true", True), ("False", False)),
        *(("1", 1), ("-7", -7), ("+7", 7), ("0x1F", 31), ("0o17", 15), ("60_000", 60000), ("1_000_000", 1000000)),
        *(("1e-4", 1e-4), ("1.0e-5", 1e-5), ("1E3", 1e3), (".5", 0.5), ("1.", 1.0), ("-2.5", -2.5), ("0.1", 0.1)),
        *((".inf", math.inf), ("-.INF", -math.inf), ("1_000.5", 1000.5)),
        # What YAML 1.1 reads as something else, or refuses.
        *((text, text) for text in ("yes", "no", "on", "off", "y", "N")),
        *((text, text) for text in ("2024-01-01", "2024-13-45", "2024-01-01T10:00:00Z", "12:30", "1:2:3.5")),
        *((text, text) for text in ("010", "0b101", "0x_", "1__000", "_1", "0012345", "1e", "e5", "+", "-.", "=")),
        *((f'"{text}"', text) for text in ("1", "true", "null", "1e-4")),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!float 1", 1.0),
        ("!!int '12'", 12),
    ],
)
def test_values_by_the_core_schema(text: str, value: Any, parser: None) -> None:
    for found in (read(f"a: {text}\n")["a"], read(f"- {text}\n")[0]):
        assert found == value
        assert type(found) is type(value)


def test_keys_are_text_as_written(parser: None) -> None:
    assert read("1: a\ntrue: b\n2024-01-01: c\nno: d\n1e3: e\n'x': f\n") == {
        "1": "a", "true": "b", "2024-01-01": "c", "no": "d", "1e3": "e", "x": "f"
    }  # fmt: skip


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
MAPPED = "a: &a {k: x}\n" + "".join(
    f"{name}: &{name} {{{', '.join(f'k{i}: *{before}' for i in range(10))}}}\n"
    for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
NESTED = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (LAUGHS, "line 5", "more than 100,000 keys and values"),
        (MAPPED, "line 6", "more than 100,000 keys and values"),
        ("&x [*x]", "line 1, column 5", r"alias \*x is inside the value it refers to"),
        ("a: &x {b: *x}", "line 1, column 11", r"alias \*x is inside the value it refers to"),
        (NESTED, "line 10", "nested deeper than 100 levels"),
        ("[" * 100_000, "line 1, column 101", "nested deeper than 100 levels"),
        ("{a: " * 100_000, "line 1, column 401", "nested deeper than 100 levels"),
        ("- " * 10_000 + "x", "line 1, column 201", "nested deeper than 100 levels"),
        ("a: 1\nb: [*nobody]", "line 2, column 5", "has no anchor before it"),
        ("seed: 1\nseed: 2\n", "line 2, column 1", "duplicate key 'seed'"),
        ("x: {a: 1, 'a': 2}", "line 1, column 11", "duplicate key 'a'"),
        ("? [1, 2]\n: 3", "line 1, column 3", "as a key; expected text"),
        ("a: &x b\n*x : 3", "line 2, column 1", "alias as a key"),
        ("a: &a {x: 1}\nb:\n  <<: *a", "line 3, column 3", "merges mappings in YAML 1.1"),
        ("<<: 5", "line 1, column 1", "merges mappings in YAML 1.1"),
        ("a: " + "9" * 5000, "line 1, column 4", "more than 64 bits"),
        ("a: 0x" + "f" * 5000, "line 1, column 4", "more than 64 bits"),
        ("a: 1e999", "line 1, column 4", "beyond the range of a float"),
        ("a: !!int abc", "line 1, column 4", "'abc' does not fit its tag, int"),
        ("a: !!int ''", "line 1, column 4", "'' does not fit its tag, int"),
        ("a: !!float abc", "line 1, column 4", "'abc' does not fit its tag, float"),
        ("a: !!bool maybe", "line 1, column 4", "'maybe' does not fit its tag, bool"),
        ("a: !!timestamp abc", "line 1, column 4", "timestamp"),
        ("a: !!binary abc", "line 1, column 4", "binary"),
        ("a: !!set {x}", "line 1, column 4", "set"),
        ("!!python/object:os.system x", "line 1, column 1", "python/object"),
        ("a: !own {}", "line 1, column 4", "own"),
        ("!!int a: 1", "line 1, column 1", "as a key|of the type"),
        ("a: 1\n--- \nb: 2", "line 2, column 1", "second document"),
        ("a:\n\t- b", "line 2, column", "not YAML"),
        ("a: [", "line", "not YAML"),
        ("a: b: c", "line 1, column", "not YAML"),
        ("a: 1\nb: \x07", "line 2, column 4", r"U\+0007 is not allowed"),
        ("a: \ud800", "line 1, column 4", r"U\+D800 is not allowed"),
        ('a: "\\0"', "line 1, column 4", r"U\+0000, which neither file names"),
        ('a: "\\ud800"', "line 1, column", r"U\+D800|not YAML"),
        ('a: "\\U00110000"', "line 1, column", "not YAML"),
        ("%YAML 9.9\n---\na", "line 1, column", "not YAML"),
        (f"%YAML 1.{'9' * 5000}\n---\na", "line 1, column", "not YAML"),
        ("x" * 2_000_000, "line 1, column 1", "at most 1,048,576"),
    ],
)
def test_what_is_refused_is_refused_quickly_and_by_its_place(text: str, place: str, message: str, parser: None) -> None:
    start = time.monotonic()
    with pytest.raises(RecipeError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"r.yaml, {place}")
    assert len(str(caught.value)) < 300
    assert time.monotonic() - start < 10


def test_aliases_within_the_limit(parser: None) -> None:
    assert read("a: &a {x: [1]}\nb: [*a, *a]\nc: &a 5\nd: *a") == {
        "a": {"x": [1]}, "b": [{"x": [1]}] * 2, "c": 5, "d": 5
    }  # fmt: skip


PARTS = [
    *("a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "? ", "!!int ", "!!", "!x ", "'", '"'),
    *("#", "%", "---", "...", "1", "1e-4", "0x_", "2024-13-45", "\\u", "\\x", "\t", "<<", "=", "~", "@", "`", "\x85"),
    *("|", ">", "\u2028", "\ufeff", "!!binary ", "!!bool ", "!!timestamp ", "!<", ">-", "|+9"),
    *("%YAML 1.1\n", "%TAG ! x\n"),
]


@fuzz(100)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=25).map("".join)))
@pytest.mark.parametrize("loader", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)])
def test_any_text_is_a_value_or_an_error_with_its_place(loader: Any, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml12, "_LOADER", loader)
        try:
            value = read(text)
        except RecipeError as error:
            assert str(error).startswith("r.yaml, line ")
        else:
            assert repr(read(dump_yaml(value))) == repr(value)  # by repr: NaN is not equal to itself


TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(["1e-4", "010", "0o7", "60_000", "no", "null", "2024-01-01", "1:30", "=", ".inf", "-", "0x1f"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@fuzz(100)
@given(VALUES)
def test_written_values_are_read_back_unchanged(value: Any) -> None:
    assert read(dump_yaml(value)) == value


def test_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [2]\r\n")
    assert read_yaml(file, RecipeError) == {"a": 1, "b": [2]}
    file.write_bytes(b"a: \xff")
    with pytest.raises(RecipeError, match=r"x.yaml: not UTF-8: .* at byte 3"):
        read_yaml(file, RecipeError)
