"""Shared by the commands that run one step: execution, options of text, models and results of earlier commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import arg

from prunus import distributed
from prunus.config import StepConfig, check_length, parse
from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.documents import check_source
from prunus.errors import RecipeError
from prunus.graph.hub import Hub
from prunus.graph.locks import lock_result
from prunus.graph.records import read_record
from prunus.graph.steps import Given, Step, given_tokenizer, tokens_step
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located
from prunus.models.shape import Shape
from prunus.pipeline.precision import settle
from prunus.pipeline.run import execute
from prunus.pipeline.unpacking import find_model
from prunus.runtime import Runtime
from prunus.training.plan import check_rank, check_runtime
from prunus.world.config import WORLD

_TASK_SEED = 101  # an unusual one, so that the models are unlikely to have trained on these conversations

HUB = Hub(find_model)
"""Source of models and text for these commands."""

Flat = arg(name="")
"""Marks a config whose options are the command's own flags."""


@dataclass(kw_only=True)
class Single:
    """What the commands of one step share."""

    out: str
    """Folder to write to. Tokenised text is stored next to it, in `data`, and reused by other commands."""
    runtime: Runtime = field(default_factory=Runtime)

    def do(self, config: StepConfig, inputs: Mapping[str, Step | Given], console: Console) -> None:
        """Run one step after the tokenising that it needs, and print its metrics."""
        check_runtime(self.runtime, [config])
        model = inputs.get("model") or inputs["student"]
        if isinstance(model, Given):
            shape, teacher = ModelFolder(model.value).shape, inputs.get("teacher")
            check_rank(config, shape, config.kind)
            above = ModelFolder(teacher.value).shape if isinstance(teacher, Given) else None
            config = config.with_defaults(shape.size(above))
            if hasattr(config, "sequence_length"):
                check_length(config.kind, config.sequence_length, shape.max_position_embeddings)
        before = [given for given in inputs.values() if isinstance(given, Step)]
        self.do_all([*before, Step(config.kind, config.kind, config, inputs, Path(self.out).parent)], console)

    def do_all(self, steps: Sequence[Step], console: Console) -> None:
        """Run some steps, and print the metrics of the last one, which writes to `--out`.

        Raises:
            ArtifactError: Another command writes to the same folder.
        """
        out = Path(self.out)
        shape = _shape_in(steps)
        runtime = self.runtime if shape is None else settle(self.runtime, shape, console)
        *before, last = steps
        last = replace(last, place=out)
        with lock_result(out) if distributed.rank() == 0 else nullcontext():
            for part in [*before, last]:
                console.heading(part.label, f"{part.artifact.path}  {part.state()}")
                execute(part, runtime, console)
        assert last.artifact.record is not None  # `execute` finished it
        metrics = last.artifact.record["metrics"]
        console.table("", ["figure", "value"], [[name, _figure(value)] for name, value in metrics.items()])


def _shape_in(steps: Sequence[Step]) -> Shape | None:
    """The shape of the model that the steps read: the teacher's if there is one."""
    for name in ("teacher", "model", "student"):
        for step in steps:
            given = step.inputs.get(name)
            if isinstance(given, Given):
                return ModelFolder(given.value).shape
    return None


def _figure(value: float) -> str:
    """Counts in full, measurements to six digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


@dataclass(kw_only=True)
class Text:
    """Text for a command of one step."""

    corpus: tuple[str, ...]
    """Text files (.jsonl, .json, .csv, .parquet, .txt), datasets on the hub, `builtin:python` or `builtin:world`."""
    column: str = "text"
    """Column that holds the text."""
    rows: Literal["text", "chat"] = "text"
    """What a row holds: `text`, or a conversation (`chat`), which is rendered by the model's chat template."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""

    def stream(self, model: Located, label: str, out: str) -> Step:
        """The step that tokenises the text with the tokenizer of `model`."""
        if not self.corpus:
            raise RecipeError("--corpus: empty; give at least one file or dataset")
        sources = sources_of(self.corpus, self.column, "--corpus", self.rows)
        for source in sources:
            check_source(source, "--corpus")
        config = TokensConfig(append_eos=self.append_eos)
        given = HUB.given_sources(sources, "--corpus")
        return tokens_step(config, given, given_tokenizer(model), label, Path(out).parent)


def flag_of(path: Sequence[str]) -> str:
    """How messages name an option: its flag, and which value of the flag, such as `--tasks rag`."""
    return " ".join([f"--{'-'.join(path[0].split('_'))}", *path[1:2]]) if path else ""


def sources_of(paths: tuple[str, ...], column: str, flag: str, rows: str = "text") -> tuple[Source, ...]:
    """The sources that a flag's paths name."""
    return tuple(parse(Source, {"path": path, "column": column, "rows": rows}, flag) for path in paths)


def conversations_of(tasks: Sequence[str]) -> dict[str, Any]:
    """The conversations with checks that `--tasks` names: NAME=DATA, or a skill of `builtin:world`."""
    found: dict[str, Any] = {}
    for task in tasks:
        name, _, data = task.partition("=")
        world = {"path": WORLD, "name": "chat", "world": {"mixture": {name: 1}, "seed": _TASK_SEED}}
        found[name] = data if data and data != WORLD else world
    return found


def located(path: str, where: str = "MODEL") -> Located:
    """The model of a command's argument or flag `where`.

    Raises:
        ModelError: It does not exist, or its headers do not match its config.
        HubError: The hub does not provide it.
    """
    return HUB.model(path, where, check=True)


def finished(folder: Path, flag: str, kind: str) -> Given:
    """The result of an earlier command, as an input of a step; its checksums are compared when it is read.

    Raises:
        RecipeError: There is none, or it is the result of another command.
        ArtifactError: Its record is damaged.
    """
    record = read_record(folder)
    if record is None:
        raise RecipeError(f"{flag}: {folder} is not a finished result: it has no artifact.json")
    if record.get("kind") != kind:
        raise RecipeError(f"{flag}: {folder} is the result of `prunus {record.get('kind')}`, expected `prunus {kind}`")
    return Given(folder, str(record["key"]))
