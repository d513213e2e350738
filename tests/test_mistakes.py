"""Messages about invalid values."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from prunus.config import Config, parse_named
from prunus.errors import RecipeError
from prunus.mistakes import mistakes


class Inner(Config):
    size: Annotated[float, Field(ge=0, lt=1e6)] = 0
    bounds: tuple[float, float] = (0, 1)

    @model_validator(mode="after")
    def _ordered(self) -> "Inner":
        if self.bounds[0] > self.bounds[1]:
            raise ValueError("bounds: the first is above the second")
        return self


class Outer(Config):
    count: Annotated[int, Field(ge=1_000)] = 1_000
    mode: bool | Literal["auto"] = "auto"
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ({"count": 5}, ["count: expected at least 1_000 (found 5)"]),
        ({"inner": {"size": -1}}, ["inner.size: expected at least 0 (found -1)"]),
        ({"inner": {"size": 2e6}}, ["inner.size: expected less than 1e+06 (found 2000000.0)"]),
        ({"mode": "x"}, ["mode: expected true or false, or 'auto' (found 'x')"]),
        ({"inner": {"bounds": [1]}}, ["inner.bounds.1: too few values"]),
        ({"inner": {"bounds": [1, 2, 3]}}, ["inner.bounds: expected at most 2 values"]),
        ({"inner": {"bounds": [2, 1]}}, ["inner.bounds: the first is above the second"]),
        ({"count": "x"}, ["count: expected a whole number, such as 1_000_000 (found 'x')"]),
        ({"count": 5.5, "inner": {"size": "y"}}, [
            "count: expected a whole number, such as 1_000_000 (found 5.5)",
            "inner.size: expected a number (found 'y')",
        ]),
    ],
)  # fmt: skip
def test_a_line_names_the_option_what_is_allowed_and_the_value(raw: dict, lines: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(raw)
    assert mistakes(Outer, caught.value) == lines


def test_names_are_spelt_as_in_the_input() -> None:
    with pytest.raises(RecipeError, match="^--inner/size: expected a number"):
        parse_named(Outer, {"inner": {"size": "y"}}, lambda path: "--" + "/".join(path), "the call")
    with pytest.raises(RecipeError, match="^the call cannot be carried out; 2 mistakes:\n  COUNT: "):
        parse_named(Outer, {"count": 0, "mode": "x"}, lambda path: path[0].upper(), "the call")
