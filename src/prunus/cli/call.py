"""The arguments of a call, divided among the options of a command."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prunus.cli.options import Option
from prunus.errors import among

_NEGATIVE = re.compile(r"-[\d.]|-inf|-$")
_NO = re.compile(r"(--|\.)no-([^.]*)$")


class Call:
    """The arguments of a call, divided among the options of its command.

    Attributes:
        values: The value of each option that is set, as plain data.
        refused: Flags and arguments that do not fit -> what is wrong with them.
    """

    def __init__(self, usage: str, options: Mapping[str, Option], flags: Collection[str]) -> None:
        self.values: dict[Option, Any] = {}
        self.refused: dict[str, str] = {}
        self._usage, self._options, self._flags = usage, options, flags

    def read(self, arguments: Sequence[str]) -> None:
        """Divide the arguments."""
        rest = list(arguments)
        loose = []  # texts that no flag takes, and what is wrong if no positional argument takes them either
        while rest:
            word = rest.pop(0)
            if not _is_flag(word):
                loose.append((word, (repr(word), f"unexpected argument; see `{self._usage} --help`")))
                continue
            flag, joined, text = word.partition("=")
            texts = [text] if joined else []
            while rest and not joined and not _is_flag(rest[0]):
                texts.append(rest.pop(0))
            name = flag.replace("_", "-")
            taken, wrong = self._flag(name, texts, bool(joined))
            loose += [(text, (name, f"{wrong} (also found {text!r})")) for text in texts[taken:]]
        self._place(loose)

    def _flag(self, name: str, texts: list[str], joined: bool) -> tuple[int, str]:
        """Read a flag with the texts after it.

        Returns:
            How many of the texts it takes, and what is wrong with more.
        """
        option = self._options.get(name) or self._options.get(_NO.sub(r"\1\2", name))
        if name not in self._flags:
            everything = f"`{self._usage} --help`"
            self.refused[name] = f"unknown option{among(name, self._flags, everything=everything)}"
            return 1, ""
        if option is None:  # `--help`
            return 0, "takes no value"
        self.refused.pop(option.name, None)  # of several, the last one counts
        if option.annotation is bool:
            self.values[option] = option.name == name
            if joined:
                self.refused[name] = f"takes no value (found {texts[0]!r})"
            return int(joined), "takes no value"
        if option.several:
            self._set(option, texts)
            return len(texts), ""
        if texts:
            self._set(option, texts[:1])
        else:
            self.refused[name] = "expected a value"
        return 1, "takes one value"

    def _place(self, loose: Sequence[tuple[str, tuple[str, str]]]) -> None:
        """Give the texts that no flag takes to positional arguments, and refuse the others."""
        for option in (option for option in self._options.values() if option.positional):
            count = len(loose) if option.several else 1
            if loose:
                self._set(option, [text for text, _ in loose[:count]])
            loose = loose[count:]
        for _, (name, wrong) in loose:
            self.refused.setdefault(name, wrong)

    def _set(self, option: Option, texts: list[str]) -> None:
        if option.mapping and len(texts) % 2:
            self.refused[option.name] = f"expected pairs of a name and a value (found {' '.join(texts)!r})"
        else:
            self.values[option] = option.value(texts)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not _NEGATIVE.match(word)
