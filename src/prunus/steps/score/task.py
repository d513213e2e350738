"""Questions with a right answer, asked by log-likelihood: what layers are judged by where a task decides.

The forms of `prunus.data.questions`: a continuation is right where it is the model's own first choice, token for token;
a choice where it is the likeliest per character of all; a context where the continuation is likeliest after it.
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
        pairs: Context and continuation, once for each answer that can be given.
        lengths: Characters of each continuation, which its log-likelihood is divided by.
        gold: The number of the right one; None where there is one, to be said token for token.
    """

    pairs: tuple[tuple[list[int], list[int]], ...]
    lengths: tuple[int, ...]
    gold: int | None


def question(line: Mapping[str, Any], tokenizer: Any) -> Question:
    """One line as token ids."""
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
    whole, start = tokenizer(context + space + text)["input_ids"], tokenizer(context)["input_ids"]
    shared = next((i for i, (a, b) in enumerate(zip(whole, start, strict=False)) if a != b), len(start))
    shared = max(1, min(shared, len(whole) - 1))
    return whole[:shared], whole[shared:]


@torch.no_grad()
def right(model: PreTrainedModel, asked: Question, context_length: int) -> bool:
    """Whether the model answers a question rightly; of a long context its end is shown."""
    scores, verbatim = [], False
    for (context, text), length in zip(asked.pairs, asked.lengths, strict=True):
        ids = torch.tensor([*context, *text][-context_length:], device=model.device)[None]
        wanted = ids[0, -len(text) :]
        said = F.log_softmax(model(input_ids=ids, use_cache=False).logits[0, -len(text) - 1 : -1].float(), dim=-1)
        scores.append(said.gather(-1, wanted[:, None]).sum().item() / length)
        verbatim = bool((said.argmax(dim=-1) == wanted).all())
    return verbatim if asked.gold is None else max(range(len(scores)), key=scores.__getitem__) == asked.gold
