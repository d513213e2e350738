"""The `evaluate` step: a model on held-out text and tasks, compared with its teacher, with intervals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows, openings
from prunus.errors import DataError
from prunus.files import replace_json, replace_text
from prunus.graph.records import MISSING_GRADES
from prunus.inference.heldout import COLUMNS, Predictor, batches, check_sums, measure, padded
from prunus.models.finite import finite_logits
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.efficiency import efficiency
from prunus.steps.evaluate.intervals import ratio_interval
from prunus.steps.evaluate.measure import measure_tasks
from prunus.steps.evaluate.tasks import DERIVED

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """The model, the held-out stream, and what the model is compared with.

    Attributes:
        model: The model.
        tokens: The held-out stream.
        teacher: The teacher, if it has the same tokens; None for the teacher itself.
        beside: The teacher's evaluation, whose items are paired with the model's.
        data: The tasks' data; unused here, but part of the result's fingerprint.
    """

    model: Path
    tokens: Path
    teacher: Path | None = None
    beside: Path | None = None
    data: Any = None


def run(config: EvaluateConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Evaluate `inputs.model`. Several processes share the windows and items.

    Writes `results.json` (every figure with its interval), `windows.jsonl` (the sums of each window, see `COLUMNS`),
    `answers.jsonl` (to the prompts), and for tasks `items.jsonl` (the scores of each item), `answers/` and
    `judgements.jsonl`.

    Returns:
        The figures without their intervals; and `judge_holes`, the number of missing grades of the judge.

    Raises:
        DataError: The held-out stream has no window of two tokens.
        ModelError: The model or its teacher gives NaN or infinity; names the window and the first such module.
    """
    config = config.with_defaults(ModelFolder(inputs.model).shape.size())
    tokens = Tokens.open(inputs.tokens)
    device = device_of(runtime)
    dtype = inference_dtype(runtime, device)
    model = load_model(inputs.model, device, dtype)
    teacher = load_model(inputs.teacher, device, dtype) if inputs.teacher else None
    rows = _measure_all(model, teacher, tokens, config, runtime, console)
    results = figures(rows, config, beside_teacher=teacher is not None)
    folder = ModelFolder(inputs.model)
    speed = {}
    if distributed.rank() == 0:
        lines = (dict(zip(COLUMNS, row, strict=True)) for row in rows.tolist())
        replace_text(out / "windows.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        answers = _answers(model, inputs.model, tokens, config)
        replace_text(out / "answers.jsonl", "".join(json.dumps(answer) + "\n" for answer in answers))
        models = {"model": (model, folder.shape)}
        if inputs.teacher and teacher is not None:
            models["teacher"] = (teacher, ModelFolder(inputs.teacher).shape)
        speed = efficiency(models, config.efficiency)
        del models
    distributed.wait()  # the other processes are idle while speed is measured
    del teacher
    with finite_logits(model, "the tasks"):
        measured = measure_tasks(
            config, model, load_tokenizer(inputs.model), folder.shape.max_position_embeddings, inputs.beside, out,
            runtime.device_batch_size, console,
        )  # fmt: skip
    if distributed.rank() == 0:
        replace_json(
            out / "results.json", {**_facts(folder.shape, rows), "figures": results, "efficiency": speed, **measured}
        )
    holes = sum((task.get("judge") or {}).get("missing", 0) for task in measured["tasks"].values())
    holes *= config.judge.url is not None
    if distributed.rank() == 0 and not holes:  # with missing grades, the next run needs the answers for the judge
        remove_checkpoints(out)
    first = {
        name: task["metrics"][task["first"]]["value"] for name, task in measured["tasks"].items() if task.get("first")
    }
    return {
        **{name: figure["value"] for name, figure in results.items()},
        **first,
        **({MISSING_GRADES: holes} if holes else {}),
    }


def _facts(shape: Shape, rows: np.ndarray) -> dict[str, Any]:
    """The sizes of the model and of the text that it was evaluated on."""
    return {
        "parameters": shape.parameters,
        "non_embedding_parameters": shape.non_embedding_parameters,
        "dimensions": shape.dimensions(),
        "windows": len(rows),
        "tokens": int(rows[:, 0].sum()),
    }


def figures(rows: np.ndarray, config: EvaluateConfig, beside_teacher: bool) -> dict[str, dict[str, float]]:
    """Every figure with its interval, from the windows' sums: [N, len(COLUMNS)].

    `nll` in nats per token, `perplexity` (its exponential), `bits_per_byte`; with a teacher also `kl` to it in nats per
    token, `agreement` (the share of tokens with the same top-1 prediction), `acceptance` (the share of tokens sampled
    from the model that the teacher accepts in speculative sampling: 1 - total variation), and `nll_increase` (the
    paired difference to the teacher's `nll` on the same windows). A figure that overflows a float, such as the
    perplexity at 1,000 nats per token, is omitted.
    """
    count, size, nll, teacher_nll, kl, agreed, variation = rows.T

    def interval(
        numerators: np.ndarray, denominators: np.ndarray, transform: Any = lambda ratio: ratio
    ) -> dict[str, float]:
        return ratio_interval(numerators, denominators, config.confidence, config.resamples, config.seed, transform)

    found = {
        "nll": interval(nll, count),
        "perplexity": interval(nll, count, DERIVED["perplexity"].value),
    }
    if size.any():  # a text of special tokens only has no bytes
        found["bits_per_byte"] = interval(nll / np.log(2), size)
    if beside_teacher:
        found["kl"] = interval(kl, count)
        found["agreement"] = interval(agreed, count)
        found["acceptance"] = interval(count - variation, count)
        found["nll_increase"] = interval(nll - teacher_nll, count)
    return {name: figure for name, figure in found.items() if all(map(np.isfinite, figure.values()))}


def _measure_all(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    tokens: Tokens,
    config: EvaluateConfig,
    runtime: Runtime,
    console: Console,
) -> np.ndarray:
    windows = first_windows(tokens, config.sequence_length, config.max_tokens)
    if not windows:
        raise DataError(f"evaluate: the held-out text has {len(tokens.ids)} tokens and no document of two")
    rows = np.zeros((len(windows), len(COLUMNS)))
    total = sum(len(window.ids) for window in windows)
    done = 0
    predictors = Predictor.of(model), None if teacher is None else Predictor.of(teacher)
    with console.progress("evaluate", total, "tokens") as progress:
        for number, numbers in enumerate(batches(windows, runtime.device_batch_size)):
            done += sum(len(windows[i].ids) for i in numbers)
            if number % distributed.count() != distributed.rank():
                continue
            chosen = [windows[i] for i in numbers]
            ids, predicted = (part.to(model.device) for part in padded(chosen))
            sums = measure(*predictors, ids, predicted).cpu().numpy()
            check_sums(sums, numbers, ids, model, teacher)
            counts = [[window.predicted, window.size] for window in chosen]
            rows[numbers] = np.concatenate([np.array(counts), sums], axis=1)
            progress.update(done)
    whole = torch.from_numpy(rows)
    distributed.all_reduce([whole])
    return whole.numpy()


def _answers(model: PreTrainedModel, folder: Path, tokens: Tokens, config: EvaluateConfig) -> list[dict[str, str]]:
    tokenizer = load_tokenizer(folder)
    prompts = [tokenizer(prompt)["input_ids"] for prompt in config.prompts] or openings(
        tokens, config.prompt_tokens, config.prompt_count
    )
    answers = []
    for ids in prompts:
        prompt = torch.tensor([ids], device=model.device)
        with torch.no_grad(), finite_logits(model, "a prompt"):
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=config.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            )
        answer = tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
        answers.append({"prompt": tokenizer.decode(ids, skip_special_tokens=True), "answer": answer})
    return answers
