"""The steps of alignment: for each stage and round what is read or written, and the training on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prunus.align.config import ONLINE, AlignConfig
from prunus.config import StepConfig
from prunus.conversations.config import JUDGED
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.preview import Preview, Reader, preview
from prunus.data.template import read_template
from prunus.errors import DataError, HubError, RecipeError
from prunus.fingerprint import digest, fingerprint_files
from prunus.graph.steps import Given, Step, given_model, given_sources
from prunus.judging.prompts import judge_prompts
from prunus.models.folder import has_chat_template
from prunus.pipeline.checks import check_length
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.unpacking import find_model


@dataclass
class Checked:
    """What is known of chat data before any work.

    Attributes:
        unseen: What the hub does not give.
        previews: What was seen of the sources that are here.
    """

    unseen: list[str] = field(default_factory=list)
    previews: list[Preview] = field(default_factory=list)


@dataclass(frozen=True)
class Alignment:
    """The stages of one model, and what they share.

    Attributes:
        stages: In order.
        chat: The data of stages that name none.
        template: `data.template`.
        where: What the stages are called in messages, such as `students.width.align`.
        tentative: Whether what the hub does not give is passed over.
    """

    stages: Sequence[AlignConfig]
    chat: tuple[ChatSource, ...]
    template: str | None
    where: str = "align"
    tentative: bool = False

    def sources(self, number: int) -> tuple[ChatSource, ...]:
        """What a stage reads."""
        return self.stages[number].data or self.chat

    def check(self, context: int, tokenizer: Step | Given) -> Checked:
        """Look at the options, and at the first rows of every source.

        Args:
            context: The model's, in tokens.
            tokenizer: Whose chat template is used where none is given.

        Returns:
            What was seen, and what could not be looked at, since the hub does not give it.

        Raises:
            RecipeError: A stage has no data, or is longer than the model's context.
            DataError: A source cannot be read, its first row is not what the stage wants, or the chat template does
                not show it.
        """
        found = Checked()
        template = read_template(self.template)
        folder = tokenizer.value if isinstance(tokenizer, Given) else None  # a step's is not made yet
        reader = Reader.of(folder, template) if isinstance(folder, Path) else None
        if template is None and not _has_template(tokenizer):
            raise RecipeError(
                "data.template: missing, and the model's tokenizer has no chat template; allowed: a file, or "
                "`builtin:plain`"
            )
        for number, stage in enumerate(self.stages):
            where = f"{self.where}.{number}"
            check_length(where, stage.sequence_length, context)
            if stage.method in ONLINE and importlib.util.find_spec("trl") is None:
                raise RecipeError(f"{where}.method: {stage.method} needs TRL; `pip install 'prunus[online]'` brings it")
            self._check_options(number, where)
            try:
                for i, source in enumerate(self.sources(number)):
                    place = f"{where}.data.{i}" if stage.data else f"data.chat.{i}"
                    check_first(stage, source, place)
                    wanted = "prompts" if stage.write.answers and stage.method != "spin" else stage.wanted
                    seen = preview(source, place, reader, wanted, stage.wanted in JUDGED)
                    found.previews += [seen] if seen else []
            except HubError as error:
                if not self.tentative:
                    raise
                found.unseen.append(str(error))
        return found

    def _check_options(self, number: int, where: str) -> None:
        """Refuse a stage that lacks what it is to read, or leaves no room for what it is to write."""
        stage = self.stages[number]
        if not self.sources(number):
            raise RecipeError(f"{where}.data: missing, and there is no data.chat; {stage.method} needs conversations")
        if not stage.write.answers:
            return
        if stage.write.max_new_tokens >= stage.sequence_length:
            raise RecipeError(
                f"{where}.write.max_new_tokens: {stage.write.max_new_tokens} leaves no room for a prompt in "
                f"sequence_length: {stage.sequence_length}"
            )
        if stage.write.reward == "stage" and not any(one.method == "reward" for one in self.stages[:number]):
            raise RecipeError(f"{where}.write.reward: stage, and no stage before it has the method `reward`")
        judge_prompts(stage.write.judge, f"{where}.write.judge")

    def steps(
        self,
        name: str,
        model: Step | Given,
        teacher: Step | Given | None,
        root: Path,
        tokenizer: Step | Given | None = None,
    ) -> Iterator[Step]:
        """The steps of all stages, each from the model of the one before; the last is the aligned model.

        Args:
            name: Whose they are.
            model: To start from.
            teacher: Of `distil`, where the stage names none.
            root: The run's folder.
            tokenizer: What has the model's tokenizer, where that is more than the model; those who share it read alike.
        """
        words, judge = tokenizer or model, None
        text = read_template(self.template)
        for number, stage in enumerate(self.stages):
            given = given_sources(self.sources(number), f"{self.where}.{number}.data", self.tentative)
            for turn in range(stage.rounds):
                label = f"{number + 1}-{stage.method}" + (f"-round{turn + 1}" if stage.rounds > 1 else "")
                data: dict[str, Step | Given] = {"sources": given}
                if stage.method not in ONLINE:
                    read = _reading(stage, turn, text)
                    writes = {"model": model, **self._judge(stage, judge)}
                    asked = {"tokenizer": words} if stage.written is None else writes
                    learnt = Step(name, f"{type(read).kind}-{label}", read, {**data, **asked}, root)
                    yield learnt
                    data = {"tokens": learnt}
                config = stage.model_copy(update={"seed": (stage.seed + turn) % 2**32, "rounds": 1, "data": ()})
                inputs = {"model": model, **data, **self._beside(stage, teacher, text)}
                trained = Step(name, f"align-{label}", config, inputs, root)
                yield trained
                if stage.method == "reward":
                    judge = trained
                else:
                    model = trained

    def _judge(self, stage: AlignConfig, judge: Step | None) -> dict[str, Step | Given]:
        """The reward model of what is written, or the prompts of a judge, where one judges."""
        if stage.write.reward == "check" or stage.method == "spin":
            return {}
        if stage.write.reward == "judge":
            own = stage.write.judge.prompts
            return {} if own is None else {"prompts": Given(None, fingerprint_files([Path(own).expanduser()]))}
        if stage.write.reward == "stage" and judge is not None:
            return {"reward": judge}
        return {"reward": _located(stage.write.reward, f"{self.where}.write.reward")}

    def _beside(self, stage: AlignConfig, teacher: Step | Given | None, text: str | None) -> dict[str, Step | Given]:
        """What a stage is given beside its model and data."""
        found: dict[str, Step | Given] = {}
        if text is not None:
            found["template"] = Given(text, digest(text))
        if stage.reference is not None:
            found["reference"] = _language_model(stage.reference, f"{self.where}.reference")
        if stage.method == "distil":
            guide = teacher if stage.teacher is None else _language_model(stage.teacher, f"{self.where}.teacher")
            if guide is None:
                raise RecipeError(f"{self.where}.teacher: missing; distil learns from an aligned teacher")
            found["teacher"] = guide
        return found


def _reading(stage: AlignConfig, turn: int, template: str | None) -> StepConfig:
    """The options of the step that makes a stage's stream: reads its data, or has the model write."""
    if stage.written is None:
        return stage.read.model_copy(update={"template": template})
    return stage.written.model_copy(update={"template": template, "seed": (stage.seed + turn) % 2**32})


def of_teacher(recipe: Recipe, tentative: bool) -> Alignment:
    """The teacher's stages."""
    return Alignment(recipe.teacher.align, recipe.data.chat, recipe.data.template, "teacher.align", tentative)


def of_student(recipe: Recipe, name: str, tentative: bool) -> Alignment:
    """A student's stages; those that are the recipe's are called so, and are told of once."""
    stages = recipe.students[name].align
    where = "align" if stages == recipe.align else f"students.{name}.align"
    return Alignment(stages, recipe.data.chat, recipe.data.template, where, tentative)


def is_model(step: Step) -> bool:
    """Whether what a step makes is the aligned model as far as it is, and no reward model and no data."""
    return isinstance(step.config, AlignConfig) and step.config.method != "reward"


def check_first(stage: AlignConfig, source: ChatSource, where: str) -> None:
    """Look at the first row of a source, so that the wrong data is found before any work.

    Raises:
        DataError: It cannot be used by the stage.
    """
    row = next(conversations(source, where), None)
    if row is None:
        raise DataError(f"{where}: {source.path} holds no row")
    if not stage.write.answers:
        row.check_has(stage.wanted)
    elif stage.write.reward == "check" and stage.method != "spin":
        row.check_has("checks")


def _has_template(tokenizer: Step | Given) -> bool:
    """Whether a tokenizer has a chat template, or cannot be looked at."""
    return isinstance(tokenizer, Step) or not isinstance(tokenizer.value, Path) or has_chat_template(tokenizer.value)


def _located(path: str, where: str) -> Given:
    model = find_model(path, None, where)
    return given_model(model)


def _language_model(path: str, where: str) -> Given:
    model = find_model(path, None, where)
    model.folder.check()
    return given_model(model)
