"""What the tests of alignment share: small chat data, and the steps in one call each."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.data.config import ChatSource
from prunus.data.template import PLAIN
from prunus.runtime import Runtime
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.step import Inputs, run
from prunus.steps.conversations.config import ConversationsConfig
from prunus.steps.conversations.step import Inputs as ReadInputs
from prunus.steps.conversations.step import run as read_run
from tests.tiny import WORDS

QUIET = Console(quiet=True)


def rows(count: int, form: str, seed: int = 0) -> list[dict[str, Any]]:
    """Rows in which good answers say plum and bad ones say almond."""
    draw = np.random.default_rng(seed)

    def words(some: int) -> str:
        return " ".join(draw.choice(WORDS, some))

    made = []
    for number in range(count):
        ask, good = words(int(draw.integers(2, 6))), "plum " + words(int(draw.integers(2, 9)))
        bad = "almond " + words(int(draw.integers(2, 9)))
        row: dict[str, Any] = {"prompt": ask}
        if form == "answers":
            row["completion"] = good
        elif form == "labels":
            row |= {"completion": good if number % 2 else bad, "label": bool(number % 2)}
        elif form == "attributes":
            row |= {"completion": good if number % 2 else bad, "attributes": {"plums": number % 2}}
        else:
            row |= {"chosen": good, "rejected": bad}
        if form == "rewards":
            row |= {"chosen_reward": float(draw.normal() + 1), "rejected_reward": float(draw.normal())}
        made.append(row)
    return made


def write(file: Path, given: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


def read(model: Path, file: Path, out: Path, **options: Any) -> Path:
    """Read a file of chat data."""
    out.mkdir(parents=True, exist_ok=True)
    console = options.pop("console", QUIET)
    config = ConversationsConfig(**{"template": PLAIN, **options})
    read_run(config, ReadInputs((ChatSource(path=str(file)),), model), out, Runtime(), console)
    return out


def align(model: Path, tokens: Path, out: Path, portion: int = 4, **options: Any) -> dict[str, float]:
    """Do one stage."""
    out.mkdir(parents=True, exist_ok=True)
    runtime = options.pop("runtime", Runtime(device_batch_size=portion))
    more = {key: options.pop(key) for key in ("reference", "teacher") if key in options}
    config = AlignConfig(**{"sequence_length": 64, "batch_size": 4, "warmup": 0, **options})
    return run(config, Inputs(model, tokens, template=PLAIN, **more), out, runtime, QUIET)


def metrics(out: Path) -> list[dict[str, Any]]:
    """What was seen by step."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
