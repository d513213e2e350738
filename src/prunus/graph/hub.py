"""The external inputs of a plan: models and text, from this machine or from the hub."""

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
    """A function that locates a model by its path; `pipeline.unpacking.find_model` implements it."""

    def __call__(self, path: str, revision: str | None, where: str, weights: bool = True) -> Located:
        """Locate the model; without `weights`, only its config and tokenizer are needed."""


@dataclass(frozen=True)
class Hub:
    """Locates models and text. A preview downloads no weights, and records what the hub does not provide.

    Attributes:
        find: Locates a model.
        preview: Whether only a plan is made. Otherwise a failed download is an error.
        missing: Messages about failed downloads; only in a preview.
    """

    find: FindModel
    preview: bool = False
    missing: list[str] = field(default_factory=list)

    @contextmanager
    def tolerate_missing(self) -> Iterator[None]:
        """Run a block that needs the hub; in a preview, record a failed download and continue after the block.

        Raises:
            HubError: A download failed, and this is not a preview.
        """
        try:
            yield
        except HubError as error:
            if not self.preview:
                raise
            if str(error) not in self.missing:
                self.missing.append(str(error))

    def model(self, path: str, where: str, revision: str | None = None, check: bool = False) -> Located:
        """Locate a model.

        Args:
            path: A folder, a GGUF file, or an id on the hub.
            where: The name of the option, for messages.
            revision: The commit on the hub.
            check: Compare its weights' headers with its config; skipped in a preview for models on the hub.

        Raises:
            ModelError: It does not exist, or cannot be used.
            HubError: It cannot be fetched from the hub.
        """
        model = self.find(path, revision, where, weights=not self.preview)
        if check and not (self.preview and model.source):
            model.folder.check()
        return model

    def given_model(self, path: str, where: str, check: bool = False) -> Given:
        """A model as an input; in a preview, identified by name only if it cannot be fetched."""
        with self.tolerate_missing():
            return given_model(self.model(path, where, check=check))
        return Given(path, path)

    def given_sources(self, sources: Sequence[SourceRef], where: str) -> Given:
        """Text as an input; in a preview, identified by name only if it cannot be fetched."""
        try:
            return Given(sources, sources_fingerprint(sources, where))
        except HubError:
            if not self.preview:
                raise
            return Given(sources, digest([[source.identity(), source.path] for source in sources]))
