"""The recipe: one teacher, any number of students, and the options of every step. Typed, frozen, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from prunus.config import MAX_NAME, Config, Location, Seed, parse
from prunus.data.config import DataConfig
from prunus.environment import expand
from prunus.errors import RecipeError
from prunus.models.shape import PRUNABLE
from prunus.pipeline.search.config import ShapeSearch
from prunus.runtime import Runtime
from prunus.steps.align.config import AlignConfig
from prunus.steps.correct.config import CorrectConfig
from prunus.steps.create.config import CreateConfig
from prunus.steps.distill.config import DistillConfig, QatConfig
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.expand.config import ExpandConfig
from prunus.steps.export.config import ExportConfig
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.merge.config import MergedConfig
from prunus.steps.prune.config import PruneConfig
from prunus.steps.score.config import ScoreConfig
from prunus.steps.targets.config import KeptConfig
from prunus.yaml12 import read_yaml

SEEDED = ("correct", "score", "generate", "distill", "qat", "evaluate", "export")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RESERVED = ("teacher", "data", "search")


class TeacherConfig(Config):
    """The model that students are made from."""

    path: Location | None = Field(default=None, min_length=1)
    """Local folder, model id on the hub, GGUF file, or `builtin:sapling`."""
    revision: str | None = None
    """Commit of a model on the hub. If unset: the newest."""
    config: Location | None = None
    """A config.json to plan with while the model itself is not available."""
    create: CreateConfig | None = None
    """Create a new teacher instead. Its random weights are then trained by `correct`."""
    expand: ExpandConfig | None = None
    """Add layers or neurons first. They change no output until `correct` or `align` trains them."""
    align: tuple[AlignConfig, ...] = ()
    """Alignment of the teacher itself, stage by stage: after its correction and before anything else."""

    @model_validator(mode="after")
    def _one_of_two(self) -> TeacherConfig:
        if (self.path is None) == (self.create is None):
            raise ValueError("give either path or create")
        if self.create is not None and self.expand is not None:
            raise ValueError(
                "expand: cannot be combined with create; set the final size in create, or give a path to expand"
            )
        return self


class StudentConfig(Config):
    """One student. Unset options of `distill` and `qat`, and an unset `align`, are inherited from the recipe."""

    prune: PruneConfig = PruneConfig()
    """What to cut, and how."""
    merge: MergedConfig | None = None
    """Merge it from other students instead. It is then trained only by its own `distill`, `align` and `qat`."""
    distill: DistillConfig
    """How it is distilled."""
    align: tuple[AlignConfig, ...] = ()
    """Alignment after distillation, stage by stage."""
    qat: QatConfig = QatConfig()
    """A last, short distillation for the quantised file."""


class Recipe(Config):
    """A whole run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_NAME)
    """Name in the report. If unset: the file's name."""
    seed: Seed = 0
    """Seed of every step that sets no seed of its own."""
    teacher: TeacherConfig
    """The model that students are made from."""
    data: DataConfig
    """Text to train and to evaluate on."""
    correct: CorrectConfig = CorrectConfig()
    """Teacher correction. Off unless `tokens` is set."""
    score: ScoreConfig = ScoreConfig()
    """Scoring of layers, channels, heads, neurons and experts."""
    generate: GenerateConfig = GenerateConfig()
    """Text written by the teacher, for students with `distill.data: teacher`."""
    targets: KeptConfig = KeptConfig()
    """Which of the teacher's predictions are stored, for students with `distill.targets: cached`."""
    search: ShapeSearch | None = None
    """Search for a shape under a budget, for students with `prune: {shape: search.best}`."""
    students: dict[str, StudentConfig] = Field(min_length=1)
    """The students, by name."""
    distill: DistillConfig
    """Distillation. Every student inherits the options that it does not set."""
    align: tuple[AlignConfig, ...] = ()
    """Alignment, stage by stage, for every student that sets no `align`."""
    qat: QatConfig = QatConfig()
    """Quantisation-aware training of every student at the end, for one of the formats of `export`. Off unless `tokens`
    is set. Every student inherits the options that it does not set."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Evaluation."""
    export: ExportConfig = ExportConfig()
    """Export of every student to files that run on a device. Off unless `formats` is set."""
    runtime: Runtime = Runtime()
    """Where and how work is done. Not part of any result's fingerprint."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, raw: Any) -> Any:
        """Copy the recipe's seed to every step, and its `distill` and `qat` to every student."""
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        seed = {"seed": raw["seed"]} if "seed" in raw else {}
        if "teacher" in raw:
            raw["teacher"] = _teacher(raw["teacher"], seed)
        for key in SEEDED:
            if seed or key in raw:
                raw[key] = _over(seed, raw.get(key, {}))
        if isinstance(raw.get("search"), dict):
            raw["search"] = _search(raw["search"], raw.get("distill", {}), seed)
        if "align" in raw:
            raw["align"] = _stages(raw["align"], seed)
        if isinstance(raw.get("students"), dict):
            raw["students"] = {
                name: _student(student, raw.get("distill", {}), raw.get("align", ()), raw.get("qat", {}), seed)
                for name, student in raw["students"].items()
            }
            if all(map(_sets_tokens, raw["students"].values())):  # the recipe's own number would not be used
                raw["distill"] = _over({"tokens": 0}, raw.get("distill", {}))
        return raw

    @field_validator("students")
    @classmethod
    def _names(cls, students: dict[str, StudentConfig]) -> dict[str, StudentConfig]:
        for name, student in students.items():
            _check_nest(name, student, students)
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise ValueError(
                    f"{name!r:.80} is not a valid student name; allowed: letters, digits, - and _, but not {_RESERVED}"
                )
            if len(name) > MAX_NAME:
                raise ValueError(
                    f"{name!r:.80}...: {len(name)} characters; allowed: {MAX_NAME}, since the name becomes part of "
                    "folder names, which are limited to 255 bytes"
                )
            _check_like(name, student.prune, students)
            if student.merge is not None and student.prune.model_copy(update={"seed": 0}) != PruneConfig():
                raise ValueError(f"{name}: prune and merge cannot both be given; merged models are already cut")
        return students

    @model_validator(mode="after")
    def _searched(self) -> Recipe:
        for name, student in self.students.items():
            _check_searched(name, student.prune, self.search)
        return self


def _check_nest(name: str, student: StudentConfig, students: Mapping[str, StudentConfig]) -> None:
    """Refuse a nest whose sizes would have the name of another student, and a merge of a nest."""
    for size in student.prune.nest:
        made = f"{name}-{size}"
        if made in students:
            raise ValueError(f"{name}.prune.nest: {size} becomes the student {made!r}, which is another student's name")
        if len(made) > MAX_NAME:
            raise ValueError(
                f"{name}.prune.nest: {size} becomes the student {made!r:.80}..., a name of {len(made)} characters; "
                f"allowed: {MAX_NAME}"
            )
    merge = student.merge
    for entry in () if merge is None else (*merge.of, *((merge.base,) if merge.base else ())):
        if (other := students.get(entry.partition(".")[0])) is not None and other.prune.nest:
            raise ValueError(f"{name}.merge: {entry!r} is a nest, which has several sizes; allowed: other students")


def _check_searched(name: str, prune: PruneConfig, search: ShapeSearch | None) -> None:
    """Refuse `shape: search.best` without a search, or together with explicit sizes."""
    if prune.shape is None:
        return
    if search is None:
        raise ValueError(f"students.{name}.prune.shape: {prune.shape!r} needs a `search` in the recipe")
    given = [key for key in (*PRUNABLE, "like") if getattr(prune, key) is not None]
    given += ["via"] if prune.via else []
    if given:
        raise ValueError(
            f"students.{name}.prune: {given[0]} and shape cannot both be given; shape takes its sizes from the search"
        )


def _check_like(name: str, prune: PruneConfig, students: Mapping[str, StudentConfig]) -> None:
    """Refuse a `like` that names no student with a shape, or that comes together with explicit sizes."""
    if prune.like is None:
        return
    others = [
        other
        for other, config in students.items()
        if config.prune.like is None and config.merge is None and not config.prune.nest and other != name
    ]
    if prune.like not in others:
        raise ValueError(f"{name}.prune.like: {prune.like!r} is not another student with sizes; allowed: {others}")
    given = [key for key in PRUNABLE if getattr(prune, key) is not None]
    if given:
        raise ValueError(
            f"{name}.prune: {given[0]} and like cannot both be given; like takes the shape of {prune.like!r}"
        )


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a recipe's YAML, with `${NAME}` replaced from the environment.

    Raises:
        RecipeError: The file is missing or not YAML, a key is repeated, or a variable is not set.
    """
    raw = read_yaml(file, RecipeError)
    if not isinstance(raw, dict):
        raise RecipeError(f"{file}: expected a mapping with teacher, data, students and so on, got {raw!r:.60}")
    return {key: _expand(value, f"{file}: {key}") for key, value in {"name": file.stem, **raw}.items()}


def load_recipe(file: Path | str) -> Recipe:
    """Read and validate a recipe.

    Raises:
        RecipeError: Lists everything that is wrong.
    """
    return parse(Recipe, read_recipe(Path(file)), str(file))


def _student(student: Any, distill: Any, align: Any, qat: Any, seed: dict[str, Any]) -> Any:
    if student is None:
        student = {}
    if not isinstance(student, dict):
        return student
    if student.get("merge") is not None:  # it inherits no training: its models are already trained
        distill, align, qat = _over(distill, {"tokens": 0}), (), _over(qat, {"tokens": 0})
        student = {**student, "merge": _over(seed, student["merge"])}
    return {
        **student,
        "prune": _over(seed, student.get("prune", {})),
        "distill": _over(_over(seed, distill), student.get("distill", {})),
        "align": _stages(student.get("align", align), seed),
        "qat": _over(_over(seed, qat), student.get("qat", {})),
    }


def _sets_tokens(student: Any) -> bool:
    """Whether a student, with the options that it inherits, says how many tokens it is distilled on."""
    return isinstance(student, dict) and isinstance(student["distill"], dict) and "tokens" in student["distill"]


def _search(search: dict[str, Any], distill: Any, seed: dict[str, Any]) -> dict[str, Any]:
    """Options of the search, with the recipe's `distill` as defaults, except for what concerns the final student."""
    own = ("tokens", "targets", "data", "quantise")
    how = {key: value for key, value in distill.items() if key not in own} if isinstance(distill, dict) else {}
    prune = _over(seed, search.get("prune", {}))
    return {**seed, **search, "prune": prune, "distill": _over(_over(seed, how), search.get("distill", {}))}


def _stages(stages: Any, seed: dict[str, Any]) -> Any:
    """Stages, with the recipe's seed where they set none. A bare method name becomes a stage."""
    if not isinstance(stages, (list, tuple)):
        return stages
    return [_over(seed, {"method": stage} if isinstance(stage, str) else stage) for stage in stages]


def _over(below: Any, above: Any) -> Any:
    """`above`, with missing keys from `below`. Anything but a mapping is returned for validation to refuse."""
    return {**below, **above} if isinstance(below, Mapping) and isinstance(above, Mapping) else above


def _teacher(teacher: Any, seed: dict[str, Any]) -> Any:
    if isinstance(teacher, str):
        return {"path": teacher}
    if not isinstance(teacher, dict):
        return teacher
    made = {key: _over(seed, teacher[key]) for key in ("create", "expand") if key in teacher}
    aligned = {"align": _stages(teacher["align"], seed)} if "align" in teacher else {}
    return {**teacher, **made, **aligned}


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, f"{where}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
    return expand(value, where) if isinstance(value, str) else value
