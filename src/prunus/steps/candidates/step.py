"""The `candidates` step: a model generates several answers to each prompt, and each answer gets a reward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunus import distributed
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
from prunus.data.endings import ends_of
from prunus.data.judged import Judged
from prunus.data.stream import Stream
from prunus.data.template import Dialogue, Template
from prunus.data.tokenizing import prefix_of
from prunus.data.tokens import IDS
from prunus.errors import DataError
from prunus.inference.answers import Answer, AnswerStore
from prunus.inference.config import GenerationOptions
from prunus.inference.prompts import Prompt, batches, rendered
from prunus.inference.write import write_all
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.models.token_rows import rows_of
from prunus.runtime import Runtime
from prunus.steps.candidates.config import CandidatesConfig
from prunus.steps.candidates.rewards import Question, by_judge, by_model, by_rule

PARALLEL = True
WRITTEN = "candidates.jsonl"

Document = tuple[Question, str, list[int], str]
"""A prompt, an answer as text and as tokens, and the answer's finish reason."""


@dataclass(frozen=True)
class Inputs:
    """The model that generates, the sources of prompts, and optionally a reward model.

    Attributes:
        prompts: The file of a judge's prompts; unused here, but part of the result's fingerprint.
    """

    model: Path
    sources: tuple[ChatSource, ...]
    reward: Path | None = None
    prompts: Any = None


def run(config: CandidatesConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Generate answers to the last prompt of every row. Several processes share the work.

    Writes `candidates.jsonl` (prompt, answer, finish, reward, source), a stream with `judged.npz` as the
    `conversations` step does, and with a judge `judgements.jsonl`.

    Returns:
        Documents and tokens; prompts, their mean reward, the mean of each prompt's best reward, and the number of
        skipped prompts; and the number of answers without a grade, if any.

    Raises:
        DataError: A row has no known form, or lacks the check for its reward.
        ModelError: A model cannot be loaded, or has no chat template.
        HubError: The judge does not answer; all answers and grades so far are kept.
    """
    tokenizer = load_tokenizer(inputs.model)
    template = Template(tokenizer, config.template, ends_of(inputs.model, tokenizer))
    questions, too_long = prompts_of(config, inputs, template)
    if too_long:
        console.warn(f"skipped {too_long} prompts that leave no room for {config.write.max_new_tokens} tokens")
    count = config.write.answers
    prompts = [
        Prompt(number * count + i, one.ids, one.text) for number, one in enumerate(questions) for i in range(count)
    ]
    kept = AnswerStore(out, "candidates")
    distributed.wait()  # until all processes have listed the stored answers
    device = device_of(runtime)
    write = config.write
    options = GenerationOptions(
        write.max_new_tokens, write.temperature, write.top_p, config.seed, server=write.server, where="align.write"
    )
    with console.progress("write", len(prompts), "answers") as progress:
        write_all(
            batches(prompts, runtime.device_batch_size)[distributed.rank() :: distributed.count()],
            options,
            lambda: load_model(inputs.model, device, inference_dtype(runtime, device)).requires_grad_(False),
            tokenizer,
            kept,
            progress,
        )
    distributed.wait()
    kept.find()
    answers = [[kept.read(number * count + i) for i in range(count)] for number in range(len(questions))]
    documents = list(_documents(config, questions, answers, template))
    rewards = _rewards(config, inputs, documents, out, template, runtime, console)
    metrics: dict[str, float] = {}
    if rewards is not None:
        metrics = {**_save(config, inputs, questions, documents, rewards, out, template), "passed_over": too_long}
        remove_checkpoints(out)
    return metrics


def _rewards(
    config: CandidatesConfig, inputs: Inputs, documents: list[Document], out: Path, template: Template,
    runtime: Runtime, console: Console,
) -> np.ndarray | None:  # fmt: skip
    """The reward of each document, NaN if it is missing; only the first process gets them.

    With a reward model, all processes take part.
    """
    texts = [(one, text) for one, text, _, _ in documents]
    first = distributed.rank() == 0
    if config.beside:
        return np.asarray([float(finish == "given") for _, _, _, finish in documents]) if first else None
    if inputs.reward is not None:
        values = by_model(texts, inputs.reward, template, runtime)
        return values if first else None
    if not first:
        return None
    if config.write.judge.url is not None:
        return by_judge(texts, config.write.judge, out, console)
    return by_rule(texts)


def prompts_of(config: CandidatesConfig, inputs: Inputs, template: Template) -> tuple[list[Question], int]:
    """The prompts, and the number of rows that leave no room for an answer."""
    questions: list[Question] = []
    too_long = 0
    room = config.sequence_length - config.write.max_new_tokens
    for number, source in enumerate(inputs.sources):
        for row in conversations(source, f"data.chat.{number}"):
            if not config.beside and inputs.reward is None and config.write.judge.url is None:
                row.require("checks")
            if config.beside:
                row.require("answers")
            text, ids = rendered(row.prompt_turns(), template.tokenizer, row.where, row.tools, template.text)
            if len(ids) <= room:
                questions.append(Question(row, text, ids))
            else:
                too_long += 1
    if not questions:
        raise DataError(f"align.write: no prompt left: {too_long} are longer than the {room} tokens available for one")
    return questions, too_long


def _save(
    config: CandidatesConfig, inputs: Inputs, questions: list[Question], documents: list[Document], rewards: np.ndarray,
    out: Path, template: Template,
) -> dict[str, float]:  # fmt: skip
    """Write all answers with their rewards, except those without a reward. Returns the metrics."""
    known = np.isfinite(rewards)
    left_out = int((~known).sum())
    documents, rewards = [one for one, is_known in zip(documents, known, strict=True) if is_known], rewards[known]
    places = {id(one): number for number, one in enumerate(questions)}
    groups = np.asarray([places[id(one)] for one, *_ in documents])
    with (out / IDS).open("wb") as file, (out / WRITTEN).open("w", encoding="utf-8") as lines:
        stream = Stream(file, max(len(template.tokenizer), rows_of(inputs.model) or 0), prefix_of(template.tokenizer))
        for (one, text, ids, finish), reward in zip(documents, rewards.tolist(), strict=True):
            stream.write(one.text + text, [*one.ids, *ids], [(len(one.ids), len(one.ids) + len(ids))])
            line = {"prompt": one.text, "answer": text, "finish": finish, "reward": reward, "source": one.row.where}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    if config.beside:
        groups = np.repeat(np.arange(len(groups) // 2), 2)
    judged = Judged(groups, rewards, not config.beside, config.beside)
    judged.save(out)
    best = rewards[judged.best()]
    facts = stream.finish(out)
    return {
        "documents": facts["documents"],
        "tokens": facts["tokens"],
        "prompts": len(questions),
        "reward": float(rewards.mean()),
        "best_reward": float(best.mean()),
        **({"ungraded": left_out} if left_out else {}),
    }


def _documents(
    config: CandidatesConfig, questions: list[Question], answers: list[list[Answer]], template: Template
) -> Iterator[Document]:
    """Each answer as a document; with `beside`, each after the data's answer to the same prompt."""
    for one, several in zip(questions, answers, strict=True):
        if not config.beside:
            for answer in several:
                yield one, answer.text, answer.ids, answer.finish
            continue
        text, ids = given_answer(one, template)
        for answer in several:
            if answer.ids != ids:  # a pair of equal answers has no gradient
                yield one, text, ids, "given"
                yield one, answer.text, answer.ids, answer.finish


def given_answer(one: Question, template: Template) -> tuple[str, list[int]]:
    """The last answer in the data, as text and as the tokens after the prompt."""
    row = one.row
    (read,) = template.render([Dialogue(row.where, row.messages, row.tools, len(row.prompt_turns()))])
    start, end = read.answers[0][0], read.answers[-1][1]
    ids = read.ids[start:end]
    return str(template.tokenizer.decode(ids, skip_special_tokens=True)), ids
