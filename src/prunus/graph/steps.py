"""The nodes of a plan: steps and external inputs."""

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
    """An external input, which no step makes: its value, and a digest of its content."""

    value: Any
    fingerprint: str


@dataclass(frozen=True)
class Step:
    """One step of a plan, and the folder that it writes.

    Attributes:
        subject: What it belongs to: `data`, `teacher` or a student's name; also the name of the parent folder.
        label: Its name there: its kind, or its kind and a suffix.
        config: The options; their class determines the package that does the work.
        inputs: Its inputs, by the names in the package's `Inputs`.
        root: The folder of the run.
        place: The folder of the result, if not `root/subject/label-key`.
    """

    subject: str
    label: str
    config: StepConfig
    inputs: Mapping[str, Step | Given]
    root: Path
    place: Path | None = None

    @property
    def kind(self) -> str:
        """The kind of step, which names the package that does the work."""
        return str(type(self.config).kind)

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.subject} {self.label}"

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that decides the result: kind, revision, options, inputs."""
        inputs = {name: given.fingerprint for name, given in self.inputs.items()}
        return digest([self.kind, self.config.revision, self.config.identity(), inputs])

    @cached_property
    def artifact(self) -> Artifact:
        """The folder that it writes."""
        key = self.fingerprint[:8]
        return Artifact(self.place or self.root / self.subject / f"{self.label}-{key}", key)

    @property
    def value(self) -> Path:
        """Its folder, which is the value of the input in steps that read it (compare `Given.value`)."""
        return self.artifact.path

    def state(self) -> str:
        """`done`, or the reason why the step must run."""
        if self.artifact.is_done():
            return "needs judging" if self.artifact.lacks_grades() else "done"
        if self.artifact.has_begun():
            return "incomplete"
        before = list(self.artifact.path.parent.glob(f"{self.label}-????????"))
        return "stale (settings or inputs changed)" if before else "to do"


def tokens_step(config: TokensConfig, sources: Given, tokenizer: Step | Given, label: str, root: Path) -> Step:
    """The step that tokenises some sources; `label` is its name in the run."""
    return Step("data", label, config, {"sources": sources, "tokenizer": tokenizer}, root)


def given_model(model: Located) -> Given:
    """An external model as an input."""
    return Given(model.folder.path, model.fingerprint())


def given_tokenizer(model: Located) -> Given:
    """An external model's tokenizer as an input."""
    return Given(model.folder.path, model.tokenizer_fingerprint())
