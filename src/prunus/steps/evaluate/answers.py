"""Generates a model's answers to items: through its chat template, with tools, turn by turn, in several samples."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.inference.answers import Answer, AnswerStore
from prunus.inference.config import GenerationOptions
from prunus.inference.prompts import PLAIN, PLAIN_STOP, Prompt, batches, rendered, shows_tools
from prunus.inference.write import write_all
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item
from prunus.verify.calls import as_function

CALLING = (
    "You can call the functions below, given as JSON. If some of them serve what the user asks, answer with nothing "
    'but the calls, as [f(x="text", n=1), g(y=True)]. If none of them does, say so in words and call none.\n\n'
)
"""Instruction for models whose chat template does not render tools; the format of calls is BFCL's."""

TOO_LONG = Answer([], "", "too long")
"""Placeholder for the answer to a prompt that exceeds the model's context."""

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}


@dataclass(frozen=True)
class Answerer:
    """A loaded model, and how it generates answers.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        context: Its maximum sequence length in tokens.
        out: The step's folder, where answers are stored until the step is done.
        batch_size: Prompts at a time.
    """

    model: PreTrainedModel
    tokenizer: Any
    context: int
    out: Path
    batch_size: int

    def answer(
        self, name: str, items: list[Item], task: TaskConfig, config: EvaluateConfig, console: Console
    ) -> list[list[list[Answer]]]:
        """The answers to every item, [items][samples][turns]. The processes share the work.

        Raises:
            DataError: The chat template refuses a conversation.
        """
        kept = AnswerStore(self.out, name)
        plain = config.chat_template == "plain"
        new = min(task.max_new_tokens, self.context // 2)
        writing = GenerationOptions(
            new, task.temperature, seed=config.seed, stop=PLAIN_STOP if plain else (), where="evaluate"
        )
        given: list[list[list[Answer]]] = [[[] for _ in range(task.samples)] for _ in items]
        rounds = 1 + max(len(item.then) for item in items)
        total = task.samples * sum(1 + len(item.then) for item in items)
        with console.progress(name, total, "answers") as progress:
            for turn in range(rounds):
                unfinished = [i for i, item in enumerate(items) if len(item.then) >= turn]
                prompts = []
                for sample in range(task.samples):
                    for i in unfinished:
                        number = (turn * task.samples + sample) * len(items) + i
                        prompts.append(self.prompt(items[i], given[i][sample], number, name, plain))
                fitting = [prompt for prompt in prompts if len(prompt.ids) <= self.context - new]
                share = batches(fitting, self.batch_size)[distributed.rank() :: distributed.count()]
                distributed.wait()  # until all processes have listed the stored answers
                write_all(share, writing, lambda: self.model, self.tokenizer, kept, progress)
                distributed.wait()
                kept.find()
                for prompt in prompts:
                    sample, i = prompt.number // len(items) % task.samples, prompt.number % len(items)
                    given[i][sample].append(kept.read(prompt.number) if prompt.number in kept else TOO_LONG)
        return given

    def prompt(self, item: Item, given: list[Answer], number: int, name: str, plain: bool) -> Prompt:
        """The prompt of an item's next turn, after the answers so far."""
        template = PLAIN if plain else None
        messages = list(item.messages)
        for answer, then in zip(given, item.then, strict=False):
            messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": then}]
        tools = [as_tool(function) for function in item.tools] or None
        if tools and (plain or not shows_tools(self.tokenizer)):
            first, *rest = messages
            described = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
            messages = [{**first, "content": f"{CALLING}{described}\n\n{first['content']}"}, *rest]
            tools = None
        text, ids = rendered(messages, self.tokenizer, f"tasks.{name}: item {item.id}", tools, template)
        return Prompt(number, ids, text)


def as_tool(function: dict[str, Any]) -> dict[str, Any]:
    """A function in the form of chat templates, with JSON schema's names of types."""
    return {"type": "function", "function": _typed(as_function(function))}


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        kind = {"type": _TYPES.get(value["type"], value["type"])} if isinstance(value.get("type"), str) else {}
        return {**{key: _typed(inner) for key, inner in value.items()}, **kind}
    return [_typed(item) for item in value] if isinstance(value, list) else value


def transcript(item: Item, answers: list[Answer]) -> Iterator[tuple[list[str], list[str]]]:
    """For each turn, the user's messages and the answers up to that turn."""
    user = [str(message["content"]) for message in item.messages if message["role"] == "user"][-1:] + item.then
    for turn in range(len(answers)):
        yield user[: turn + 1], [answer.text for answer in answers[: turn + 1]]
