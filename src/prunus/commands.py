"""What each command takes, as one class a command, and what it does. The options are the steps' own config classes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import ValidationError
from tyro.conf import AvoidSubcommands, Positional, arg

from prunus import processes
from prunus.config import StepConfig, explain, parse
from prunus.console import Console
from prunus.correct.config import CorrectConfig
from prunus.data.config import Source, TokensConfig
from prunus.data.sources import check_source
from prunus.distill.config import DistillConfig
from prunus.errors import RecipeError
from prunus.evaluate.config import EvaluateConfig
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located, locate_model
from prunus.pipeline.override import override
from prunus.pipeline.plan import (
    Given,
    Step,
    check_cut,
    check_length,
    check_trackers,
    given_model,
    given_sources,
    given_task,
    given_tokenizer,
    make_plan,
    tokens_step,
)
from prunus.pipeline.recipe import Recipe, read_recipe
from prunus.pipeline.run import execute as execute_step
from prunus.pipeline.run import run_plan
from prunus.prune.config import PruneConfig
from prunus.runtime import Runtime
from prunus.score.config import ScoreConfig
from prunus.show import show_inspection, show_plan, show_results

Flat = arg(name="")


@dataclass(kw_only=True)
class Run:
    """Carry out a recipe. Every option of the recipe can be set here as well; what is done already is kept."""

    recipe: Annotated[AvoidSubcommands[Recipe], Flat]
    out: str | None = None
    """The folder of the run; `runs/NAME` if not given."""
    dry_run: bool = False
    """Show the plan and do nothing."""

    def __call__(self, console: Console) -> None:
        """Plan, then do, then report."""
        plan = make_plan(self.recipe, Path(self.out or f"runs/{self.recipe.name}"), tentative=self.dry_run)
        if self.dry_run:
            show_plan(plan, console)
            return
        run_plan(plan, console)
        if processes.rank():
            return
        report = _report(plan.root, None)
        show_results(plan.root, console)
        console.say(f"report: {report}")


@dataclass(kw_only=True)
class Plan(Run):
    """Check a recipe and show what it would do: the steps, the students' shapes, tokens, FLOPs, memory and disk."""

    dry_run: Annotated[bool, tyro.conf.Suppress] = True


@dataclass(kw_only=True)
class Inspect:
    """Show a model's shape, parameters, bytes, KV cache and FLOPs, from its config and headers alone."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A model's folder, or its id on the hub."""
    revision: str | None = None
    """The commit on the hub."""
    context: int | None = None
    """Tokens of context to count FLOPs at; 4096, or the model's longest if that is less."""
    json: bool = False
    """Print JSON."""

    def __call__(self, console: Console) -> None:
        """Read and show."""
        if self.context is not None and self.context < 1:
            raise RecipeError(f"--context: {self.context}; it must be at least 1")
        folder = locate_model(self.model, self.revision, "MODEL", weights=False).folder
        show_inspection(folder, self.context, self.json, console)


@dataclass(kw_only=True)
class Single:
    """What the commands of one step share."""

    out: str
    """The folder to write to. Tokenised text is kept beside it, in `data`, for other commands to use."""
    runtime: Runtime = field(default_factory=Runtime)

    def do(self, config: StepConfig, inputs: Mapping[str, Step | Given], console: Console) -> None:
        """Do one step and the tokenising before it, and show what came out."""
        check_trackers(self.runtime.trackers)
        model = inputs.get("model") or inputs["student"]
        if isinstance(model, Given) and hasattr(config, "sequence_length"):
            check_length(config.kind, config.sequence_length, ModelFolder(model.value).context)
        out = Path(self.out)
        step = Step(config.kind, config.kind, config, inputs, out.parent, place=out)
        before = [given for given in inputs.values() if isinstance(given, Step)]
        for part in [*before, step]:
            console.heading(part.label, f"{part.artifact.path}  {part.state()}")
            execute_step(part, self.runtime, console)
        metrics = json.loads((out / "artifact.json").read_text())["metrics"]
        console.table("", ["figure", "value"], [[name, f"{value:.6g}"] for name, value in metrics.items()])


@dataclass(kw_only=True)
class Text:
    """Text for a command of one step."""

    corpus: tuple[str, ...]
    """Files of text (.jsonl, .json, .csv, .parquet, .txt), datasets on the hub, or `builtin:python`."""
    column: str = "text"
    """The column that holds the text."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""

    def stream(self, model: Located, label: str, out: str) -> Step:
        """The step that tokenises it with the tokenizer of `model`."""
        if not self.corpus:
            raise RecipeError("--corpus: names no file")
        sources = tuple(parse(Source, {"path": path, "column": self.column}, "--corpus") for path in self.corpus)
        for source in sources:
            check_source(source, "--corpus")
        config = TokensConfig(append_eos=self.append_eos)
        return tokens_step(config, given_sources(sources, "--corpus"), given_tokenizer(model), label, Path(out).parent)


@dataclass(kw_only=True)
class Correct(Single):
    """Train a teacher on with your text, by plain cross-entropy."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The teacher's folder, or its id on the hub."""
    text: Annotated[Text, Flat]
    config: Annotated[CorrectConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would leave the teacher as it is")
        model = _model(self.model)
        stream = self.text.stream(model, "corpus", self.out)
        self.do(self.config, {"model": given_model(model), "tokens": stream}, console)


@dataclass(kw_only=True)
class Score(Single):
    """Score the layers, channels, heads and neurons of a model by forward passes over your text."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, or its id on the hub."""
    text: Annotated[Text, Flat]
    config: Annotated[ScoreConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        model = _model(self.model)
        stream = self.text.stream(model, "corpus", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream, **given_task(self.config)}
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Prune(Single):
    """Cut a student out of a model, streaming: the model is never built."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, or its id on the hub."""
    scores: str | None = None
    """The folder that `prunus score` wrote; not needed where chance decides."""
    corpus: tuple[str, ...] = ()
    """Text to cut the vocabulary by, for --vocab-size, or to heal by, for --heal."""
    column: str = "text"
    """The column that holds the text."""
    config: Annotated[PruneConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if self.config.like is not None:
            raise RecipeError(f"--like: {self.config.like!r} names a student of a recipe, and here there is none")
        reads_text = self.config.vocab_size is not None or self.config.heal.asked
        if reads_text and not self.corpus:
            raise RecipeError("--corpus: missing; --vocab-size keeps the tokens that a text has most, --heal reads it")
        model = _model(self.model)
        target = self.config.target(model.folder.shape, "prune")
        check_cut(self.config, model.folder.shape, target, "prune")
        read = self.config.statistics(model.folder.shape, target)
        if read and self.scores is None:
            names = ", ".join(sorted(read))
            raise RecipeError(f"--scores: missing; `prunus score` makes them, and this cut reads {names}")
        inputs: dict[str, Step | Given] = {"model": given_model(model)}
        if reads_text:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "corpus", self.out)
        if self.scores is not None:
            inputs["scores"] = _finished(Path(self.scores))
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Distill(Single):
    """Distil a teacher into a student, with your text."""

    student: Annotated[Positional[str], arg(metavar="STUDENT")]
    """The student's folder."""
    teacher: str
    """The teacher's folder, or its id on the hub."""
    text: Annotated[Text, Flat]
    config: Annotated[DistillConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would leave the student as it is")
        student, teacher = _model(self.student), _model(self.teacher)
        stream = self.text.stream(teacher, "corpus", self.out)
        inputs: dict[str, Step | Given] = {
            "student": given_model(student),
            "teacher": given_model(teacher),
            "tokens": stream,
        }
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Evaluate(Single):
    """Measure a model on held-out text, beside its teacher."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, or its id on the hub."""
    teacher: str | None = None
    """The teacher to hold it against."""
    text: Annotated[Text, Flat]
    config: Annotated[EvaluateConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        model = _model(self.model)
        stream = self.text.stream(model, "held_out", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream}
        if self.teacher is not None:
            inputs["teacher"] = given_model(_model(self.teacher))
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Report:
    """Write the report of a run as one HTML page, and print its table."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """The folder of the run."""
    out: str | None = None
    """The file to write; `report.html` in the run's folder if not given."""

    def __call__(self, console: Console) -> None:
        """Read the records, write the page."""
        report = _report(Path(self.run), self.out)
        show_results(Path(self.run), console)
        console.say(f"report: {report}")


COMMANDS = {
    "run": Run, "plan": Plan, "inspect": Inspect, "correct": Correct, "score": Score, "prune": Prune,
    "distill": Distill, "evaluate": Evaluate, "report": Report,
}  # fmt: skip


def execute(name: str, arguments: list[str]) -> None:
    """Parse the options of one command and do it.

    Raises:
        PrunusError: The input cannot be used.
        SystemExit: Options cannot be parsed (2), or help was asked for (0).
    """
    command = COMMANDS[name]
    console = Console(quiet=processes.rank() > 0)
    if issubclass(command, Run):
        _with_recipe(command, name, arguments)(console)
    else:
        _parse(command, f"prunus {name}", arguments)(console)


def _with_recipe(command: type[Run], name: str, arguments: list[str]) -> Run:
    """Parse `RECIPE [options]`: the flags' defaults are the recipe's values, and what is given goes into its YAML.

    The flags are put into the raw recipe, which is then validated as a whole, so that a flag is inherited (by students,
    from `seed`) exactly as the same line in the file would be.
    """
    usage = f"prunus {name} RECIPE"
    if not arguments or arguments[0].startswith("-"):
        if arguments and arguments[0] in ("-h", "--help"):
            print(f"usage: {usage} [OPTIONS]\n\n{command.__doc__}\n")
            print(f"{usage} --help lists the options, with that recipe's values.")
            sys.exit(0)
        raise RecipeError(f"which recipe? usage: {usage} [OPTIONS]")
    file, *flags = arguments
    raw = read_recipe(Path(file))
    recipe = parse(Recipe, raw, file)
    given: Run = _parse(command, usage, flags, default=command(recipe=recipe))
    names = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    override(raw, given.recipe.model_dump(mode="json"), names)
    where = f"{file} with {' '.join(flags)}" if flags else file
    return command(recipe=parse(Recipe, raw, where), out=given.out, dry_run=given.dry_run)


def _parse(command: Any, usage: str, arguments: list[str], default: Any = None) -> Any:
    options = {} if default is None else {"default": default}
    try:
        return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None


def _model(path: str) -> Located:
    model = locate_model(path, None, "MODEL")
    model.folder.check()
    return model


def _finished(folder: Path) -> Given:
    """The result of an earlier command as an input."""
    record = folder / "artifact.json"
    if not record.is_file():
        raise RecipeError(f"{folder}: is no finished result: there is no artifact.json")
    return Given(folder, str(json.loads(record.read_text())["key"]))


def _report(root: Path, out: str | None) -> Path:
    from prunus.report.step import write_report

    return write_report(root, Path(out) if out else root / "report.html")
