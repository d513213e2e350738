"""The errors that Prunus raises on purpose, as one tree.

    PrunusError            a mistake that the user can correct; the CLI prints it and exits with 2
    ├── RecipeError        a recipe or a flag is invalid
    ├── ModelError         a model folder cannot be read, or does not match its own config
    │   ├── ShapeError     a shape that cannot be cut from the teacher, or that transformers cannot load
    │   └── NotFiniteError a model that computes NaN or infinity
    ├── HubError           something on the hub, or a server, cannot be reached
    ├── DataError          text that is missing, empty or not as described
    ├── ArtifactError      a result folder is in the way, or damaged
    │   └── PlaceError     a full disk, or a folder that is not writable
    ├── TrainingError      training that must not continue (a loss that is not finite)
    ├── ExportError        an exported file whose outputs differ from its model's
    └── RunError           a run in which some steps failed and the others finished

Every message says what is wrong, where, the value and what is allowed.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PrunusError(Exception):
    """Base of all errors whose cause is the input, not the program."""


class RecipeError(PrunusError):
    """A recipe or a flag that cannot be carried out as written."""


class ModelError(PrunusError):
    """A model folder that is missing, incomplete or of an unknown family."""


class ShapeError(ModelError):
    """Dimensions that the teacher does not have, or that its family cannot load."""


class NotFiniteError(ModelError):
    """A model that computes NaN or infinity."""


class HubError(PrunusError):
    """A model or dataset that is neither on this machine nor available from the hub; or a server without an answer."""


class DataError(PrunusError):
    """A source of text that cannot be read, or holds too little."""


class ArtifactError(PrunusError):
    """A result folder that is in the way, or whose content does not match its record."""


class PlaceError(ArtifactError):
    """A full disk, or a folder that is not writable."""


class TrainingError(PrunusError):
    """Training that failed in a way that continuing would only hide."""


class ExportError(PrunusError):
    """An exported file whose outputs differ from those of its model."""


class RunError(PrunusError):
    """A run in which some steps failed and the others finished."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean `x`?)`` for the closest of `allowed`, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


def among(word: str, allowed: Iterable[str], label: str = "allowed", everything: str = "") -> str:
    """The end of a message about an unknown word: the closest of `allowed`, then `allowed` itself.

    Of more than eight, at most five are listed, those that are spelt most like the word, and the others counted.

    Args:
        word: What the input has.
        allowed: What it may have.
        label: What introduces the list.
        everything: Where all of them are listed, such as a command with `--help`; part of a shortened list only.

    Returns:
        Such as `` (did you mean `width`?); allowed: width, depth``.
    """
    names = list(allowed)
    more = ""
    if len(names) > _LISTED:
        shown = difflib.get_close_matches(word, names, n=_NEAREST, cutoff=0.5) or names[:_NEAREST]
        more = f" and {len(names) - len(shown)} more" + (f" (all: {everything})" if everything else "")
        names = shown
    return f"{nearest(word, names)}; {label}: {', '.join(names)}{more}"


_LISTED, _NEAREST = 8, 5


class Mistakes:
    """Collects the errors of independent checks into one message.

    Attributes:
        errors: The errors so far.
    """

    def __init__(self) -> None:
        self.errors: list[PrunusError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Catch and store the error of a check."""
        try:
            yield
        except PrunusError as error:
            self.errors.append(error)

    def check(self, where: str) -> None:
        """Raise the collected errors, if there are any.

        Args:
            where: The source of the mistakes, for the message.

        Raises:
            PrunusError: The only error, or a RecipeError that lists them all.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            texts = list(dict.fromkeys(map(str, self.errors)))
            lines = "\n".join(f"  {text}" for text in texts)
            raise RecipeError(f"{where} cannot be carried out; {len(texts)} mistakes:\n{lines}")
