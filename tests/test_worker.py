"""An object in a child process: results, errors, output, and a process that ends."""

import os
import sys
from collections.abc import Iterator

import pytest

from prunus.errors import DataError, ExportError
from prunus.worker import Child, serve


class Basket:
    """The object that these tests have in the child."""

    def __init__(self, *fruit: str) -> None:
        if "stone" in fruit:
            raise DataError("a stone is no fruit")
        self.fruit = list(fruit)

    def add(self, name: str) -> int:
        print("this is not a result")
        self.fruit.append(name)
        return len(self.fruit)

    def all(self) -> list[str]:
        return self.fruit

    def refuse(self) -> None:
        raise DataError("no more fruit")

    def crash(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        os._exit(3)


@pytest.fixture
def basket() -> Iterator[Child]:
    with Child(__name__, "the basket", "plum") as child:
        yield child


def test_calls_return_what_the_object_returns(basket: Child) -> None:
    """What a method prints is not mixed with its result, and the object keeps its state."""
    assert basket.call("add", "cherry") == 2
    assert basket.call("all") == ["plum", "cherry"]


def test_errors_about_the_input_are_raised_here_and_work_continues(basket: Child) -> None:
    with pytest.raises(DataError, match="^no more fruit$"):
        basket.call("refuse")
    assert basket.call("add", "almond") == 2


def test_an_error_of_the_constructor_is_raised_here() -> None:
    with pytest.raises(DataError, match="^a stone is no fruit$"):
        Child(__name__, "the basket", "stone")


@pytest.mark.parametrize(
    ("printed", "message"), [("GGML_ASSERT: n < 0\nmore", "GGML_ASSERT: n < 0"), ("bye", "exit code 3")]
)
def test_a_process_that_ends_is_an_error_with_its_last_words(basket: Child, printed: str, message: str) -> None:
    with pytest.raises(ExportError, match=f"^the basket: its process ended unexpectedly: {message}$"):
        basket.call("crash", printed)
    with pytest.raises(ExportError, match="ended unexpectedly"):
        basket.call("all")


def test_peak_memory_is_that_of_the_child(basket: Child) -> None:
    peak = basket.peak_bytes()
    assert peak is None or 1_000_000 < peak < 1_000_000_000


def test_the_process_ends_with_the_context() -> None:
    with Child(__name__, "the basket") as child:
        process = child._process
        assert process.poll() is None
    assert process.poll() is not None


if __name__ == "__main__":
    serve(Basket)
