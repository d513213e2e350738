"""Questions with checks, and the options that the tests measure by."""

import json
from pathlib import Path
from typing import Any

from prunus.validation.config import ValidationConfig

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
"""A chat template for the tests' tokenizer, which has none."""
OPTIONS: dict[str, Any] = {
    "times": 3, "max_tokens": 150, "prompt_count": 3, "prompt_tokens": 5, "max_new_tokens": 9, "items": 5, "samples": 3,
}  # fmt: skip


def write_questions(file: Path, count: int = 6) -> Path:
    """Questions that a random model answers right in most cases: the answer is without the word `e`."""
    check = {"instruction_id_list": ["keywords:forbidden_words"], "kwargs": [{"forbidden_words": ["e"]}]}
    prompts = (f"once upon {'a ' * i}" for i in range(1, count + 1))
    rows = [{"messages": [{"role": "user", "content": prompt}], "check": check} for prompt in prompts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def options(questions: Path | None = None, **changes: Any) -> ValidationConfig:
    tasks = {} if questions is None else {"plain": {"path": str(questions)}}
    return ValidationConfig(**{**OPTIONS, "tasks": tasks, **changes})
