"""A stand-in for a server of a teacher: the forms of vLLM's and SGLang's answers, the numbers of a model."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from prunus.models.pretrained import load_tokenizer
from tests.tiny import load


def stand_in(folder: Path, tokenizer: Path | None = None) -> Callable[[dict], bytes]:
    """The answers to requests of `/v1/completions`, `/generate` and `/tokenize`, by the model in a folder."""
    model, words, lock = load(folder), load_tokenizer(tokenizer or folder), threading.Lock()

    def known(ids: list[int]) -> torch.Tensor:
        with lock, torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)

    def reply(asked: dict) -> bytes:
        if asked["path"] == "/tokenize":
            answer = {"tokens": words(asked["prompt"], add_special_tokens=asked["add_special_tokens"])["input_ids"]}
        elif asked["path"] == "/generate":
            answer = sglang(asked["input_ids"], known(asked["input_ids"]), asked)
        else:
            answer = vllm(asked["prompt"], known(asked["prompt"]), asked)
        return json.dumps(answer).encode()

    return reply


def vllm(ids: list[int], known: torch.Tensor, asked: dict) -> dict:
    """The likeliest tokens of each position and the prompt's own, by their ids as texts."""
    rows: list[dict | None] = [None]
    for token, row in zip(ids[1:], known[:-1], strict=True):
        order = row.argsort(descending=True)
        chosen = dict.fromkeys([token, *order[: asked["prompt_logprobs"]].tolist()])  # its own first, as vLLM has it
        ranks = {one: int((row > row[one]).sum()) + 1 for one in chosen}
        rows.append({
            str(one): {"logprob": row[one].item(), "rank": ranks[one], "decoded_token": f"<{one}>"} for one in chosen
        })  # fmt: skip
    return {"choices": [{"index": 0, "text": "a", "finish_reason": "length", "prompt_logprobs": rows}]}


def sglang(ids: list[int], known: torch.Tensor, asked: dict) -> dict:
    """Triples of log-probability, id, and no text."""
    assert asked["logprob_start_len"] == 0
    values, tokens = known[:-1].topk(asked["top_logprobs_num"], dim=-1)
    rows = [
        [[v, t, None] for v, t in zip(*row, strict=True)] for row in zip(values.tolist(), tokens.tolist(), strict=True)
    ]
    meta = {"prompt_tokens": len(ids), "input_top_logprobs": [None, *rows], "output_top_logprobs": [rows[-1]]}
    return {"text": "a", "output_ids": [5], "meta_info": meta}
