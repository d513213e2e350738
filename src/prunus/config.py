"""The base of every configuration class, and how one is made from plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from prunus.environment import as_written
from prunus.errors import RecipeError
from prunus.keys import hide
from prunus.mistakes import explain, mistakes, refuse

C = TypeVar("C", bound=BaseModel)

MAX_NAME = 100
"""The longest name, in bytes, that becomes part of a file or folder name; these allow 255 for all their parts."""


class _Runtime:
    """Marks a field that changes how a result is made but not the result."""


RUNTIME = _Runtime()


class _Added:
    """Marks an option added after results exist: at its default it is not part of fingerprints, and they stay valid."""


ADDED = _Added()

Location = Annotated[str, RUNTIME]
"""A path. Its content is fingerprinted instead of its name, so that moving a file does not make results stale."""


def _address(text: str) -> str:
    """Refuse a text that is not a server's address."""
    try:
        parts = urlsplit(text)
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # urlsplit raises it too, for a port that is not a number or brackets that do not close
        raise ValueError("expected a server's address, such as http://localhost:8000/v1") from None
    return text


Address = Annotated[str, RUNTIME, Field(pattern=r"^https?://\S+$"), AfterValidator(_address)]
"""A server's address. Another option names the model served there, so an address is not part of a fingerprint."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that both numpy and torch accept."""


def _no_lone_token(length: int) -> int:
    """Refuse a sequence of one token, which has no context to be predicted from."""
    if length == 1:
        raise ValueError("a sequence of one token predicts nothing; allowed: at least 2, or 0 for the model's default")
    return length


Length = Annotated[int, Field(ge=0), AfterValidator(_no_lone_token)]
"""Tokens per sequence; 0 derives the length from the model."""


def check_length(name: str, length: int, context: int) -> None:
    """Refuse sequences longer than a model's context.

    Raises:
        RecipeError: The message names the option and the longest length allowed.
    """
    if length > context:
        raise RecipeError(f"{name}.sequence_length: {length} is more than the model's context of {context} tokens")


def help_of(text: str) -> str:
    """Wrap help generated from a table to the width of a docstring under a field."""
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
            raise ValueError("expected a number, got a boolean")
        return value

    def identity(self) -> dict[str, Any]:
        """The options that decide the result, as plain JSON values: the input to an artifact's fingerprint."""
        return {name: _plain(value) for name, value in self if self._decides(name, value)}

    def recorded(self, places: bool = True) -> dict[str, Any]:
        """The options for a record, as plain JSON values, with `${NAME}` unexpanded as in the recipe.

        Args:
            places: Include the options that are not part of the fingerprint, such as paths.
        """
        fields = type(self).model_fields
        kept = {name: value for name, value in self if places or self._decides(name, value)}
        return {name: _recorded(value, places, _choices(fields[name].annotation)) for name, value in kept.items()}

    def _decides(self, name: str, value: Any) -> bool:
        """Whether an option is part of the fingerprint."""
        field = type(self).model_fields[name]
        return not _is_runtime(field) and not (ADDED in field.metadata and _plain(value) == _plain(field.default))


@dataclass(frozen=True)
class Size:
    """The properties of a model that unset options are derived from.

    Attributes:
        hidden_size: Channels of its residual stream.
        context: Its context length in tokens.
        widest: The most input features of any of its linear layers: channels or neurons.
        cut: The fraction of its teacher's non-embedding parameters that was removed.
    """

    hidden_size: int
    context: int
    widest: int
    cut: float = 0.5


class StepConfig(Config):
    """The options of a step.

    Attributes:
        kind: The step's name in records and folders.
        revision: Raised whenever the same options come to give another result.
    """

    kind: ClassVar[str]
    revision: ClassVar[int]

    @classmethod
    def room(cls) -> str:
        """The package with the step's modules `plan` and `step`: that of the class that sets `kind`."""
        owner = next(ancestor for ancestor in cls.__mro__ if "kind" in vars(ancestor))
        return owner.__module__.rpartition(".")[0]

    def with_defaults(self, size: Size) -> Self:
        """A copy in which unset options have their values for a model of that size."""
        return self


def _is_runtime(field: FieldInfo) -> bool:
    """Whether a field is marked, directly or inside `| None`."""
    inner = (getattr(part, "__metadata__", ()) for part in get_args(field.annotation))
    return RUNTIME in field.metadata or any(RUNTIME in marks for marks in inner)


def _plain(value: Any) -> Any:
    """`value` in JSON types, with each nested config reduced to its identity."""
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _recorded(value: Any, places: bool, choices: frozenset[Any]) -> Any:
    """`value` for a record. One of `choices` is kept unchanged, since readers of records compare with it."""
    if isinstance(value, Config):
        return value.recorded(places)
    if isinstance(value, (list, tuple)):
        return [_recorded(item, places, choices) for item in value]
    if isinstance(value, dict):
        return {str(key): _recorded(item, places, choices) for key, item in value.items()}
    return hide(as_written(value)) if isinstance(value, str) and value not in choices else value


def _choices(annotation: Any) -> frozenset[Any]:
    """The literals that an option chooses from; empty for other options."""
    if get_origin(annotation) is Literal:
        return frozenset(get_args(annotation))
    return frozenset(choice for part in get_args(annotation) for choice in _choices(part))


def parse(cls: type[C], raw: Any, where: str) -> C:
    """Build a `cls` from plain data, or report all mistakes in it in one `RecipeError`.

    Args:
        cls: The config class.
        raw: The parsed YAML or JSON.
        where: The name of the source in the message, such as the recipe's path.

    Raises:
        RecipeError: The message lists every mistake by its dotted name, with the value and what is allowed.
    """
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(explain(cls, error, where)) from None


def parse_named(cls: type[C], raw: Any, spell: Callable[[list[str]], str], where: str) -> C:
    """Build a `cls` as `parse` does, from input with other names for its options.

    Args:
        cls: The config class.
        raw: Plain data.
        spell: The name of an option in the input, given the keys on the way to it.
        where: The source of the mistakes, for a message with several.

    Raises:
        RecipeError: The message lists every mistake; a single one is the whole message.
    """
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        refuse(mistakes(cls, error, spell), where)
        raise
