"""Accuracy on questions, by log-likelihood: the criterion of layers that `accuracy` stands for.

By the form of the question (see `prunus.data.questions`), the model is correct if the continuation is its greedy
choice token by token; if the gold choice has the highest log-likelihood per character; or if the continuation is most
likely after the gold context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Question:
    """A question as token ids.

    Attributes:
        pairs: Context and continuation of each candidate answer.
        lengths: What each log-likelihood is divided by: the characters of each choice, otherwise 1.
        gold: The index of the correct answer; None if there is a single continuation to be predicted token by token.
    """

    pairs: tuple[tuple[list[int], list[int]], ...]
    lengths: tuple[int, ...]
    gold: int | None


def encode_question(line: Mapping[str, Any], tokenizer: Any) -> Question:
    """Tokenise one question."""
    if "choices" in line:
        texts = [(line["query"], choice) for choice in line["choices"]]
        lengths, gold = tuple(max(len(choice), 1) for choice in line["choices"]), int(line["gold"])
    elif "context_options" in line:
        texts = [(context, line["continuation"]) for context in line["context_options"]]
        lengths, gold = (1,) * len(texts), int(line["gold"])
    else:
        texts, lengths, gold = [(line["context"], line["continuation"])], (1,), None
    return Question(tuple(_ids(context, text, tokenizer) for context, text in texts), lengths, gold)


def _ids(context: str, text: str, tokenizer: Any) -> tuple[list[int], list[int]]:
    space = "" if context[-1:].isspace() or text[:1].isspace() else " "
    whole, prefix = tokenizer(context + space + text)["input_ids"], tokenizer(context)["input_ids"]
    shared = next((i for i, (a, b) in enumerate(zip(whole, prefix, strict=False)) if a != b), len(prefix))
    shared = max(1, min(shared, len(whole) - 1))
    return whole[:shared], whole[shared:]


@torch.no_grad()
def is_correct(model: PreTrainedModel, question: Question, context_length: int) -> bool:
    """Whether the model answers a question correctly; contexts longer than `context_length` are cut on the left."""
    scores, greedy = [], False
    for (context, text), length in zip(question.pairs, question.lengths, strict=True):
        ids = torch.tensor([*context, *text][-context_length:], device=model.device)[None]
        labels = ids[0, -len(text) :]
        logits = model(input_ids=ids, use_cache=False).logits[0, -len(text) - 1 : -1]
        log_probabilities = F.log_softmax(logits.float(), dim=-1)
        scores.append(log_probabilities.gather(-1, labels[:, None]).sum().item() / length)
        greedy = bool((log_probabilities.argmax(dim=-1) == labels).all())
    return greedy if question.gold is None else max(range(len(scores)), key=scores.__getitem__) == question.gold
