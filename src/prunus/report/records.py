"""The records of a run, as the report reads them: what the steps wrote down, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import ArtifactError


@dataclass(frozen=True)
class Result:
    """One finished step."""

    subject: str
    label: str
    kind: str
    folder: Path
    record: dict[str, Any]

    def json(self, name: str) -> Any:
        """A JSON file that the step wrote."""
        return json.loads((self.folder / name).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A JSONL file that the step wrote."""
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]


@dataclass(frozen=True)
class Run:
    """A run as far as it is finished."""

    name: str
    recipe: dict[str, Any]
    results: tuple[Result, ...]
    missing: tuple[str, ...]
    failures: tuple[tuple[str, str], ...] = ()
    """The steps that failed, each with the reason."""

    def of_kind(self, kind: str) -> list[Result]:
        """The finished steps of one kind, in order."""
        return [result for result in self.results if result.kind == kind]

    def find(self, subject: str, label: str) -> Result | None:
        """A finished step by its names."""
        return next((r for r in self.results if (r.subject, r.label) == (subject, label)), None)


def load_run(root: Path) -> Run:
    """Read the manifest of a run and the records of its finished steps.

    Raises:
        ArtifactError: The folder holds no run, or a record is damaged.
    """
    manifest = root / "run.json"
    if not manifest.is_file():
        raise ArtifactError(f"{root}: is no folder of a run: there is no run.json; `prunus run` makes it")
    facts = _json(manifest)
    results, missing = [], []
    for step in facts["steps"]:
        record = root / step["folder"] / "artifact.json"
        if record.is_file():
            results.append(Result(step["subject"], step["label"], step["kind"], record.parent, _json(record)))
        else:
            missing.append(f"{step['subject']} {step['label']}")
    failures = tuple((failure["step"], failure["message"]) for failure in facts.get("failures", ()))
    return Run(facts["name"], facts["recipe"], tuple(results), tuple(missing), failures)


def _json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ArtifactError(f"{file}: damaged: {error}") from None
    return value
