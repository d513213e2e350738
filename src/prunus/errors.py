"""The errors that Prunus raises on purpose, as one tree.

    PrunusError            something the user can put right; the CLI prints it and exits with 2
    ├── RecipeError        a recipe, or a flag, says something impossible
    ├── ModelError         a model folder cannot be read, or is not what it says it is
    │   ├── ShapeError     a shape that cannot be cut from the teacher, or that no loader takes
    │   └── NotFiniteError a model that computes NaN or infinity
    ├── HubError           something on the hub, or a server, that cannot be reached from here
    ├── DataError          text that is missing, empty or not as described
    ├── ArtifactError      a result folder that is in the way, or damaged
    │   └── PlaceError     a disk that is full, or a folder that cannot be written to
    ├── TrainingError      a training run that must not go on (a loss that is not finite)
    ├── ExportError        a file for a device that does not say what its model says
    └── RunError           a run of which some steps failed, and the others are finished

Every message says what is wrong, where, the value found and what is allowed.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PrunusError(Exception):
    """Base of all errors that are the input's fault and not the program's."""


class RecipeError(PrunusError):
    """A recipe or a flag that cannot be carried out as written."""


class ModelError(PrunusError):
    """A model folder that is missing, incomplete or of an unknown family."""


class ShapeError(ModelError):
    """Dimensions that the teacher does not have, or that its family cannot load."""


class NotFiniteError(ModelError):
    """A model that computes NaN or infinity."""


class HubError(PrunusError):
    """A model or a dataset that is not here, and that the hub does not give; or a server that does not answer."""


class DataError(PrunusError):
    """A source of text that cannot be read, or holds too little."""


class ArtifactError(PrunusError):
    """A result folder that is in the way, or does not hold what its record says."""


class PlaceError(ArtifactError):
    """A disk that is full, or a folder that cannot be written to."""


class TrainingError(PrunusError):
    """Training that went wrong in a way that going on would only hide."""


class ExportError(PrunusError):
    """A file written for a device that, run there, does not say what the model says that it was made from."""


class RunError(PrunusError):
    """A run of which some steps failed, and the others are finished."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean `x`?)`` for the closest of `allowed`, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


class Mistakes:
    """Errors of checks that do not hang on each other, put into one message.

    Attributes:
        found: The errors so far.
    """

    def __init__(self) -> None:
        self.found: list[PrunusError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take down the error that a check ends with."""
        try:
            yield
        except PrunusError as error:
            self.found.append(error)

    def check(self, where: str) -> None:
        """End with what was found.

        Args:
            where: What the mistakes are in.

        Raises:
            PrunusError: The one error that was found, or a RecipeError that lists them.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            told = list(dict.fromkeys(map(str, self.found)))
            lines = "\n".join(f"  {text}" for text in told)
            raise RecipeError(f"{where} cannot be carried out; {len(told)} mistakes:\n{lines}")
