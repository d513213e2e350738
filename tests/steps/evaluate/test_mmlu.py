from pathlib import Path

import pytest

from prunus.errors import DataError
from prunus.steps.evaluate.mmlu import mmlu_rows


def test_mmlu_comes_by_subject_with_names_or_without(tmp_path: Path) -> None:
    for part in ("test", "dev"):
        (tmp_path / part).mkdir()
    (tmp_path / "test" / "law_test.csv").write_text("question,choice0,choice1,choice2,choice3,answer\nq,a,b,c,d,2\n")
    with pytest.raises(DataError, match="law_dev.csv: file not found; it has the few-shot examples"):
        list(mmlu_rows(str(tmp_path), "tasks.mmlu"))
    (tmp_path / "dev" / "law_dev.csv").write_text('"p, q",a,b,c,d,D\n')
    ((subject, rows, shown),) = mmlu_rows(str(tmp_path), "tasks.mmlu")
    assert subject == "law"
    assert rows == [{"question": "q", "choices": ["a", "b", "c", "d"], "answer": 2}]
    assert shown == [{"question": "p, q", "choices": ["a", "b", "c", "d"], "answer": 3}]
    (tmp_path / "dev" / "law_dev.csv").write_text("p,a,b,c,d,E\n")
    with pytest.raises(DataError, match="a line is not a question, its choices and A, B, C or D"):
        list(mmlu_rows(str(tmp_path), "tasks.mmlu"))
