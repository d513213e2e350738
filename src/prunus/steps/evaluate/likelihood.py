"""Log-likelihoods of continuations, each context computed once for all of its continuations.

C contexts, K continuations, L length with padding, V vocabulary
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

Request = tuple[list[int], list[int]]
"""The tokens of a context (at least one), and of its continuation (at least one)."""

_START = 32  # tokens from which on a start that contexts share is worth a batch of their own


@dataclass(frozen=True)
class Likelihood:
    """The result of a request.

    Attributes:
        value: Log-probability of the continuation after its context, in nats.
        greedy: Whether each of its tokens is the most likely one.
    """

    value: float
    greedy: bool


@dataclass(frozen=True)
class _Context:
    """A context, and the continuations that are evaluated after it, by the number of their request."""

    ids: tuple[int, ...]
    continuations: dict[int, list[int]]

    @property
    def rows(self) -> int:
        """The most sequences that it takes at a time: a single token is read from the context's own logits."""
        return 1 if all(len(ids) == 1 for ids in self.continuations.values()) else len(self.continuations)


@torch.no_grad()
def likelihoods(
    model: PreTrainedModel, requests: Sequence[Request], rows: int, max_length: int
) -> Iterator[tuple[int, Likelihood]]:
    """Compute log-likelihoods, in the order that costs least; yield each with the number of its request.

    A context that several requests share is computed once, and so is the start that the contexts of a batch share,
    such as worked examples.

    Args:
        model: A causal LM with a key-value cache.
        requests: Contexts and continuations. Contexts that are too long lose their first tokens.
        rows: Sequences at a time.
        max_length: The model's maximum sequence length in tokens.
    """
    for batch in _batches(_contexts(requests, rows, max_length), rows):
        numbers = [number for context in batch for number in context.continuations]
        yield from zip(numbers, _evaluate(model, batch), strict=True)


def _contexts(requests: Sequence[Request], rows: int, max_length: int) -> list[_Context]:
    """The requests by context, at most `rows` each. Neighbours share a long start or are of similar length."""
    by_ids: dict[tuple[int, ...], dict[int, list[int]]] = defaultdict(dict)
    for number, (context, continuation) in enumerate(requests):
        room = max_length + 1 - len(continuation)  # the last token is only predicted
        by_ids[tuple(context[-room:])][number] = continuation
    counts = Counter(ids[:_START] for ids in by_ids)

    def order(ids: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        start = ids[:_START]
        return (start if counts[start] > 1 else ()), len(ids)

    parts = []
    for ids in sorted(by_ids, key=order):
        whole = _Context(ids, by_ids[ids])
        pairs = list(by_ids[ids].items())
        size = rows if whole.rows > rows else len(pairs)
        parts += [_Context(ids, dict(pairs[start : start + size])) for start in range(0, len(pairs), size)]
    return parts


def _batches(contexts: Sequence[_Context], rows: int) -> Iterator[list[_Context]]:
    batch: list[_Context] = []
    for context in contexts:
        if batch and sum(one.rows for one in (*batch, context)) > rows:
            yield batch
            batch = []
        batch.append(context)
    if batch:
        yield batch


def _evaluate(model: PreTrainedModel, batch: list[_Context]) -> Iterator[Likelihood]:
    contexts = [list(context.ids) for context in batch]
    shared = _shared_start(contexts) if len(batch) > 1 and _can_share(model) else 0
    continuations = [ids for context in batch for ids in context.continuations.values()]
    if shared < _START and len(continuations) == len(batch):
        yield from _together(model, contexts, continuations)
    else:
        owners = [i for i, context in enumerate(batch) for _ in context.continuations]
        yield from _apart(model, contexts, continuations, owners, shared if shared >= _START else 0)


def _together(
    model: PreTrainedModel, contexts: list[list[int]], continuations: list[list[int]]
) -> Iterator[Likelihood]:
    """In one pass, if each context has a single continuation."""
    rows = [context + continuation[:-1] for context, continuation in zip(contexts, continuations, strict=True)]
    ids, mask = _padded(rows, left=True)
    targets, real = _padded(continuations, left=True)
    logits = _forward(model, ids, mask, None, targets.shape[1])
    yield from _read(logits, targets, real)


def _apart(
    model: PreTrainedModel,
    contexts: list[list[int]],
    continuations: list[list[int]],
    owners: list[int],
    shared: int,
) -> Iterator[Likelihood]:
    """The `shared` first tokens once, then the rest of each context once, then the continuations; `owners` [K]."""
    cache, count = DynamicCache(config=model.config), len(contexts)
    if shared:
        start = torch.tensor([contexts[0][:shared]])
        _forward(model, start, torch.ones_like(start), cache, 1)
        cache.batch_repeat_interleave(count)
    ids, real = _padded([context[shared:] for context in contexts], left=True)
    mask = torch.cat([torch.ones(count, shared, dtype=torch.long), real], dim=1)
    logits = _forward(model, ids, mask, cache, 1)[owners]  # [K, 1, V]
    targets, real = _padded(continuations, left=False)  # [K, L]
    if targets.shape[1] > 1:
        cache.reorder_cache(torch.tensor(owners, device=model.device))  # also states of layers without attention
        mask = torch.cat([mask[owners], real[:, :-1]], dim=1)
        logits = torch.cat([logits, _forward(model, targets[:, :-1], mask, cache, 0)], dim=1)
    yield from _read(logits, targets, real)


def _forward(model: PreTrainedModel, ids: Tensor, mask: Tensor, cache: DynamicCache | None, last: int) -> Tensor:
    """Logits of the `last` positions (0: of all) of `ids`; `mask` also covers what the cache holds."""
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    output = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=last,
    )
    return output.logits


def _read(logits: Tensor, targets: Tensor, real: Tensor) -> Iterator[Likelihood]:
    """The likelihoods of `targets` ([K, L], padded where `real` is 0) by `logits` [K, L, V]."""
    logits, targets, real = logits.float(), targets.to(logits.device), real.to(logits.device)
    found = logits.gather(2, targets.unsqueeze(2)).squeeze(2) - logits.logsumexp(dim=2)
    values = (found * real).sum(dim=1, dtype=torch.float64)
    greedy = ((logits.argmax(dim=2) == targets) | (real == 0)).all(dim=1)
    for value, is_greedy in zip(values.tolist(), greedy.tolist(), strict=True):
        yield Likelihood(value, is_greedy)


def _can_share(model: PreTrainedModel) -> bool:
    """Whether padding between a shared start and the rest is harmless: not with windows, which count cache entries."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    window = getattr(config, "sliding_window", None)
    return set(kinds) == {"full_attention"} if kinds else window is None


def _shared_start(contexts: Sequence[list[int]]) -> int:
    """The number of first tokens that all contexts share, at most all but one of the shortest."""
    columns = zip(*(context[:-1] for context in contexts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _padded(rows: Sequence[list[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Rows padded with 0 to the longest, and 1 where they are not padding: [rows, L] each."""
    length = max(map(len, rows))
    fill = [[0] * (length - len(row)) for row in rows]
    ids = [[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, fill, strict=True)]
    real = [
        [*pad, *([1] * len(row))] if left else [*([1] * len(row)), *pad] for row, pad in zip(rows, fill, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(real)
