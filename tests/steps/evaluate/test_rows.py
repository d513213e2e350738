import json
from pathlib import Path

import pytest

from prunus.errors import DataError
from prunus.steps.evaluate.rows import local_parts


@pytest.mark.parametrize(
    ("kind", "row", "wanted"),
    [
        (
            "arc_easy",
            {"query": "Question: What?", "choices": ["x", "y"], "gold": 1},
            {"question": "What?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
        ),
        (
            "piqa",
            {"query": "Question: How?\nAnswer:", "choices": ["x", "y"], "gold": 0},
            {"goal": "How?", "sol1": "x", "sol2": "y", "label": 0},
        ),
        (
            "winogrande",
            {"context_options": ["It is as Sarah", "It is as Sam"], "continuation": "said.", "gold": 1},
            {"sentence": "It is as _ said.", "option1": "Sarah", "option2": "Sam", "answer": "2"},
        ),
        (
            "winogrande",
            {"context_options": ["Sarah", "Sam"], "continuation": "said.", "gold": 0},
            {"sentence": "_ said.", "option1": "Sarah", "option2": "Sam", "answer": "1"},
        ),
        ("lambada_openai", {"context": "a plum", "continuation": "tree"}, {"text": "a plum tree"}),
        ("hellaswag", {"ctx_a": "x", "label": 1}, {"ctx_a": "x", "label": 1}),
        ("piqa", {"goal": "x"}, {"goal": "x"}),
        ("a task that the table has not", {"x": 1}, {"x": 1}),
    ],
)
def test_rows_get_the_columns_of_the_hub(tmp_path: Path, kind: str, row: dict, wanted: dict) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    assert list(local_parts(kind, str(tmp_path / "x.jsonl"), "tasks.x")) == [("", [wanted], [])]


def test_rows_in_no_known_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"tasks.x.data: .* a row has no known format of piqa: KeyError"):
        list(local_parts("piqa", str(tmp_path / "x.jsonl"), "tasks.x"))


def test_a_folder_is_read_in_the_tasks_format_if_it_has_one(tmp_path: Path) -> None:
    for part in ("test", "dev"):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"law_{part}.csv").write_text("q,a,b,c,d,C\n")
    row = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2}
    assert list(local_parts("mmlu", str(tmp_path), "tasks.mmlu")) == [("law", [row], [row])]
    (tmp_path / "rows.jsonl").write_text('{"goal": "x"}\n')
    assert list(local_parts("piqa", str(tmp_path), "tasks.piqa")) == [("", [{"goal": "x"}], [])]
