"""Planning of alignment: checks before any work, the steps of each stage, and their cost."""

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
from prunus.steps.conversations.config import JUDGED, PAIRED


@dataclass(frozen=True)
class Alignment:
    """The stages of one model, and their common inputs.

    Attributes:
        stages: The stages in order.
        chat: The data of stages without `data`.
        template: `data.template`.
        hub: Source of models and text.
        where: Name of the stages in messages, such as `students.width.align`.
    """

    stages: Sequence[AlignConfig]
    chat: tuple[ChatSource, ...]
    template: str | None
    hub: Hub
    where: str = "align"

    def sources(self, number: int) -> tuple[ChatSource, ...]:
        """The data of a stage."""
        return self.stages[number].data or self.chat

    def check(self, context: int, tokenizer: Step | Given) -> list[Preview]:
        """Check the options, and the first rows of every source.

        Args:
            context: The model's context, in tokens.
            tokenizer: The source of the chat template, if none is given.

        Returns:
            Previews of the sources that could be read.

        Raises:
            RecipeError: A stage has no data, or its sequences are longer than the model's context.
            DataError: A source cannot be read, its first row lacks what the stage needs, or the chat template does not
                render it completely.
        """
        previews: list[Preview] = []
        template = read_template(self.template)
        folder = tokenizer.value if isinstance(tokenizer, Given) else None  # the folder of a step does not exist yet
        reader = Reader.of(folder, template) if isinstance(folder, Path) else None
        if template is None and not _has_template(tokenizer):
            raise RecipeError(
                "data.template: missing, but the model's tokenizer has no chat template; allowed: a file, or "
                "`builtin:plain`"
            )
        for number, stage in enumerate(self.stages):
            where = f"{self.where}.{number}"
            check_length(where, stage.sequence_length, context)
            if stage.spec.learns == "online" and importlib.util.find_spec("trl") is None:
                raise RecipeError(f"{where}.method: {stage.method} needs TRL; `pip install 'prunus[online]'`")
            self._check_options(number, where)
            with self.hub.tolerate_missing():
                for i, source in enumerate(self.sources(number)):
                    place = f"{where}.data.{i}" if stage.data else f"data.chat.{i}"
                    check_first(stage, source, place)
                    rows = "prompts" if stage.write.answers and not stage.spec.against_data else stage.spec.rows
                    seen = preview(source, place, reader, rows, stage.spec.rows in JUDGED)
                    previews += [seen] if seen else []
        return previews

    def _check_options(self, number: int, where: str) -> None:
        """Refuse a stage without data, without room for generated answers, or without its reward model."""
        stage = self.stages[number]
        if not self.sources(number):
            raise RecipeError(
                f"{where}.data: missing; {stage.method} needs conversations: give them here or in data.chat"
            )
        if not stage.write.answers:
            return
        if stage.write.max_new_tokens >= stage.sequence_length:
            raise RecipeError(
                f"{where}.write.max_new_tokens: {stage.write.max_new_tokens} leaves no room for a prompt in "
                f"sequence_length: {stage.sequence_length}"
            )
        if stage.write.reward == "stage" and not any(one.spec.learns == "reward" for one in self.stages[:number]):
            raise RecipeError(f"{where}.write.reward: stage needs an earlier stage with the method `reward`")
        judge_prompts(stage.write.judge, f"{where}.write.judge")

    def steps(
        self,
        name: str,
        model: Step | Given,
        teacher: Step | Given | None,
        root: Path,
        tokenizer: Step | Given | None = None,
    ) -> Iterator[Step]:
        """The steps of all stages, each starting from the previous one's model; the last makes the aligned model.

        Args:
            name: Name of the model that the steps belong to.
            model: The model to start from.
            teacher: The teacher of `distil`, if the stage names none.
            root: The folder of the run.
            tokenizer: Source of the tokenizer; if other models have the same one, their steps read the same stream.
        """
        reward_model, tokenizer = None, tokenizer or model
        text = read_template(self.template)
        for number, stage in enumerate(self.stages):
            given = self.hub.given_sources(self.sources(number), f"{self.where}.{number}.data")
            for turn in range(stage.rounds):
                label = f"{number + 1}-{stage.method}" + (f"-round{turn + 1}" if stage.rounds > 1 else "")
                data: dict[str, Step | Given] = {"sources": given}
                if stage.spec.learns != "online":
                    read = _reading(stage, turn, text)
                    generator = {"model": model, **self._reward_inputs(stage, reward_model)}
                    extra = {"tokenizer": tokenizer} if stage.written is None else generator
                    stream = Step(name, f"{type(read).kind}-{label}", read, {**data, **extra}, root)
                    yield stream
                    data = {"tokens": stream}
                config = stage.model_copy(update={"seed": (stage.seed + turn) % 2**32, "rounds": 1, "data": ()})
                inputs = {"model": model, **data, **self._extra_inputs(stage, teacher, text)}
                trained = Step(name, f"align-{label}", config, inputs, root)
                yield trained
                if stage.spec.learns == "reward":
                    reward_model = trained
                else:
                    model = trained

    def _reward_inputs(self, stage: AlignConfig, reward_model: Step | None) -> dict[str, Step | Given]:
        """The reward model of generated answers, or the prompts of their judge; empty for rewards by rule."""
        if stage.write.reward == "check" or stage.spec.against_data:
            return {}
        if stage.write.reward == "judge":
            file = stage.write.judge.prompts
            return {} if file is None else {"prompts": Given(None, fingerprint_files([Path(file).expanduser()]))}
        if stage.write.reward == "stage" and reward_model is not None:
            return {"reward": reward_model}
        return {"reward": self.hub.given_model(stage.write.reward, f"{self.where}.write.reward")}

    def _extra_inputs(
        self, stage: AlignConfig, teacher: Step | Given | None, text: str | None
    ) -> dict[str, Step | Given]:
        """A stage's inputs in addition to model and data: template, reference, teacher."""
        inputs: dict[str, Step | Given] = {}
        if text is not None:
            inputs["template"] = Given(text, digest(text))
        if stage.reference is not None:
            inputs["reference"] = self.hub.given_model(stage.reference, f"{self.where}.reference", check=True)
        if stage.method == "distil":
            guide = (
                teacher
                if stage.teacher is None
                else self.hub.given_model(stage.teacher, f"{self.where}.teacher", check=True)
            )
            if guide is None:
                raise RecipeError(f"{self.where}.teacher: missing; distil needs an aligned teacher")
            inputs["teacher"] = guide
        return inputs


def _reading(stage: AlignConfig, turn: int, template: str | None) -> StepConfig:
    """The options of the step that makes a stage's stream: it reads the data, or generates candidates."""
    if stage.written is None:
        return stage.read.model_copy(update={"template": template})
    return stage.written.model_copy(update={"template": template, "seed": (stage.seed + turn) % 2**32})


def is_model(step: Step) -> bool:
    """Whether a step makes an aligned model (not a reward model or data)."""
    return isinstance(step.config, AlignConfig) and step.config.spec.learns != "reward"


def check_first(stage: AlignConfig, source: ChatSource, where: str) -> None:
    """Check the first row of a source, so that wrong data is reported before any work.

    Raises:
        DataError: The stage cannot use it.
    """
    row = next(conversations(source, where), None)
    if row is None:
        raise DataError(f"{where}: {source.path} has no rows")
    if not stage.write.answers:
        row.require(stage.spec.rows)
    elif stage.spec.against_data:
        row.require("answers")
    elif stage.write.reward == "check":
        row.require("checks")


def _has_template(tokenizer: Step | Given) -> bool:
    """Whether a tokenizer has a chat template, or may have one because it cannot be read yet."""
    return isinstance(tokenizer, Step) or not isinstance(tokenizer.value, Path) or has_chat_template(tokenizer.value)


def cost(config: AlignConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate training on the chat data; tokens and FLOPs are 0 if the amount of data is unknown.

    A backward pass costs as much as two forward passes. A teacher and a reference each add a forward pass.
    """
    answers = 1 if config.spec.learns == "likelihood" else 2
    held = context.micro_batch(config.batch_size) * config.sequence_length * answers
    tokens, passes = int(_read_tokens(config, context) * config.epochs), 3 * shape.flops_per_token(_mean(context))
    memory = trained_bytes(shape, held, context, config.optimizer, config.lora.r)
    if config.method == "distil":
        passes += context.teacher.flops_per_token(_mean(context))
        memory += context.teacher.parameters * context.frozen
    if config.spec.refers:
        passes += shape.flops_per_token(_mean(context))
    return Cost(tokens, tokens * passes, memory, kept_bytes(shape, config.optimizer, config.lora.r))


def _read_tokens(config: AlignConfig, context: CostContext) -> int:
    """Tokens of one epoch; of candidates, one or two answers of the greatest length to every prompt."""
    if config.written is None:
        return context.chat.tokens
    kept = 2 if config.spec.rows in PAIRED else 1
    return kept * (context.chat.prompts + context.chat.rows * config.write.max_new_tokens)


def _mean(context: CostContext) -> int:
    """Mean length of a conversation, in tokens."""
    return context.chat.tokens // max(context.chat.rows, 1)
