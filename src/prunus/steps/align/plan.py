"""Alignment as a plan sees it: what is refused before any work, the steps of each stage, and their cost."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunus.config import StepConfig, check_length
from prunus.costs import Cost, CostContext, kept_bytes, trained_bytes
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.preview import Preview, Reader, preview
from prunus.data.template import read_template
from prunus.errors import DataError, RecipeError
from prunus.fingerprint import digest, fingerprint_files
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.judging.prompts import judge_prompts
from prunus.models.folder import has_chat_template
from prunus.models.shape import Shape
from prunus.steps.align.config import AlignConfig
from prunus.steps.conversations.config import JUDGED


@dataclass(frozen=True)
class Alignment:
    """The stages of one model, and what they share.

    Attributes:
        stages: In order.
        chat: The data of stages that name none.
        template: `data.template`.
        hub: Where models and text come from.
        where: What the stages are called in messages, such as `students.width.align`.
    """

    stages: Sequence[AlignConfig]
    chat: tuple[ChatSource, ...]
    template: str | None
    hub: Hub
    where: str = "align"

    def sources(self, number: int) -> tuple[ChatSource, ...]:
        """What a stage reads."""
        return self.stages[number].data or self.chat

    def check(self, context: int, tokenizer: Step | Given) -> list[Preview]:
        """Look at the options, and at the first rows of every source.

        Args:
            context: The model's, in tokens.
            tokenizer: Whose chat template is used where none is given.

        Returns:
            What was seen of the sources that are here.

        Raises:
            RecipeError: A stage has no data, or is longer than the model's context.
            DataError: A source cannot be read, its first row is not what the stage wants, or the chat template does
                not show it.
        """
        found: list[Preview] = []
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
            if stage.spec.learns == "online" and importlib.util.find_spec("trl") is None:
                raise RecipeError(f"{where}.method: {stage.method} needs TRL; `pip install 'prunus[online]'` brings it")
            self._check_options(number, where)
            with self.hub.tolerate_missing():
                for i, source in enumerate(self.sources(number)):
                    place = f"{where}.data.{i}" if stage.data else f"data.chat.{i}"
                    check_first(stage, source, place)
                    wanted = "prompts" if stage.write.answers and not stage.spec.against_data else stage.wanted
                    seen = preview(source, place, reader, wanted, stage.wanted in JUDGED)
                    found += [seen] if seen else []
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
        if stage.write.reward == "stage" and not any(one.spec.learns == "reward" for one in self.stages[:number]):
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
            given = self.hub.given_sources(self.sources(number), f"{self.where}.{number}.data")
            for turn in range(stage.rounds):
                label = f"{number + 1}-{stage.method}" + (f"-round{turn + 1}" if stage.rounds > 1 else "")
                data: dict[str, Step | Given] = {"sources": given}
                if stage.spec.learns != "online":
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
                if stage.spec.learns == "reward":
                    judge = trained
                else:
                    model = trained

    def _judge(self, stage: AlignConfig, judge: Step | None) -> dict[str, Step | Given]:
        """The reward model of what is written, or the prompts of a judge, where one judges."""
        if stage.write.reward == "check" or stage.spec.against_data:
            return {}
        if stage.write.reward == "judge":
            own = stage.write.judge.prompts
            return {} if own is None else {"prompts": Given(None, fingerprint_files([Path(own).expanduser()]))}
        if stage.write.reward == "stage" and judge is not None:
            return {"reward": judge}
        return {"reward": self.hub.given_model(stage.write.reward, f"{self.where}.write.reward")}

    def _beside(self, stage: AlignConfig, teacher: Step | Given | None, text: str | None) -> dict[str, Step | Given]:
        """What a stage is given beside its model and data."""
        found: dict[str, Step | Given] = {}
        if text is not None:
            found["template"] = Given(text, digest(text))
        if stage.reference is not None:
            found["reference"] = self.hub.given_model(stage.reference, f"{self.where}.reference", check=True)
        if stage.method == "distil":
            guide = (
                teacher
                if stage.teacher is None
                else self.hub.given_model(stage.teacher, f"{self.where}.teacher", check=True)
            )
            if guide is None:
                raise RecipeError(f"{self.where}.teacher: missing; distil learns from an aligned teacher")
            found["teacher"] = guide
        return found


def _reading(stage: AlignConfig, turn: int, template: str | None) -> StepConfig:
    """The options of the step that makes a stage's stream: reads its data, or has the model write."""
    if stage.written is None:
        return stage.read.model_copy(update={"template": template})
    return stage.written.model_copy(update={"template": template, "seed": (stage.seed + turn) % 2**32})


def is_model(step: Step) -> bool:
    """Whether what a step makes is the aligned model as far as it is, and no reward model and no data."""
    return isinstance(step.config, AlignConfig) and step.config.spec.learns != "reward"


def check_first(stage: AlignConfig, source: ChatSource, where: str) -> None:
    """Look at the first row of a source, so that the wrong data is found before any work.

    Raises:
        DataError: It cannot be used by the stage.
    """
    row = next(conversations(source, where), None)
    if row is None:
        raise DataError(f"{where}: {source.path} holds no row")
    if not stage.write.answers:
        row.require(stage.wanted)
    elif stage.write.reward == "check" and not stage.spec.against_data:
        row.require("checks")


def _has_template(tokenizer: Step | Given) -> bool:
    """Whether a tokenizer has a chat template, or cannot be looked at."""
    return isinstance(tokenizer, Step) or not isinstance(tokenizer.value, Path) or has_chat_template(tokenizer.value)


def cost(config: AlignConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate memory and disk alone: how much there is to learn from is known when it has been read."""
    answers = 1 if config.spec.learns == "likelihood" else 2
    tokens = context.micro_batch(config.batch_size) * config.sequence_length * answers
    return Cost(memory_bytes=trained_bytes(shape, tokens), disk_bytes=kept_bytes(shape))
