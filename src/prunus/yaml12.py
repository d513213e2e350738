"""YAML by the core schema of YAML 1.2, read within limits: a value, or an error with its file, line and column.

PyYAML parses the syntax; this module determines the values, since PyYAML follows YAML 1.1, where `no` is false,
`2024-01-01` a date, `12:30` the number 750 and `1e-4` a text, and since its constructors raise errors of many types.
Differences from the core schema: keys are always text, a whole number may be written `1_000_000`, and a number with a
leading zero is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prunus.errors import PrunusError
from prunus.files import MAX_DEPTH, read_text

MAX_CHARACTERS = 1 << 20
"""The longest text that is read; the longest shipped recipe has 4,000 characters."""

MAX_VALUES = 100_000
"""The most keys and values that are read, with every alias expanded."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_NUMBER = r"(0|[1-9][0-9]*(_[0-9]+)*)"
_WHOLE = re.compile(rf"[-+]?{_NUMBER}|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(rf"[-+]?(\.[0-9]+|{_NUMBER}(\.([0-9]+(_[0-9]+)*)?)?)([eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # neither a file name nor a UTF-8 file can contain them


class _FaultError(Exception):
    """A fault, and its line and column, from 0."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line, self.column = line, column


def read_yaml(file: Path, error: type[PrunusError]) -> Any:
    """The value of a YAML file.

    Raises:
        PrunusError: `error`: the file cannot be read, or `parse_yaml` refuses its text.
    """
    return parse_yaml(read_text(file, error), error, str(file))


def parse_yaml(text: str, error: type[PrunusError], where: str, before: int = 0) -> Any:
    """The value of a YAML text: None, bool, int, float, str, and lists and mappings of these.

    Args:
        text: One document.
        error: What to raise.
        where: The source of the text, for the message.
        before: Lines of the file before the text.

    Raises:
        PrunusError: `error`: not YAML, a duplicate key, a tag outside the core schema, or a limit exceeded.
    """
    try:
        return _parse(text)
    except _FaultError as fault:
        place = f"line {fault.line + 1 + before}, column {fault.column + 1}"
        raise error(f"{where}, {place}: {fault}") from None


_BREAKS = re.compile("[\x85\u2028\u2029]")


def dump_yaml(value: Any) -> str:
    """A value as YAML in block style, which `parse_yaml` and readers of YAML 1.1 read alike."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """Quotes texts that YAML 1.2 would read as numbers, as PyYAML does for YAML 1.1; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    """A text; in double quotes if it has Unicode line breaks, which other styles fold into blanks."""
    style = '"' if _BREAKS.search(value) else None
    return dumper.represent_scalar(f"{_TAG}str", value, style)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver(f"{_TAG}int", re.compile(rf"^({_WHOLE.pattern})$"), list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"^({_FLOAT.pattern})$"), list("-+.0123456789"))


def _parse(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise _FaultError(f"{len(text):,} characters; at most {MAX_CHARACTERS:,} are read", 0, 0)
    if match := _UNPRINTABLE.search(text):
        start = text.rfind("\n", 0, match.start()) + 1
        line, column = text.count("\n", 0, start), match.start() - start
        raise _FaultError(f"the character U+{ord(match[0]):04X} is not allowed in a YAML file", line, column)
    builder = _Builder()
    event = None
    try:
        loader = _LOADER(text)
        while loader.check_event():
            event = loader.get_event()
            builder.take(event)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        message = f"not YAML: {problem.problem or problem.context}"
        raise _FaultError(message, mark.line if mark else 0, mark.column if mark else 0) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as problem:  # from bugs of PyYAML
        mark = getattr(event, "end_mark", None)
        raise _FaultError(f"not YAML: {problem}", mark.line if mark else 0, mark.column if mark else 0) from None
    return builder.root


@dataclass
class _Node:
    """A value, or a list or mapping that is still open.

    Attributes:
        value: The value.
        anchor: Its anchor, which aliases refer to.
        key: In a mapping, the key that waits for its value.
        count: Number of values in it, itself included.
        depth: Levels of lists and mappings in it, itself included.
    """

    value: Any
    anchor: str | None
    key: str | None = None
    count: int = 1
    depth: int = 0


class _Builder:
    """Builds the value from PyYAML's events without recursion, so that any depth of nesting can be refused."""

    def __init__(self) -> None:
        self.root: Any = None
        self.open: list[_Node] = []
        self.known: dict[str, _Node | None] = {}  # anchor -> value; None while it is still open
        self.count = 0
        self.documents = 0

    def take(self, event: Any) -> None:
        """Process the next event.

        Raises:
            _FaultError: The event is refused.
        """
        taker: Callable[[Any], None] | None = getattr(self, f"_{type(event).__name__}", None)
        if taker is not None:
            taker(event)

    def _DocumentStartEvent(self, event: Any) -> None:  # noqa: N802
        self.documents += 1
        if self.documents > 1:
            raise _fault(event, "a second document begins; expected only one")

    def _ScalarEvent(self, event: Any) -> None:  # noqa: N802
        _check_text(event)
        if self._awaits_key():
            self._start_pair(event)
        else:
            self._add(_Node(_scalar(event), event.anchor), event)

    def _SequenceStartEvent(self, event: Any) -> None:  # noqa: N802
        self._begin(event, [], "seq")

    def _MappingStartEvent(self, event: Any) -> None:  # noqa: N802
        self._begin(event, {}, "map")

    def _SequenceEndEvent(self, event: Any) -> None:  # noqa: N802
        self._add(self.open.pop(), event, counted=True)

    _MappingEndEvent = _SequenceEndEvent

    def _AliasEvent(self, event: Any) -> None:  # noqa: N802
        if event.anchor not in self.known:
            raise _fault(event, f"the alias *{event.anchor} has no anchor before it")
        node = self.known[event.anchor]
        if node is None:
            raise _fault(event, f"the alias *{event.anchor} is inside the value it refers to")
        if self._awaits_key():
            raise _fault(event, "an alias as a key; expected text")
        self._add(_Node(node.value, None, count=node.count, depth=node.depth), event)

    def _awaits_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].value, dict) and self.open[-1].key is None

    def _start_pair(self, event: Any) -> None:
        """Read a key, always as text."""
        mapping, key = self.open[-1], event.value
        if key in mapping.value:
            raise _fault(event, f"duplicate key {key!r:.80}")
        if key == "<<" and not event.style:
            raise _fault(event, "`<<` merges mappings in YAML 1.1 but not in YAML 1.2; write the keys out")
        if event.tag not in (None, "!", f"{_TAG}str"):
            raise _fault(event, f"a key of the type {event.tag!r:.80}; expected text")
        if event.anchor is not None:
            self.known[event.anchor] = _Node(key, None)
        mapping.key = key
        self._count(1, event)

    def _begin(self, event: Any, value: Any, kind: str) -> None:
        if self._awaits_key():
            raise _fault(event, "a list or a mapping as a key; expected text")
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            raise _fault(event, f"the tag {event.tag!r:.80} is not of the core schema of YAML 1.2")
        self._check_depth(1, event)
        self._count(1, event)
        if event.anchor is not None:
            self.known[event.anchor] = None
        self.open.append(_Node(value, event.anchor, depth=1))

    def _add(self, node: _Node, event: Any, counted: bool = False) -> None:
        """Add a complete value to its list or mapping, or make it the root."""
        if not counted:
            self._check_depth(node.depth, event)
            self._count(node.count, event)
        if node.anchor is not None:
            self.known[node.anchor] = node
        if not self.open:
            self.root = node.value
            return
        parent = self.open[-1]
        parent.count += node.count
        parent.depth = max(parent.depth, node.depth + 1)
        if isinstance(parent.value, list):
            parent.value.append(node.value)
        else:
            parent.value[parent.key] = node.value
            parent.key = None

    def _check_depth(self, depth: int, event: Any) -> None:
        if len(self.open) + depth > MAX_DEPTH:
            raise _fault(event, f"nested deeper than {MAX_DEPTH} levels")

    def _count(self, count: int, event: Any) -> None:
        self.count += count
        if self.count > MAX_VALUES:
            raise _fault(event, f"more than {MAX_VALUES:,} keys and values, with aliases expanded")


def _fault(event: Any, message: str) -> _FaultError:
    return _FaultError(message, event.start_mark.line, event.start_mark.column)


def _check_text(event: Any) -> None:
    if match := _UNUSABLE.search(event.value):
        raise _fault(
            event, f"a text with the character U+{ord(match[0]):04X}, which neither file names nor UTF-8 can contain"
        )


def _scalar(event: Any) -> Any:
    """The value of a scalar, by its tag; without tag and quotes, by its form."""
    if event.tag in ("!", f"{_TAG}str") or (event.tag is None and event.style):
        return event.value
    value = _plain(event)
    if event.tag is None:
        return value
    name = event.tag.removeprefix(_TAG)
    if name not in _TYPES:
        raise _fault(event, f"the tag {event.tag!r:.80} is not of the core schema of YAML 1.2")
    if name == "float" and type(value) is int:
        return float(value)
    if type(value) is not _TYPES[name]:
        raise _fault(event, f"{event.value!r:.80} does not fit its tag, {name}")
    return value


def _plain(event: Any) -> Any:
    text = event.value
    if text in _WORDS:
        return _WORDS[text]
    if _ENDLESS.fullmatch(text):
        return float(text.replace(".", ""))
    if _WHOLE.fullmatch(text):
        value = int(text, 0) if len(text) < 70 else 2**63
        if abs(value) >= 2**63:
            raise _fault(event, "a whole number of more than 64 bits; put it in quotes if it is text")
        return value
    if _FLOAT.fullmatch(text):
        number = float(text)
        if abs(number) == float("inf"):
            raise _fault(event, "a number beyond the range of a float; put it in quotes if it is text")
        return number
    return text
