"""A recipe of every step, small enough for a test."""

from pathlib import Path
from typing import Any

import yaml


def tiny_recipe(teacher: Path, corpus: Path, held_out: Path, /, **changes: Any) -> dict[str, Any]:
    """The recipe as plain data; `changes` replace its top-level keys."""
    return {
        "seed": 3,
        "teacher": str(teacher),
        "data": {"corpus": [str(corpus)], "held_out": [str(held_out)]},
        "correct": {"tokens": 512, "sequence_length": 16, "batch_size": 4, "warmup_steps": 1},
        "score": {"samples": 16, "sequence_length": 16},
        "students": {
            "width": {"prune": {"hidden_size": 16, "intermediate_size": 24}},
            "depth": {"prune": {"num_hidden_layers": 2}},
            "scratch": {"prune": {"like": "width", "init": "random"}},
        },
        "distill": {
            "tokens": 1024,
            "sequence_length": 16,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "min_learning_rate": 1e-4,
            "warmup_steps": 2,
        },
        "evaluate": {
            "sequence_length": 32,
            "max_tokens": 600,
            "resamples": 100,
            "max_new_tokens": 4,
            "prompt_count": 1,
        },
        **changes,
    }


def write(file: Path, recipe: dict[str, Any]) -> Path:
    """Write a recipe as YAML."""
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file
