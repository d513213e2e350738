"""The `generate` step: the teacher generates answers to prompts, as a stream for its students to train on."""

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
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.generate.prompts import openings, read_prompts

PARALLEL = True
WRITTEN = "generated.jsonl"


@dataclass(frozen=True)
class Inputs:
    """The model that generates, and its prompts: openings of the corpus (a stream), or sources of prompts."""

    model: Path
    tokens: Path | None = None
    prompts: tuple[Source, ...] = ()


def run(config: GenerateConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Generate answers with `inputs.model`. Several processes share the work.

    Writes `generated.jsonl` (prompt, answer, finish, source) and a stream as the `data` step does, with `answers.npy`,
    the position of the answer in each document. Documents are in the order of their prompts; duplicates of prompt and
    answer are dropped.

    Returns:
        Documents, tokens of prompts and answers, the number of answers that ended by themselves, and of dropped ones.

    Raises:
        DataError: There are no prompts, or the server refuses one.
        HubError: The server does not answer.
        ModelError: The model or its tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(inputs.model)
    shape = ModelFolder(inputs.model).shape
    prompts = _prompts(config, inputs, tokenizer, shape.max_position_embeddings, console)
    kept = AnswerStore(out)
    distributed.wait()  # until all processes have listed the stored answers
    share = batches(prompts, runtime.device_batch_size)[distributed.rank() :: distributed.count()]
    with console.progress("generate", len(prompts), "answers") as progress:
        write_all(share, config.writing, lambda: _model(inputs.model, runtime), tokenizer, kept, progress)
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
        prompts, too_long = read_prompts(inputs.prompts, config, tokenizer, room)
        if too_long:
            console.warn(f"generate.prompts: skipped {too_long} prompts of more than {room} tokens")
    else:
        assert inputs.tokens is not None  # the plan provides one of the two
        prompts = openings(Tokens.open(inputs.tokens), config, tokenizer)
    if len(prompts) < config.samples:
        console.warn(
            f"generate.samples: {config.samples} requested, but there are only {len(prompts)} prompts; using all"
        )
    return prompts


def _save(prompts: list[Prompt], kept: AnswerStore, out: Path, tokenizer: Any, vocab_size: int) -> dict[str, float]:
    """Write all answers in the order of their prompts, without duplicates. Returns the metrics."""
    seen: set[str] = set()
    stopped = prompt_tokens = 0
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
            prompt_tokens += len(prompt.ids)
            line = {"prompt": prompt.text, "answer": answer.text, "finish": answer.finish, "source": prompt.source}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not stream.tokens:
        raise DataError(f"generate: the teacher's answers to all {len(prompts)} prompts are empty")
    facts = stream.finish(out)
    return {
        "documents": facts["documents"],
        "tokens": facts["tokens"],
        "prompt_tokens": prompt_tokens,
        "answer_tokens": facts["tokens"] - prompt_tokens,
        "stopped": stopped,
        "dropped": len(prompts) - facts["documents"],
    }
