"""The records of a run, as the report reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from prunus.errors import ArtifactError
from prunus.files import read_json, read_json_lines, read_object
from prunus.report.forms import EVOLVED, FILES, RECORDS, ManifestForm, RecordForm

_SHOWN = 80  # characters of a value that a message repeats


@dataclass(frozen=True)
class Result:
    """One finished step.

    Attributes:
        subject: The model that the step belongs to: the teacher, a student or a reference.
        label: The step's name among the steps of its subject.
        kind: The kind of step.
        folder: The folder of its files.
        record: artifact.json.
        files: The contents of its other files that `forms.FILES` lists, by name, checked.
    """

    subject: str
    label: str
    kind: str
    folder: Path
    record: dict[str, Any]
    files: dict[str, Any] = field(default_factory=dict, repr=False)

    def json(self, name: str) -> Any:
        """A JSON file that the step wrote."""
        return self.files[name]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A JSONL file that the step wrote."""
        return list(self.files[name])


@dataclass(frozen=True)
class Run:
    """The finished steps of a run.

    Attributes:
        name: The recipe's name.
        recipe: The recipe.
        results: The finished steps.
        missing: The names of steps that are not done.
        damaged: A message for each step that is left out because its records cannot be used.
        failures: Steps that failed while others continued: name and message.
        teacher: The teacher's dimensions.
        origin: Metadata of the GGUF file that the teacher was made from; empty for other teachers.
    """

    name: str
    recipe: dict[str, Any]
    results: tuple[Result, ...]
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    teacher: dict[str, int] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Result]:
        """The finished steps of one kind, in order."""
        return [result for result in self.results if result.kind == kind]

    def maker(self, subject: str) -> str:
        """The student whose steps made a model: the nest of a size that was cut out, else the model itself."""
        own = self.find(subject, "cutout")
        return subject if own is None else subject.removesuffix(f"-{own.record['config']['shape']}")

    def find(self, subject: str, label: str) -> Result | None:
        """A finished step by its names."""
        return next((r for r in self.results if (r.subject, r.label) == (subject, label)), None)


def load_run(root: Path) -> Run:
    """Read the manifest of a run and the records of its finished steps.

    A step whose records are damaged is left out, and named in `damaged`.

    Raises:
        ArtifactError: The folder is not that of a run, or run.json is damaged.
    """
    manifest = root / "run.json"
    if not manifest.is_file():
        raise ArtifactError(f"{root}: is not the folder of a run: it has no run.json, which `prunus run` writes")
    facts = read_object(manifest, ArtifactError)
    check(facts, ManifestForm, str(manifest))
    results, missing, damaged = [], [], []
    for step in facts["steps"]:
        name = f"{step['subject']} {step['label']}"
        if not (root / step["folder"] / "artifact.json").is_file():
            missing.append(name)
            continue
        try:
            results.append(_result(root / step["folder"], step))
        except ArtifactError as error:
            damaged.append(f"{name}: {error}")
    return Run(
        name=facts["name"],
        recipe=facts["recipe"],
        results=tuple(results),
        missing=tuple(missing),
        damaged=tuple(damaged),
        failures=tuple((failure["step"], failure["message"]) for failure in facts.get("failures", ())),
        teacher=facts.get("teacher", {}),
        origin=facts.get("origin", {}),
    )


def check(value: Any, form: Any, where: str) -> None:
    """Check that a value has the form that the report reads.

    Args:
        value: A value from JSON.
        form: A class of `forms`, or another type that pydantic can check.
        where: The file, for the message.

    Raises:
        ArtifactError: The value has another form: names the key, the value, and what is expected.
    """
    try:
        TypeAdapter(form).validate_python(value)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "dict[")))
        found = repr(first["input"])
        found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
        raise ArtifactError(f"{where}: damaged: {place or 'the whole'}: {first['msg']}; found {found}") from None
    except UnicodeEncodeError:  # from a message that repeats a name
        raise ArtifactError(f"{where}: damaged: a name contains a lone surrogate, which is not a character") from None


def _result(folder: Path, step: dict[str, Any]) -> Result:
    """A finished step with its files."""
    kind = step["kind"]
    record = read_object(folder / "artifact.json", ArtifactError)
    check(record, RECORDS.get(kind, RecordForm), str(folder / "artifact.json"))
    forms = FILES.get(kind, {})
    if kind == "merge" and record["config"]["evolve"]["trials"]:
        forms = EVOLVED
    files: dict[str, Any] = {}
    for pattern, form in forms.items():
        names = sorted(folder.glob(pattern)) if "*" in pattern else [folder / pattern]
        files |= {file.relative_to(folder).as_posix(): _read(file, form) for file in names}
    return Result(step["subject"], step["label"], kind, folder, record, files)


def _read(file: Path, form: Any) -> Any:
    if file.suffix != ".jsonl":
        value = read_json(file, ArtifactError)
        check(value, form, str(file))
        return value
    lines = list(read_json_lines(file, ArtifactError))
    for number, line in enumerate(lines, start=1):
        check(line, form, f"{file}, line {number}")
    return lines
