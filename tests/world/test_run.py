"""A recipe from nothing to a student, on the world alone, as recipes/sapling.yaml goes."""

import json
from pathlib import Path

import pytest

from prunus.config import parse
from prunus.console import Console
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.pipeline.run import run_plan
from prunus.world.config import SKILLS

pytestmark = pytest.mark.slow

WORLD = {"documents": 60, "conversations": 150, "held_out_items": 4}


def recipe() -> Recipe:
    chat = {"path": "builtin:world", "name": "chat", "world": WORLD}
    stage = {"sequence_length": 160, "longer": "drop", "batch_size": 4, "optimizer": "muon", "learning_rate": 6e-3}
    raw = {
        "teacher": {
            "create": {
                "vocab_size": 700, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "split_digits": True, "chat": True,
                "max_position_embeddings": 256,
            },
            "align": [{"method": "sft", "data": [{**chat, "limit": 40}], **stage}],
        },
        "data": {
            "corpus": [{"path": "builtin:world", "world": WORLD}, chat],
            "held_out": [{**chat, "split": "held_out"}],
        },
        "correct": {"tokens": 1280, "sequence_length": 64, "batch_size": 4, "warmup_steps": 1},
        "score": {"samples": 8, "sequence_length": 64},
        "students": {"depth": {"prune": {"num_hidden_layers": 1}}},
        "distill": {"tokens": 1280, "sequence_length": 64, "batch_size": 4, "warmup_steps": 1},
        "evaluate": {
            "sequence_length": 64, "max_tokens": 600, "resamples": 100, "max_new_tokens": 4, "prompt_count": 1,
            "tasks": {skill: {"data": "builtin:world", "limit": 2, "max_new_tokens": 8} for skill in SKILLS},
        },
    }  # fmt: skip
    return parse(Recipe, raw, "test")


def test_from_nothing_to_a_student_evaluated_on_four_skills(tmp_path: Path) -> None:
    plan = make_plan(recipe(), tmp_path / "run")
    run_plan(plan, Console())
    assert all(step.state() == "done" for step in make_plan(recipe(), tmp_path / "run").steps)
    evaluation = next(step for step in plan.steps if step.name == "depth evaluate").artifact.path
    tasks = json.loads((evaluation / "results.json").read_text())["tasks"]
    assert list(tasks) == list(SKILLS)
    assert all(task["items"] == 2 for task in tasks.values())
