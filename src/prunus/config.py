"""The base of every configuration class, and how a wrong value is told to its writer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from prunus.errors import RecipeError, nearest

C = TypeVar("C", bound=BaseModel)


class _Runtime:
    """Marks a field that changes how a result is made, and not what it is."""


RUNTIME = _Runtime()

Path = Annotated[str, RUNTIME]
"""Where something lies. What lies there is fingerprinted instead, so that a moved file redoes nothing."""


class Config(BaseModel):
    """A frozen set of options. The docstring under a field is its help, in recipes, flags and schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, protected_namespaces=()
    )

    def identity(self) -> dict[str, Any]:
        """The options that decide the result, as plain JSON values: what an artifact's name is hashed over."""
        runtime = {name for name, field in type(self).model_fields.items() if RUNTIME in field.metadata}
        kept = {name: value for name, value in self if name not in runtime}
        return {name: _plain(value) for name, value in kept.items()}


class StepConfig(Config):
    """The options of a step.

    Attributes:
        kind: The room that does the work, `prunus.<kind>.step`.
        revision: Raised whenever the same options come to mean another result.
    """

    kind: ClassVar[str]
    revision: ClassVar[int]


def _plain(value: Any) -> Any:
    """`value` in JSON's own types, with each nested config reduced to its identity."""
    if isinstance(value, Config):
        return value.identity()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


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
        lines = [f"  {line}" for line in _explain(cls, error)]
        raise RecipeError(f"{where} cannot be used:\n" + "\n".join(lines)) from None


def _explain(cls: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"]]
        name = ".".join(path) or "(top level)"
        if item["type"] == "extra_forbidden":
            keys = list(_fields_at(cls, path[:-1]))
            yield f"{name}: unknown key{nearest(path[-1], keys)}; allowed here: {', '.join(keys)}"
        elif item["type"] == "missing":
            yield f"{name}: missing; it has no default"
        else:
            yield f"{name}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"


def _fields_at(cls: Any, path: list[str]) -> list[str]:
    """The keys that the config class reached from `cls` by `path` accepts."""
    for part in path:
        fields = getattr(cls, "model_fields", {})
        annotation = fields[part].annotation if part in fields else cls
        cls = next(iter(_classes_in(annotation)), None)
    return list(getattr(cls, "model_fields", {}))


def _classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes_in(argument)
