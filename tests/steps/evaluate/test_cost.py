import json
from pathlib import Path

from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.cost import task_costs


def test_items_and_tokens_are_known_before(tmp_path: Path) -> None:
    """Twice the samples are twice the tokens, and a second turn reads the first."""
    rows = [{"messages": [{"role": "user", "content": "x" * 400}], "check": {"answers": ["a"]}} for _ in range(5)]
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text("".join(json.dumps(row) + "\n" for row in rows))
    two.write_text("".join(json.dumps({**row, "then": ["and?"]}) + "\n" for row in rows))
    local = tmp_path / "piqa.jsonl"
    local.write_text("".join(json.dumps({"query": "x" * 400, "choices": ["a", "b"], "gold": 1}) + "\n" for _ in rows))
    given = {"kind": "rag", "max_new_tokens": 10}
    tasks = {
        "once": {**given, "data": str(one)},
        "twice": {**given, "data": str(one), "samples": 2, "temperature": 1.0},
        "turns": {**given, "data": str(two)},
        "piqa": {},
        "few": {"kind": "piqa", "data": str(local), "num_fewshot": 3, "limit": 2},
    }
    found = task_costs(EvaluateConfig(tasks=tasks))
    assert found["once"].items == 5
    assert 5 * (100 + 10) <= found["once"].tokens <= 5 * (120 + 10)
    assert found["twice"].tokens == 2 * found["once"].tokens
    assert found["turns"].tokens > 2 * found["once"].tokens + 5 * 10 - 1
    assert found["turns"].longest * 5 == found["turns"].tokens
    assert (found["piqa"].items, found["piqa"].tokens) == (None, 0)
    assert found["few"].items == 2
    assert 2 * 4 * 100 <= found["few"].tokens <= 2 * 4 * 125
