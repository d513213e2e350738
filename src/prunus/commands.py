"""What each command takes, as one class a command, and what it does. The options are the steps' own config classes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from pydantic import ValidationError
from tyro.conf import AvoidSubcommands, Positional, arg

from prunus import processes
from prunus.align.config import AlignConfig
from prunus.config import explain, parse
from prunus.console import Console
from prunus.correct.config import CorrectConfig
from prunus.data.config import ChatSource
from prunus.device import Bench, Chat, Convert, Export, Publish, Serve
from prunus.distill.config import DistillConfig
from prunus.errors import PrunusError, RecipeError, RunError
from prunus.evaluate.check import check_chat, check_tasks
from prunus.evaluate.config import EvaluateConfig
from prunus.generate.config import GenerateConfig
from prunus.generate.prompts import check_prompts
from prunus.graph.records import read_record
from prunus.graph.steps import Given, Step, given_model, given_tokenizer
from prunus.merging import Merge
from prunus.models.folder import has_chat_template
from prunus.models.locate import Located
from prunus.options import page, spelled_out, words
from prunus.pipeline.aligning import Alignment
from prunus.pipeline.checks import check_cut, check_same_tokens
from prunus.pipeline.cutting import given_task
from prunus.pipeline.override import override, replace_at
from prunus.pipeline.plan import given_data, given_prompts, make_plan
from prunus.pipeline.recipe import Recipe, read_recipe
from prunus.pipeline.run import run_plan
from prunus.pipeline.unpacking import find_model
from prunus.prune.config import PruneConfig
from prunus.results import Report, Verify, show_report
from prunus.score.config import ScoreConfig
from prunus.seek import Search
from prunus.show import show_inspection, show_plan, show_preview
from prunus.single import Flat, Single, Text, finished, located, sources_of


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
        failed: RunError | None = None
        try:
            run_plan(plan, console)
        except RunError as error:
            failed = error
        try:
            if processes.rank() == 0:
                show_report(plan.root, None, console)
        except PrunusError as error:
            raise error if failed is None else RunError(f"{failed}\n  report: {error}") from None
        if failed is not None:
            raise failed


@dataclass(kw_only=True)
class Plan(Run):
    """Check a recipe and show what it would do: the steps, the students' shapes, tokens, FLOPs, memory and disk."""

    dry_run: Annotated[bool, tyro.conf.Suppress] = True


@dataclass(kw_only=True)
class Inspect:
    """Show a model's shape, parameters, bytes, KV cache and FLOPs, from its config and headers alone."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A model's folder, its id on the hub, or a GGUF file."""
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
        folder = find_model(self.model, self.revision, "MODEL", weights=False).folder
        show_inspection(folder, self.context, self.json, console)


@dataclass(kw_only=True)
class Correct(Single):
    """Train a teacher on with your text, by plain cross-entropy."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The teacher's folder, its id on the hub, or a GGUF file."""
    text: Annotated[Text, Flat]
    config: Annotated[CorrectConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would leave the teacher as it is")
        model = located(self.model)
        stream = self.text.stream(model, "corpus", self.out)
        self.do(self.config, {"model": given_model(model), "tokens": stream}, console)


@dataclass(kw_only=True)
class Score(Single):
    """Score the layers, channels, heads and neurons of a model by forward passes over your text."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, its id on the hub, or a GGUF file."""
    text: Annotated[Text, Flat]
    config: Annotated[ScoreConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        model = located(self.model)
        stream = self.text.stream(model, "corpus", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream, **given_task(self.config)}
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Prune(Single):
    """Cut a student out of a model, streaming: the model is never built."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, its id on the hub, or a GGUF file."""
    scores: str | None = None
    """The folder that `prunus score` wrote; not needed where chance decides."""
    corpus: tuple[str, ...] = ()
    """Text to cut the vocabulary by, for --vocab-size, or to heal by, for --heal and --importance.layers refit. With it
    the student is compared with its teacher after the cut (--check-samples)."""
    column: str = "text"
    """The column that holds the text."""
    config: Annotated[PruneConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if self.config.like is not None:
            raise RecipeError(f"--like: {self.config.like!r} names a student of a recipe, and here there is none")
        if self.config.reads_text and not self.corpus:
            raise RecipeError(
                "--corpus: missing; --vocab-size keeps the tokens that a text has most, and --heal and `refit` read it"
            )
        model = located(self.model)
        target = self.config.target(model.folder.shape, "prune")
        check_cut(self.config, model.folder.shape, target, "prune")
        read = self.config.statistics(model.folder.shape, target)
        if read and self.scores is None:
            names = ", ".join(sorted(read))
            raise RecipeError(f"--scores: missing; `prunus score` makes them, and this cut reads {names}")
        inputs: dict[str, Step | Given] = {"model": given_model(model)}
        if self.corpus and self.config.takes_text:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "corpus", self.out)
        if self.scores is not None:
            inputs["scores"] = finished(Path(self.scores), "--scores", ScoreConfig.kind)
        self.do(self.config.suited(target.size()), inputs, console)


@dataclass(kw_only=True)
class Generate(Single):
    """Let a teacher write text for its students to train on: it answers prompts, or goes on from your text."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The teacher's folder, its id on the hub, or a GGUF file."""
    corpus: tuple[str, ...] = ()
    """Text whose documents' openings it goes on from."""
    prompts: tuple[str, ...] = ()
    """Files or datasets of prompts to answer instead: a column of texts, or of lists of {role, content}."""
    column: str = "text"
    """The column that holds the text or the prompts."""
    config: Annotated[GenerateConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if bool(self.corpus) == bool(self.prompts):
            raise RecipeError("--corpus or --prompts: give one of the two: text to go on from, or prompts to answer")
        model = located(self.model)
        config = self.config.model_copy(update={"prompts": sources_of(self.prompts, self.column, "--prompts")})
        config.check_context(model.folder.context, config.kind)
        for source in config.prompts:
            check_prompts(source, "--prompts", has_chat_template(model.folder.path))
        inputs: dict[str, Step | Given] = {"model": given_model(model), **given_prompts(config)}
        if self.corpus:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "corpus", self.out)
        self.do(config, inputs, console)


@dataclass(kw_only=True)
class Distill(Single):
    """Distil a teacher into a student, with your text or with the teacher's own."""

    student: Annotated[Positional[str], arg(metavar="STUDENT")]
    """The student's folder."""
    teacher: str
    """The teacher's folder, its id on the hub, or a GGUF file."""
    corpus: tuple[str, ...] = ()
    """Files of text (.jsonl, .json, .csv, .parquet, .txt), datasets on the hub, or `builtin:python`."""
    column: str = "text"
    """The column that holds the text."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""
    generated: str | None = None
    """The folder that `prunus generate` wrote, in place of --corpus; --data is then `teacher`."""
    config: Annotated[DistillConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if not self.config.tokens:
            raise RecipeError("--tokens: 0 would leave the student as it is")
        if bool(self.corpus) == bool(self.generated):
            raise RecipeError("--corpus or --generated: give one of the two: text, or what `prunus generate` wrote")
        if self.corpus and self.config.data == "teacher":
            raise RecipeError("--data: teacher needs --generated, the folder that `prunus generate` wrote")
        if self.config.targets == "cached":
            raise RecipeError(
                "--targets: cached is for recipes, whose plan asks the teacher first; allowed here: online"
            )
        student, teacher = located(self.student), located(self.teacher)
        config, stream = self.config, self._stream(student, teacher, console)
        if self.generated is not None:
            config = config.model_copy(update={"data": "teacher"})
        inputs: dict[str, Step | Given] = {
            "student": given_model(student),
            "teacher": given_model(teacher),
            "tokens": stream,
        }
        self.do(config, inputs, console)

    def _stream(self, student: Located, teacher: Located, console: Console) -> Step | Given:
        """What is read: the text as the student's tokens, or what the teacher wrote."""
        if self.generated is None:
            text = Text(corpus=self.corpus, column=self.column, append_eos=self.append_eos)
            return text.stream(student, "corpus", self.out)
        written = finished(Path(self.generated), "--generated", GenerateConfig.kind)
        record = read_record(Path(self.generated)) or {}
        if record.get("inputs", {}).get("model") != given_model(teacher).fingerprint:
            console.warn(f"--generated: another model than {self.teacher} wrote {self.generated}")
        return written


@dataclass(kw_only=True)
class Align(Single):
    """Align a model by one method: SFT, RPO, DPO and its family, KTO, a reward model, or what it writes itself."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, its id on the hub, or a GGUF file."""
    data: tuple[str, ...]
    """Files or datasets of conversations, of pairs of answers, or of answers with labels."""
    template: str | None = None
    """A chat template (Jinja) in place of the model's own: a file, or `builtin:plain`."""
    config: Annotated[AvoidSubcommands[AlignConfig], Flat]

    def __call__(self, console: Console) -> None:
        """Do it, round by round."""
        model = located(self.model)
        sources = tuple(parse(ChatSource, path, "--data") for path in self.data)
        stages = Alignment((self.config.suited(model.folder.shape.size()),), sources, self.template)
        for seen in stages.check(model.folder.context, given_tokenizer(model)).previews:
            show_preview(seen, console)
        self.do_all(list(stages.steps("align", given_model(model), None, Path(self.out).parent)), console)


@dataclass(kw_only=True)
class Evaluate(Single):
    """Measure a model on held-out text, beside its teacher."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, its id on the hub, or a GGUF file."""
    teacher: str | None = None
    """The teacher to hold it against."""
    beside: str | None = None
    """The folder of the teacher's own evaluation, whose answers to the tasks are paired with the model's."""
    tasks: tuple[str, ...] = ()
    """What to ask: names of tasks, or NAME=DATA with the path of a local copy."""
    limit: int | None = None
    """Ask the first so many items of each task."""
    text: Annotated[Text, Flat]
    config: Annotated[EvaluateConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        model = located(self.model)
        stream = self.text.stream(model, "held_out", self.out)
        inputs: dict[str, Step | Given] = {"model": given_model(model), "tokens": stream}
        if self.teacher is not None:
            teacher = located(self.teacher)
            check_same_tokens(model.folder.shape, teacher.folder.shape, "--teacher")
            inputs["teacher"] = given_model(teacher)
        config = self._with_tasks()
        check_tasks(config)
        check_chat(config, has_chat_template(model.folder.path), self.model)
        inputs |= given_data(config)
        if self.beside is not None:
            inputs["beside"] = finished(Path(self.beside), "--beside", EvaluateConfig.kind)
        self.do(config, inputs, console)

    def _with_tasks(self) -> EvaluateConfig:
        """The options, with the tasks in them."""
        tasks = {}
        for task in self.tasks:
            name, _, data = task.partition("=")
            tasks[name] = {"data": data or None, "limit": self.limit}
        return parse(EvaluateConfig, {**self.config.model_dump(), "tasks": tasks}, "--tasks")


COMMANDS = {
    "run": Run, "plan": Plan, "inspect": Inspect, "correct": Correct, "score": Score, "prune": Prune,
    "generate": Generate, "distill": Distill, "align": Align, "merge": Merge, "evaluate": Evaluate, "export": Export,
    "convert": Convert, "report": Report, "search": Search, "publish": Publish, "bench": Bench, "chat": Chat,
    "serve": Serve, "verify": Verify,
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
        own = get_type_hints(command)
        if "config" in own:
            arguments = spelled_out(own["config"], arguments, own)
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
            print(f"{usage} --help lists the sections of that recipe, and --help SECTION a section's options.")
            sys.exit(0)
        raise RecipeError(f"which recipe? usage: {usage} [OPTIONS]")
    file, *flags = arguments
    raw = read_recipe(Path(file))
    if flags and flags[0] in ("-h", "--help"):
        _show_options(raw, file, " ".join(flags[1:]), f"prunus {name} {file}")
    recipe = parse(Recipe, raw, file)
    where = f"{file} with {' '.join(flags)}" if flags else file
    values = recipe.model_dump(mode="json")
    chosen, flags = words(Recipe, values, flags)
    if chosen:
        for section, word in chosen.items():
            replace_at(raw, values, section, word)
        recipe = parse(Recipe, raw, where)
    given: Run = _parse(command, usage, flags, default=command(recipe=recipe))
    names = [flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")]
    override(raw, given.recipe.model_dump(mode="json"), names)
    return command(recipe=parse(Recipe, raw, where), out=given.out, dry_run=given.dry_run)


def _show_options(raw: dict[str, Any], file: str, section: str, usage: str) -> None:
    """Show a section of a recipe and end, also of a recipe with mistakes."""
    mistakes, values = "", raw
    try:
        values = parse(Recipe, raw, file).model_dump(mode="json")
    except RecipeError as error:
        mistakes = f"\n{error}\n"
    print(page(Recipe, values, section, usage) + mistakes, end="")
    sys.exit(0)


def _parse(command: Any, usage: str, arguments: list[str], default: Any = None) -> Any:
    options = {} if default is None else {"default": default}
    try:
        return tyro.cli(command, prog=usage, args=arguments, **options)
    except ValidationError as error:
        raise RecipeError(explain(command, error, usage)) from None
