"""The figures of a model on validation data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from prunus.inference.answers import Answer
from prunus.inference.config import GenerationOptions
from prunus.inference.heldout import FIGURES, Predictor, batches, check_sums, measure, padded
from prunus.inference.local import answers
from prunus.inference.prompts import Prompt
from prunus.inference.prompts import batches as prompt_batches
from prunus.validation.config import ValidationConfig
from prunus.validation.data import Question, ValidationData
from prunus.verify.reward import pass_at, reward


def figures(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    data: ValidationData,
    config: ValidationConfig,
    tokenizer: Any,
    batch_size: int,
) -> dict[str, Any]:
    """Everything that validation measures of a model in evaluation mode.

    Args:
        model: The model.
        teacher: Its teacher, if it has the same tokens.
        data: What to measure on.
        config: The options.
        tokenizer: The model's tokenizer.
        batch_size: Windows or prompts at a time.

    Returns:
        `nll`, and with a teacher `kl` (nats per token) and `agreement` (share of tokens with the same top-1
        prediction), on the windows; `repetition` (share of 4-grams that repeat an earlier one of their answer) and
        `cut_off` (share of answers that do not end) of the continued openings, with their texts in `answers`; in
        `tasks`, by name, the mean `reward` and `pass@1` of the greedy answers, and `sampled pass@k` of sampled ones.

    Raises:
        NotFiniteError: The model gives NaN or infinity.
        DataError: A check cannot be read.
    """
    found: dict[str, Any] = {}
    if data.windows:
        found |= text_figures(model, teacher, data, batch_size)
    greedy = GenerationOptions(config.max_new_tokens, where="validation")
    written = _write(data.prompts(), greedy, model, tokenizer, batch_size)
    if data.openings:
        found |= _continuations([written[prompt.number] for prompt in data.openings])
    drawn = GenerationOptions(config.max_new_tokens, temperature=1.0, seed=config.seed, where="validation")
    written |= _write(data.sampled(), drawn, model, tokenizer, batch_size)
    if data.questions:
        found["tasks"] = {name: _scores(several, written) for name, several in data.questions.items()}
    return found


@torch.no_grad()
def text_figures(
    model: PreTrainedModel, teacher: PreTrainedModel | None, data: ValidationData, batch_size: int
) -> dict[str, float]:
    """The figures on the windows: `nll`, and with a teacher `kl` and `agreement`."""
    predictors = Predictor.of(model), None if teacher is None else Predictor.of(teacher)
    total = torch.zeros(FIGURES, dtype=torch.float64)
    for numbers in batches(data.windows, batch_size):
        ids, predicted = (part.to(model.device) for part in padded([data.windows[i] for i in numbers]))
        sums = measure(*predictors, ids, predicted).cpu()
        check_sums(sums.numpy(), numbers, ids, model, teacher)
        total += sums.sum(dim=0)
    nll, _, kl, agreed, _ = (total / sum(window.predicted for window in data.windows)).tolist()
    return {"nll": nll} if teacher is None else {"nll": nll, "kl": kl, "agreement": agreed}


def _write(
    prompts: list[Prompt], options: GenerationOptions, model: PreTrainedModel, tokenizer: Any, batch_size: int
) -> dict[int, Answer]:
    """The answer to each prompt, by its number."""
    return dict(answers(prompt_batches(prompts, batch_size), options, model, tokenizer))


def _continuations(written: list[Answer]) -> dict[str, Any]:
    """The figures of continued openings."""
    repeated, grams = (sum(counts) for counts in zip(*(answer.repeated() for answer in written), strict=True))
    return {
        "repetition": repeated / max(grams, 1),
        "cut_off": sum(answer.finish == "length" for answer in written) / len(written),
        "answers": [answer.text for answer in written],
    }


def _scores(questions: list[Question], written: dict[int, Answer]) -> dict[str, float]:
    """The scores of a task."""

    def rewards(question: Question, prompts: Iterable[Prompt]) -> list[float]:
        row = question.row
        return [reward(written[prompt.number].text, row.check or {}, row.tools or (), row.where) for prompt in prompts]

    greedy = [rewards(question, [question.greedy])[0] for question in questions]
    found = {"reward": sum(greedy) / len(greedy), "pass@1": sum(one == 1 for one in greedy) / len(greedy)}
    count = len(questions[0].sampled)
    right = [sum(one == 1 for one in rewards(question, question.sampled)) for question in questions]
    for k in sorted({1, count} - {0}) if count else ():
        found[f"sampled pass@{k}"] = sum(pass_at(count, one, k) for one in right) / len(right)
    return found
