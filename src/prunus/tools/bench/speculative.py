"""A student as the draft of its teacher: what is accepted, which draft length is best, and what it gains.

Speculative decoding: Leviathan et al. 2023, arXiv 2211.17192. With α the share of proposals that are accepted, γ of
them at a time, and c the draft's time per token relative to the model's, a step of the model gives (1 - α^(γ+1)) /
(1 - α) tokens (equation 1), and decoding is (1 - α^(γ+1)) / ((1 - α)(γ c + 1)) times as fast (theorem 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as TextInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows, openings
from prunus.errors import DataError, RecipeError
from prunus.gguf.metadata import check_model
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.inference.heldout import FIGURES, Predictor, batches, measure, padded
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.runtime import Runtime
from prunus.steps.export.targets import check_formats
from prunus.tools.bench.assisted import Assisted
from prunus.tools.bench.config import BenchConfig
from prunus.tools.bench.drafted import Drafted
from prunus.tools.bench.speed import spread
from prunus.tools.bench.written import Written

LONGEST = 16
"""The longest draft that is considered."""
_WINDOW = 1024
_LONG = 50  # tokens of text that are read for each token of an opening, to find documents that are long enough

Start = Callable[[ModelFolder, ModelFolder | None, int], "Writer"]
"""Starts the engine for a model, its draft or None, and a draft length."""


class Writer(Protocol):
    """A process that continues prompts."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method in the process."""

    def close(self) -> None:
        """End the process."""


def speculate(
    model: Path, draft: Path, sources: tuple[Source, ...], config: BenchConfig, runtime: Runtime, place: Path,
    console: Console,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model with a draft model, and alone.

    Args:
        model: The model's folder.
        draft: The draft's folder.
        sources: Text on which acceptance is measured, and whose openings are continued.
        config: The options; one round for each opening.
        runtime: Device, precision and micro-batch in transformers.
        place: A folder for the tokens, and for the GGUF files.
        console: Shows the progress.

    Returns:
        `acceptance` (of tokens sampled from the draft: 1 - total variation) and `agreement` (of greedy ones) on the
        text; the decoding speeds of both alone; and see `figures`.

    Raises:
        RecipeError: The vocabularies differ, or the model is not the larger one.
        DataError: The text has too few documents of that length.
    """
    folders = {"model": ModelFolder(model), "draft": ModelFolder(draft)}
    check_pair(folders["model"], folders["draft"])
    if config.engine == "llama.cpp":
        check_formats([config.format], "--format")
    room = min(folder.context for folder in folders.values()) - LONGEST
    if config.prompt_tokens + config.new_tokens >= room:
        raise RecipeError(
            f"--prompt-tokens: {config.prompt_tokens} and --new-tokens: {config.new_tokens} exceed the context of the "
            f"two models, less the {LONGEST} tokens of the longest draft: {room} tokens"
        )
    most = max(config.text_tokens, _LONG * config.prompt_tokens * (config.rounds + 1))
    tokens = _tokens(model, sources, most, place, console)
    prompts = openings(tokens, config.prompt_tokens, config.rounds + 1)
    if len(prompts) <= config.rounds:
        raise DataError(
            f"--corpus: {len(prompts)} documents are longer than {2 * config.prompt_tokens} tokens, twice "
            f"--prompt-tokens; --rounds: {config.rounds} needs one more than that many"
        )
    found = acceptance(folders, tokens, config.text_tokens, runtime)
    starts: Start = partial(_in_transformers, runtime)
    if config.engine == "llama.cpp":
        starts = _in_llama_cpp(folders, config, place)
    writers: dict[str, Callable[[], Writer]] = {
        "model": lambda: starts(folders["model"], None, 0),
        "draft": lambda: starts(folders["draft"], None, 0),
        **{str(length): partial(starts, folders["model"], folders["draft"], length) for length in config.draft_lengths},
    }
    with console.progress("bench", len(prompts), "rounds") as progress:
        written = continue_all(writers, prompts, config.new_tokens, progress.update)
    return {**found, **figures(written, config.draft_lengths, found["agreement"])}


def check_pair(model: ModelFolder, draft: ModelFolder) -> None:
    """Refuse a draft that cannot help a model.

    Raises:
        RecipeError: Their tokens differ, or the draft is not smaller.
    """
    vocabularies = [load_tokenizer(folder.path).get_vocab() for folder in (model, draft)]
    sizes = [folder.shape.vocab_size for folder in (model, draft)]
    if vocabularies[0] != vocabularies[1] or sizes[0] != sizes[1]:
        raise RecipeError(
            f"--draft: {draft.path}: its {sizes[1]} tokens are not the {sizes[0]} of {model.path}, which can only "
            "accept its own; allowed: a student with its teacher's whole vocabulary"
        )
    if draft.shape.parameters >= model.shape.parameters:
        raise RecipeError(
            f"--draft: {draft.path} has {draft.shape.parameters:,} parameters, and {model.path} "
            f"{model.shape.parameters:,}; allowed: a draft that is smaller than the model"
        )


def _tokens(model: Path, sources: tuple[Source, ...], most: int, place: Path, console: Console) -> Tokens:
    out = place / "tokens"
    out.mkdir()
    tokenise(TokensConfig(max_tokens=most), TextInputs(sources, model), out, Runtime(), console)
    return Tokens.open(out)


def acceptance(folders: Mapping[str, ModelFolder], tokens: Tokens, limit: int, runtime: Runtime) -> dict[str, float]:
    """`acceptance` and `agreement` of the draft on a text, by transformers, and the number of its `text_tokens`."""
    device = device_of(runtime)
    dtype = inference_dtype(runtime, device)
    both = [Predictor.of(load_model(folders[name].path, device, dtype)) for name in ("draft", "model")]
    context = min(folder.context for folder in folders.values())
    windows = first_windows(tokens, min(_WINDOW, context), limit)
    total = np.zeros(FIGURES)
    for numbers in batches(windows, runtime.device_batch_size):
        ids, predicted = (part.to(device) for part in padded([windows[i] for i in numbers]))
        total += measure(both[0], both[1], ids, predicted).sum(dim=0).cpu().numpy()
    count = sum(window.predicted for window in windows)
    *_, agreed, variation = total / count
    return {"acceptance": float(1 - variation), "agreement": float(agreed), "text_tokens": count}


def _in_transformers(runtime: Runtime, model: ModelFolder, draft: ModelFolder | None, length: int) -> Writer:
    path = None if draft is None else draft.path
    return Assisted(model.path, path, length, runtime.device, runtime.precision)


def _in_llama_cpp(folders: Mapping[str, ModelFolder], config: BenchConfig, place: Path) -> Start:
    files = {folder: place / f"{name}.gguf" for name, folder in folders.items()}
    for folder, file in files.items():
        check_model(folder.config, folder.shape, str(folder.path))
        write_gguf(folder, read_vocabulary(folder.path, folder.shape.vocab_size), config.format, file)
    context = config.prompt_tokens + config.new_tokens + LONGEST + 1

    def start(model: ModelFolder, draft: ModelFolder | None, length: int) -> Writer:
        return Drafted(files[model], None if draft is None else files[draft], length, context)

    return start


def continue_all(
    writers: Mapping[str, Callable[[], Writer]],
    prompts: Sequence[Sequence[int]],
    count: int,
    on_round: Callable[[int], None] = lambda _: None,
) -> dict[str, list[Written]]:
    """Continue every prompt by every process in turn. The first prompt is not counted."""
    written: dict[str, list[Written]] = {name: [] for name in writers}
    with ExitStack() as running:
        started = {}
        for name, start in writers.items():
            started[name] = start()
            running.callback(started[name].close)
        for number, prompt in enumerate(prompts):
            for name, writer in started.items():
                one = writer.call("write", list(prompt), count)
                if number:
                    written[name].append(one)
            on_round(number + 1)
    return written


def figures(written: Mapping[str, Sequence[Written]], lengths: Sequence[int], agreement: float) -> dict[str, Any]:
    """The figures of continuations by `model` and `draft` alone and by the model with drafts of some lengths.

    Returns:
        `model` and `draft`: tokens per second alone, each with `value`, `low` and `high`; `lengths`: for each length
        the tokens per second, the `ratio` to the model alone in the same rounds, `tokens_per_step`, the share of
        `accepted` proposals, and the share of continuations that are `identical` to those of the model alone; `best`,
        the fastest of these lengths; `expected`: for every length up to 16, `tokens_per_step` and `ratio` by the
        theory with `agreement` as α; and `expected_best`.
    """
    rates = {name: np.array([one.tokens / one.seconds for one in several]) for name, several in written.items()}
    rows: list[dict[str, Any]] = []
    for length in lengths:
        several, alone = written[str(length)], written["model"]
        gained = sum(one.tokens - one.steps for one in several)
        rows.append({
            "length": length,
            "tokens_per_second": spread(rates[str(length)]),
            "ratio": spread(rates[str(length)] / rates["model"]),
            "tokens_per_step": sum(one.tokens for one in several) / sum(one.steps for one in several),
            "accepted": gained / max(1, sum(one.drafted for one in several)),
            "identical": sum(ours.text == own.text for ours, own in zip(several, alone, strict=True)) / len(alone),
        })  # fmt: skip
    cost = float(np.median(rates["model"] / rates["draft"]))
    expected: list[dict[str, float]] = [
        {"length": length, "tokens_per_step": per_step, "ratio": per_step / (length * cost + 1)}
        for length in range(1, LONGEST + 1)
        if (per_step := tokens_per_step(agreement, length))
    ]
    return {
        "model": spread(rates["model"]),
        "draft": spread(rates["draft"]),
        "lengths": rows,
        "best": max(rows, key=lambda row: row["ratio"]["value"])["length"],
        "expected": expected,
        "expected_best": max(expected, key=lambda row: row["ratio"])["length"],
    }


def tokens_per_step(share: float, length: int) -> float:
    """The expected tokens of a step of the model: (1 - α^(γ+1)) / (1 - α), which is γ + 1 for α = 1."""
    return sum(share**power for power in range(length + 1))
