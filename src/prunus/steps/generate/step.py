"""The `generate` step: the teacher answers prompts, and what it wrote becomes a stream for its students to train on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from prunus import distributed
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.config import Source
from prunus.data.stream import Stream
from prunus.data.tokenizing import prefix_of
from prunus.data.tokens import IDS, Tokens
from prunus.errors import DataError
from prunus.fingerprint import digest
from prunus.inference.answers import AnswerStore
from prunus.inference.prompts import Prompt, batches
from prunus.inference.write import write_all
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model, load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.generate.prompts import asked, openings

PARALLEL = True
WRITTEN = "generated.jsonl"


@dataclass(frozen=True)
class Inputs:
    """The model that writes, and what it goes on from: the corpus as a stream, or sources of prompts."""

    model: Path
    tokens: Path | None = None
    prompts: tuple[Source, ...] = ()


def run(config: GenerateConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Let `inputs.model` answer, together with the other processes if there are any.

    Writes `generated.jsonl` (prompt, answer, finish, source) and a stream as the `data` step does, with
    `answers.npy`: where in each document the answer is. Documents stand in the order of their
    prompts; one whose prompt and answer stood there before is dropped.

    Returns:
        Documents, tokens of prompts and answers, how many answers came to their end, and how many were dropped.

    Raises:
        DataError: There is no prompt, or the server refuses one.
        HubError: The server does not answer.
        ModelError: The model or its tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(inputs.model)
    shape = ModelFolder(inputs.model).shape
    prompts = _prompts(config, inputs, tokenizer, shape.max_position_embeddings, console)
    kept = AnswerStore(out)
    distributed.wait()  # until all have seen what is there
    mine = batches(prompts, runtime.device_batch_size)[distributed.rank() :: distributed.count()]
    with console.progress("generate", len(prompts), "answers") as progress:
        write_all(mine, config.writing, lambda: _model(inputs.model, runtime), tokenizer, kept, progress)
    distributed.wait()
    metrics: dict[str, float] = {}
    if distributed.rank() == 0:
        kept.find()
        metrics = _save(prompts, kept, out, tokenizer, max(len(tokenizer), shape.vocab_size))
        remove_checkpoints(out)
    return metrics


def _model(folder: Path, runtime: Runtime) -> PreTrainedModel:
    device = device_of(runtime)
    return load_model(folder, device, inference_dtype(runtime, device)).requires_grad_(False)


def _prompts(config: GenerateConfig, inputs: Inputs, tokenizer: Any, context: int, console: Console) -> list[Prompt]:
    config.check_context(context, "generate")
    if inputs.prompts:
        room = context - config.max_new_tokens
        prompts, too_long = asked(inputs.prompts, config, tokenizer, room)
        if too_long:
            console.warn(f"generate.prompts: {too_long} passed over, which have more than {room} tokens")
    else:
        assert inputs.tokens is not None  # the plan gives one of the two
        prompts = openings(Tokens.open(inputs.tokens), config, tokenizer)
    if len(prompts) < config.samples:
        console.warn(f"generate.samples: {config.samples} wanted, and there are {len(prompts)} prompts: all are used")
    return prompts


def _save(prompts: list[Prompt], kept: AnswerStore, out: Path, tokenizer: Any, vocab_size: int) -> dict[str, float]:
    """Write all answers in the order of their prompts, each once, and count."""
    seen: set[str] = set()
    stopped = asked = 0
    with (out / IDS).open("wb") as file, (out / WRITTEN).open("w", encoding="utf-8") as lines:
        stream = Stream(file, vocab_size, prefix_of(tokenizer))
        for prompt in prompts:
            answer = kept.read(prompt.number)
            name = digest([prompt.text, answer.text])
            if name in seen or not answer.ids:
                continue
            seen.add(name)
            stopped += answer.finish == "stop"
            ids = [*prompt.ids, *answer.ids]
            stream.write(tokenizer.decode(ids, skip_special_tokens=True), ids, [(len(prompt.ids), len(ids))])
            asked += len(prompt.ids)
            line = {"prompt": prompt.text, "answer": answer.text, "finish": answer.finish, "source": prompt.source}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not stream.tokens:
        raise DataError(f"generate: the teacher has no word for any of {len(prompts)} prompts")
    facts = stream.finish(out)
    return {
        "documents": facts["documents"],
        "tokens": facts["tokens"],
        "prompt_tokens": asked,
        "answer_tokens": facts["tokens"] - asked,
        "stopped": stopped,
        "dropped": len(prompts) - facts["documents"],
    }
