"""What a plan is made of: steps, and what comes to them from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prunus.config import StepConfig
from prunus.data.config import TokensConfig
from prunus.fingerprint import digest
from prunus.graph.artifact import Artifact
from prunus.models.locate import Located


@dataclass(frozen=True)
class Given:
    """An input from outside: what it is, and a digest of what it holds."""

    value: Any
    fingerprint: str


@dataclass(frozen=True)
class Step:
    """One piece of work and the folder that it makes.

    Attributes:
        subject: Whose it is: `data`, `teacher` or a student's name; also the folder above.
        label: What to call it there: its kind, or its kind and what is special about it.
        config: The options; their class says which room does the work.
        inputs: By the names of the room's `Inputs`.
        root: The folder of the run.
        place: Where the result stands, if not at `root/subject/label-key`.
    """

    subject: str
    label: str
    config: StepConfig
    inputs: Mapping[str, Step | Given]
    root: Path
    place: Path | None = None

    @property
    def kind(self) -> str:
        """The room that does it."""
        return str(type(self.config).kind)

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return f"{self.subject} {self.label}"

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that decides the result: kind, revision, options, inputs."""
        inputs = {name: given.fingerprint for name, given in self.inputs.items()}
        return digest([self.kind, self.config.revision, self.config.identity(), inputs])

    @cached_property
    def artifact(self) -> Artifact:
        """The folder that it makes."""
        key = self.fingerprint[:8]
        return Artifact(self.place or self.root / self.subject / f"{self.label}-{key}", key)

    @property
    def value(self) -> Path:
        """What other steps take in: its folder, as `Given` has what comes from outside."""
        return self.artifact.path

    def state(self) -> str:
        """`done`, or why it is to be done."""
        if self.artifact.is_done():
            return "needs judging" if self.artifact.has_holes() else "done"
        if self.artifact.has_begun():
            return "incomplete"
        before = list(self.artifact.path.parent.glob(f"{self.label}-????????"))
        return "stale (settings or inputs changed)" if before else "to do"


def tokens_step(config: TokensConfig, sources: Given, tokenizer: Step | Given, label: str, root: Path) -> Step:
    """The step that tokenises some sources, under the label that it shows."""
    return Step("data", label, config, {"sources": sources, "tokenizer": tokenizer}, root)


def given_model(model: Located) -> Given:
    """A model from outside as an input."""
    return Given(model.folder.path, model.fingerprint())


def given_tokenizer(model: Located) -> Given:
    """A model's tokenizer from outside as an input."""
    return Given(model.folder.path, model.tokenizer_fingerprint())
