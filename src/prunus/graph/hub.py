"""What a plan takes from outside: models and text, from this machine or from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from prunus.data.config import SourceRef
from prunus.data.sources import sources_fingerprint
from prunus.errors import HubError
from prunus.fingerprint import digest
from prunus.graph.steps import Given, given_model
from prunus.models.locate import Located


class FindModel(Protocol):
    """How a model is found by its path; `pipeline.unpacking.find_model` is the one there is."""

    def __call__(self, path: str, revision: str | None, where: str, weights: bool = True) -> Located:
        """The model; without `weights` its config and tokenizer are enough."""


@dataclass(frozen=True)
class Hub:
    """Finds models and text. A preview fetches no weights, and notes what the hub does not give.

    Attributes:
        find: How models are found.
        preview: Whether a plan is all that is made. Otherwise what cannot be fetched is an error.
        missing: What could not be fetched, as messages; only of a preview.
    """

    find: FindModel
    preview: bool = False
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def may_miss(self) -> Iterator[None]:
        """Do what needs the hub; in a preview note what it does not give, and go on behind the block.

        Raises:
            HubError: The hub does not give something, and this is no preview.
        """
        try:
            yield
        except HubError as error:
            if not self.preview:
                raise
            if str(error) not in self.missing:
                self.missing.append(str(error))

    def model(self, path: str, where: str, revision: str | None = None, check: bool = False) -> Located:
        """Find a model.

        Args:
            path: A folder, a GGUF file, or an id on the hub.
            where: The name of the option, for messages.
            revision: The commit on the hub.
            check: Whether its weights' headers are compared with its config; a preview has none of the hub's.

        Raises:
            ModelError: It is not there, or cannot be used.
            HubError: The hub does not give it.
        """
        model = self.find(path, revision, where, weights=not self.preview)
        if check and not (self.preview and model.source):
            model.folder.check()
        return model

    def given_model(self, path: str, where: str, check: bool = False) -> Given:
        """A model as an input; in a preview by name alone where the hub does not give it."""
        with self.may_miss():
            return given_model(self.model(path, where, check=check))
        return Given(path, path)

    def given_sources(self, sources: Sequence[SourceRef], where: str) -> Given:
        """Text as an input; in a preview by name alone where the hub does not give it."""
        try:
            return Given(sources, sources_fingerprint(sources, where))
        except HubError:
            if not self.preview:
                raise
            return Given(sources, digest([[source.identity(), source.path] for source in sources]))
