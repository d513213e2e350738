"""The first table: what it shows, what it marks as best, and its width."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from prunus.report.records import load_run
from prunus.report.step import write_report
from prunus.report.summary import best, summary
from tests.report.making import make_run, write

PAGE = 1160
"""Pixels for a table on a page of 1,200."""
CHARACTER, PADDING = 7.5, 16
"""Pixels of a character at 14 pixels, and of a cell's padding."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def change(root: Path, folder: str, **facts) -> None:
    file = root / folder / "results.json"
    write(file, {**json.loads(file.read_text()), **facts})


def scored(kl: float, **shares: float) -> dict:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    tasks = {name: {"first": "acc", "unit": "share", "metrics": {"acc": figure(v)}} for name, v in shares.items()}
    return {"figures": {"nll": figure(1), "kl": figure(kl)}, "tasks": tasks}


def test_each_student_with_its_share_distance_scores_time_and_file(root: Path) -> None:
    change(root, "w/evaluate-00000000", **scored(0.25, a=0.5, b=0.9), parameters=2_270_234_624)
    change(root, "m/evaluate-00000000", **scored(0.75, a=0.6, b=0.6))
    alone = {"figures": {"nll": {"value": 1.0, "low": 1.0, "high": 1.0}}}
    change(root, "teacher/evaluate-00000000", **{**scored(0, a=1, b=1), **alone})
    table = summary(load_run(root))
    assert table.header == ("model", "parameters", "KL to teacher", "a", "b", "mean of tasks", "time", "smallest file")
    assert table.rows == [
        ["teacher", "4.54B", "", "100.0", "100.0", "100.0", "1m 01s", ""],
        ["w: pruned + distilled + aligned (DPO, GRPO)", "2.27B, 50%", "<b>0.250</b>", "50.0", "<b>90.0</b>",
         "<b>70.0</b>", "4m 04s", "2 MB (gguf-q4_k_m)"],
        ["m: merged (linear, evolved)", "4.54B, 100%", "0.750", "<b>60.0</b>", "60.0", "60.0", "1m 01s", ""],
    ]  # fmt: skip
    assert best(load_run(root)) == [
        (
            "Closest to the teacher on held-out text",
            "w: pruned + distilled + aligned (DPO, GRPO) (2.27B parameters, 50% of the teacher), "
            "KL 0.250 ± 0.010 nats per token",
        ),
        (
            "Highest mean of the tasks",
            "w: pruned + distilled + aligned (DPO, GRPO) (2.27B parameters, 50% of the teacher), 70.0; teacher 100.0",
        ),
    ]


def test_no_mean_where_a_score_is_missing_and_less_is_better_for_a_loss(root: Path) -> None:
    table = summary(load_run(root))  # grades, a perplexity and a task without score
    assert "mean of tasks" not in table.header
    assert len(best(load_run(root))) == 1
    file = root / "m" / "evaluate-00000000" / "results.json"
    found = json.loads(file.read_text())
    found["tasks"]["wikitext"]["metrics"]["word_perplexity"]["value"] = 11.0
    write(file, found)
    column = [row[table.header.index("wikitext")] for row in summary(load_run(root)).rows]
    assert column == ["21.500", "21.500", "<b>11.000</b>"]


def test_many_tasks_are_shown_as_their_mean(root: Path) -> None:
    many = {f"task_{i}": 0.5 for i in range(6)}
    for subject in ("teacher", "w", "m"):
        change(root, f"{subject}/evaluate-00000000", **scored(0.5, **many))
    assert [name for name in summary(load_run(root)).header if "task" in name] == ["mean of tasks"]


def test_a_name_with_markup_is_escaped(root: Path) -> None:
    manifest = json.loads((root / "run.json").read_text())
    manifest["steps"][-1]["subject"] = "<i>"
    write(root / "run.json", manifest)
    page = write_report(root, root / "report.html").read_text()
    assert "<i>" not in page
    assert "&lt;i&gt;: reference" in page


def test_the_first_table_fits_a_page_of_1200_pixels(root: Path) -> None:
    names = ("instruction_following", "roleplay", "rag", "function_calling", "mmlu")
    for subject in ("teacher", "w", "m"):
        change(root, f"{subject}/evaluate-00000000", **scored(0.5, **dict.fromkeys(names, 1.0)))
    page = write_report(root, root / "report.html").read_text()
    first, second = re.findall(r"<table>(.*?)</table>", page, re.DOTALL)[:2]
    assert least_width(first) < PAGE
    assert least_width(second) < PAGE


def least_width(table: str) -> float:
    """The width of a table whose titles break after underscores and spaces, and whose names break at spaces."""
    rows = [
        re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    ]
    cells = [[re.split(r"<wbr>| ", cell) for cell in rows[0]]]
    cells += [[row[0].split(" "), *([cell] for cell in row[1:])] for row in rows[1:]]
    texts = [[[unescape(re.sub(r"<.*?>", "", part)) for part in cell] for cell in row] for row in cells]
    longest = [max(len(part) for row in texts for part in row[i]) for i in range(len(texts[0]))]
    return sum(CHARACTER * length + PADDING for length in longest)
