"""The base of every configuration class, and how a wrong value is told to its writer."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from prunus.environment import as_written
from prunus.errors import RecipeError, nearest
from prunus.keys import hide

C = TypeVar("C", bound=BaseModel)

MAX_NAME = 100
"""Bytes of a name that becomes a part of folders' and files' names. These take 255, and other parts stand beside it."""


class _Runtime:
    """Marks a field that changes how a result is made, and not what it is."""


RUNTIME = _Runtime()

Location = Annotated[str, RUNTIME]
"""Where something lies. What lies there is fingerprinted instead, so that a moved file redoes nothing."""


def _address(text: str) -> str:
    """Refuse what no server can be asked at."""
    try:
        parts = urlsplit(text)
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # so does urlsplit, of a port that is no number and of brackets that do not close
        raise ValueError("no address of a server, such as http://localhost:8000/v1") from None
    return text


Address = Annotated[str, RUNTIME, Field(pattern=r"^https?://\S+$"), AfterValidator(_address)]
"""Where a server is. Who answers there is named besides, so an address decides no result."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that numpy and torch both take."""


def _no_lone_token(length: int) -> int:
    """Refuse a sequence in which no token has another before it."""
    if length == 1:
        raise ValueError("one token has none to be predicted from; allowed: at least 2, or 0 for what suits the model")
    return length


Length = Annotated[int, Field(ge=0), AfterValidator(_no_lone_token)]
"""Tokens of a sequence; 0 leaves them to follow from the model."""


def check_length(name: str, length: int, context: int) -> None:
    """Refuse sequences that a model was not made for.

    Raises:
        RecipeError: Names the option and the longest that is allowed.
    """
    if length > context:
        raise RecipeError(f"{name}.sequence_length: {length} is more than the model's context of {context} tokens")


def help_of(text: str) -> str:
    """Help that is made from a table, in lines as long as those of a docstring under a field."""
    return textwrap.fill(text, 113)


class Config(BaseModel):
    """A frozen set of options. The docstring under a field is its help, in recipes, flags and schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is expected: Python takes it for 1."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("true and false are no numbers here")
        return value

    def identity(self) -> dict[str, Any]:
        """The options that decide the result, as plain JSON values: what an artifact's name is hashed over."""
        fields = type(self).model_fields
        kept = {name: value for name, value in self if not _is_runtime(fields[name])}
        return {name: _plain(value) for name, value in kept.items()}

    def recorded(self, places: bool = True) -> dict[str, Any]:
        """The options for a record, as plain JSON values: `${NAME}` stands where a recipe has it.

        Args:
            places: Take in the options that decide no result, such as paths; without them these are `identity`'s.
        """
        fields = type(self).model_fields
        kept = {name: value for name, value in self if places or not _is_runtime(fields[name])}
        return {name: _recorded(value, places, _choices(fields[name].annotation)) for name, value in kept.items()}


@dataclass(frozen=True)
class Size:
    """What of a model the options follow from that nobody gave.

    Attributes:
        hidden_size: Channels of its residual stream.
        context: Tokens that it was made for.
        widest: The most that one of its linears reads: channels or neurons.
        cut: The share of its teacher's non-embedding parameters that it has not.
    """

    hidden_size: int
    context: int
    widest: int
    cut: float = 0.5


class StepConfig(Config):
    """The options of a step.

    Attributes:
        kind: What the step is called in records and folders.
        revision: Raised whenever the same options come to mean another result.
    """

    kind: ClassVar[str]
    revision: ClassVar[int]

    @classmethod
    def room(cls) -> str:
        """The package that does the work, in its modules `plan` and `step`: where the class is that names the kind."""
        owner = next(one for one in cls.__mro__ if "kind" in vars(one))
        return owner.__module__.rpartition(".")[0]

    def with_defaults(self, size: Size) -> Self:
        """A copy with unset options resolved to the defaults for a model of that size."""
        return self


def _is_runtime(field: FieldInfo) -> bool:
    """Whether a field is marked, itself or as what may also be None."""
    inner = (getattr(part, "__metadata__", ()) for part in get_args(field.annotation))
    return RUNTIME in field.metadata or any(RUNTIME in marks for marks in inner)


def _plain(value: Any) -> Any:
    """`value` in JSON's own types, with each nested config reduced to its identity."""
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _recorded(value: Any, places: bool, choices: frozenset[Any]) -> Any:
    """`value` as a record has it. One of `choices` is read by its word wherever the record is read, and stays."""
    if isinstance(value, Config):
        return value.recorded(places)
    if isinstance(value, (list, tuple)):
        return [_recorded(item, places, choices) for item in value]
    if isinstance(value, dict):
        return {str(key): _recorded(item, places, choices) for key, item in value.items()}
    return hide(as_written(value)) if isinstance(value, str) and value not in choices else value


def _choices(annotation: Any) -> frozenset[Any]:
    """The words that an option chooses among, if it does."""
    if get_origin(annotation) is Literal:
        return frozenset(get_args(annotation))
    return frozenset(choice for part in get_args(annotation) for choice in _choices(part))


def parse(cls: type[C], raw: Any, where: str) -> C:
    """Build a `cls` from plain data, or say everything that is wrong with it in one `RecipeError`.

    Args:
        cls: The config class.
        raw: What YAML or JSON gave.
        where: What to call the source in the message, such as the recipe's path.

    Raises:
        RecipeError: Lists every mistake by its dotted name, with the value found and what is allowed.
    """
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explain(cls, error, where)) from None


def explain(cls: Any, error: ValidationError, where: str) -> str:
    """Every mistake that pydantic found, a line each, by dotted name, with the value found and what is allowed."""
    items = error.errors(include_url=False)
    lines = [_line(cls, item) for item in items if not _follows(item, items)]
    return f"{where} cannot be used:\n" + "\n".join(f"  {line}" for line in lines)


def _follows(item: Any, items: Sequence[Any]) -> bool:
    """Whether a mistake only repeats another: the same where it was inherited, or a list emptied by its bad entries."""
    loc, kind = item["loc"], item["type"]
    for other in items:
        inherited = len(other["loc"]) < len(loc) and loc[-len(other["loc"]) :] == other["loc"] and kind == other["type"]
        emptied = kind == "too_short" and len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc
        if inherited or emptied:
            return True
    return False


def _line(cls: Any, item: Any) -> str:
    path = [str(part) for part in item["loc"] if not _BRANCH.match(str(part))]
    name = ".".join(path) or "(top level)"
    found = item["input"]
    if item["type"] == "extra_forbidden":
        keys = _fields_at(cls, path[:-1])
        return f"{name}: unknown key{nearest(path[-1], keys)}; allowed here: {', '.join(keys)}"
    if item["type"] == "missing":
        return f"{name}: missing; it has no default"
    text = _WORDS.get(item["type"], item["msg"].removeprefix("Value error, "))
    if isinstance(found, (dict, list, BaseModel)):
        return f"{name}: {text}"
    hint = "; put it in quotes" if item["type"] == "string_type" and isinstance(found, (int, float)) else ""
    shown = hide(as_written(found)) if isinstance(found, str) else found
    return f"{name}: {text}{hint} (found {_cut(repr(shown))})"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 200  # characters of a value that a message repeats
_BRANCH = re.compile(r"(literal|tuple|list)\[")  # which side of a union pydantic tried: no key of anyone's
_WORDS = {
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping of options",
    "string_type": "expected text",
    "int_parsing": "expected a whole number, such as 1_000_000",
    "int_from_float": "expected a whole number, such as 1_000_000",
    "too_short": "expected at least 1",
}


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    """The keys that the config class reached from `cls` by `path` accepts."""
    for part in path:
        fields = getattr(cls, "model_fields", {})
        annotation = fields[part].annotation if part in fields else cls
        cls = next(iter(classes_in(annotation)), None)
    return list(getattr(cls, "model_fields", {}))


def classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config classes in a field's annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from classes_in(argument)
