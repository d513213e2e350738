import json
from pathlib import Path

import pytest

from prunus.errors import DataError
from prunus.evaluate.rows import local_rows, mmlu_rows


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
    ],
)
def test_rows_get_the_columns_of_the_hub(tmp_path: Path, kind: str, row: dict, wanted: dict) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    assert local_rows(kind, str(tmp_path / "x.jsonl"), "tasks.x") == [wanted]


def test_rows_in_no_known_form_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"tasks.x.data: .* a row is not in a form of piqa: KeyError"):
        local_rows("piqa", str(tmp_path / "x.jsonl"), "tasks.x")


def test_mmlu_comes_by_subject_with_names_or_without(tmp_path: Path) -> None:
    for part in ("test", "dev"):
        (tmp_path / part).mkdir()
    (tmp_path / "test" / "law_test.csv").write_text("question,choice0,choice1,choice2,choice3,answer\nq,a,b,c,d,2\n")
    with pytest.raises(DataError, match="law_dev.csv: there is no such file; it holds the worked examples"):
        list(mmlu_rows(str(tmp_path), "tasks.mmlu"))
    (tmp_path / "dev" / "law_dev.csv").write_text('"p, q",a,b,c,d,D\n')
    ((subject, rows, shown),) = mmlu_rows(str(tmp_path), "tasks.mmlu")
    assert subject == "law"
    assert rows == [{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2}]
    assert shown == [{"question": "p, q", "choices": ["a", "b", "c", "d"], "answer": 3}]
    (tmp_path / "dev" / "law_dev.csv").write_text("p,a,b,c,d,E\n")
    with pytest.raises(DataError, match="a line is not a question, its choices and A, B, C or D"):
        list(mmlu_rows(str(tmp_path), "tasks.mmlu"))
