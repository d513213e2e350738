import json
from pathlib import Path

import pytest

from prunus.config import parse
from prunus.errors import DataError, RecipeError
from prunus.steps.evaluate import check
from prunus.steps.evaluate.check import check_chat, check_tasks, tasks_fingerprint
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import read_items
from prunus.steps.evaluate.tasks import base_tasks
from tests.real import DATA, real

ASK = [{"role": "user", "content": "a plum?"}]


def write(file: Path, *rows) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def read(data: str, skill: str, **options):
    return read_items(TaskConfig(data=data, **options), skill, "tasks.x")


def test_items_in_our_format_are_read(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "messages": ASK, "check": {"answers": ["yes"]}, "group": "g", "then": ["and?"], "tools": [{}]},
        {"messages": ASK, "check": {"answers": []}},
    ]
    first, second = read(write(tmp_path / "x.jsonl", *rows), "rag")
    assert (first.id, first.group, first.then, first.tools) == ("a", "g", ["and?"], [{}])
    assert (second.id, second.group, second.then, second.tools) == ("2", None, [], [])
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert read(str(tmp_path / "list.json"), "rag") == [first, second]


def test_ifeval(tmp_path: Path) -> None:
    row = {"key": 7, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (item,) = read(write(tmp_path / "x.jsonl", row), "instruction_following")
    assert (item.id, item.messages) == ("7", [{"role": "user", "content": "p"}])
    assert item.check == {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_mt_bench_with_its_references(tmp_path: Path) -> None:
    rows = [{"question_id": i, "category": "math", "turns": ["one", "two"]} for i in (1, 2)]
    gold = write(tmp_path / "gold.jsonl", {"question_id": 2, "choices": [{"turns": ["1", "2"]}]})
    first, second = read(write(tmp_path / "x.jsonl", *rows), "roleplay", gold=gold)
    assert first.check == {"judge": True}
    assert second.check == {"judge": True, "reference": ["1", "2"]}
    assert (second.then, second.group) == (["two"], "math")


def test_squad_has_passages_and_what_they_do_not_answer(tmp_path: Path) -> None:
    asked = [{"id": "a", "question": "who?", "answers": [{"text": "Jan"}, {"text": "Jan"}]},
             {"id": "b", "question": "why?", "answers": []}]  # fmt: skip
    whole = {"data": [{"title": "t", "paragraphs": [{"context": "Jan came.", "qas": asked}]}]}
    (tmp_path / "x.json").write_text(json.dumps(whole, indent=1))
    first, second = read(str(tmp_path / "x.json"), "rag")
    assert first.check == {"answers": ["Jan"]}
    assert "Jan came." in first.messages[-1]["content"]
    assert first.messages[-1]["content"].endswith("Question: who?")
    assert (first.group, second.group, second.check) == ("answerable", "unanswerable", {"answers": []})


def test_chatrag_bench(tmp_path: Path) -> None:
    row = {"messages": [*ASK, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ripe?"}],
           "ctxs": [{"text": f"passage {i}"} for i in range(9)], "answers": ["no"]}  # fmt: skip
    absent = {**row, "answers": ["Sorry. I cannot find the answer based on the context."]}
    first, second = read(write(tmp_path / "x.json", row, absent), "rag")
    assert first.messages[:2] == row["messages"][:2]
    assert "passage 4\n\nQuestion: ripe?" in first.messages[-1]["content"]
    assert (first.check, second.check) == ({"answers": ["no"]}, {"answers": []})


def test_bfcl_in_all_its_categories(tmp_path: Path) -> None:
    def row(name: str) -> dict:
        return {"id": name, "question": [ASK], "function": [{"name": "f", "parameters": {"properties": {}}}]}

    write(tmp_path / "BFCL_v4_simple.json", row("simple_0"), row("simple_1"), row("simple_2"))
    write(tmp_path / "BFCL_v4_irrelevance.json", row("irrelevance_0"))
    write(tmp_path / "BFCL_v4_live_relevance.json", row("live_relevance_0-0-0"))
    with pytest.raises(DataError, match=r"simple_0: has no possible answer; set gold"):
        read(str(tmp_path), "function_calling")
    answers = [{"id": f"simple_{i}", "ground_truth": [{"f": {}}]} for i in range(3)]
    write(tmp_path / "possible_answer" / "BFCL_v4_simple.json", *answers)
    found = {item.id: item for item in read(str(tmp_path), "function_calling", limit=2)}
    assert {name: item.check["calls"] for name, item in found.items()} == {
        "simple_0": [{"f": {}}], "simple_1": [{"f": {}}], "irrelevance_0": [], "live_relevance_0-0-0": "any"
    }  # fmt: skip
    assert found["live_relevance_0-0-0"].group == "live_relevance"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": ASK, "check": {"answer": ["x"]}}, r"x.jsonl, item 1: check: for rag, expected one of answers"),
        ({"messages": [], "check": {"answers": []}}, r"messages: expected a list of \{role, content\} that ends"),
        ({"mesages": ASK, "check": {"answers": []}}, r"unknown key 'mesages' \(did you mean `messages`"),
        ({"text": "x"}, r"rows have text; expected items"),
        ({"instruction_id_list": []}, r"a row does not have the format of the first one: KeyError\('kwargs'\)"),
    ],
)
def test_rows_that_are_no_items_are_refused(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "x.jsonl", row), "rag")


def test_files_without_any_are_refused(tmp_path: Path) -> None:
    for data, message in (
        (str(tmp_path / "no"), "expected a file, or a folder of .json"),
        (write(tmp_path / "x.jsonl"), "has no items"),
        (
            write(tmp_path / "y.jsonl", *[{"id": "a", "messages": ASK, "check": {"answers": []}}] * 2),
            "two items .* 'a'",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(data, "rag")
    (tmp_path / "z.json").write_text("{")
    with pytest.raises(DataError, match="not JSON, nor JSON by lines"):
        read(str(tmp_path / "z.json"), "rag")


@pytest.mark.parametrize("skill", ["instruction_following", "roleplay", "rag", "function_calling"])
def test_the_small_world_is_a_source(skill: str) -> None:
    items = read("builtin:world", skill, limit=5)
    assert len(items) == 5
    assert read("builtin:world", skill, limit=5, world={"seed": 1}) != items


def test_tasks_are_named_alone_with_a_path_or_with_options() -> None:
    asked = EvaluateConfig(tasks=["base", "piqa"]).all_tasks()
    assert list(asked) == base_tasks(run_code=False)
    config = EvaluateConfig(tasks={"base": {"limit": 3}, "piqa": "x.jsonl", "mine": {"kind": "rag", "data": "y"}})
    assert config.all_tasks()["mmlu"].limit == 3
    assert (config.all_tasks()["piqa"].data, config.all_tasks()["piqa"].limit) == ("x.jsonl", None)
    assert config.converses
    assert not EvaluateConfig(tasks=["base"]).converses


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["rag"], r"tasks.rag.data: missing; rag needs a file of items"),
        (["humaneval"], r"tasks.humaneval: executes generated code; allow that with run_code: true"),
        ({"a/b": "x"}, r"'a/b' is not a valid task name"),
        ({"rag": {"data": "x", "samples": 4}}, r"several answers at temperature 0 are identical"),
        ({"rag": {"data": "x", "world": {}}}, r"world: applies only to data: builtin:world"),
    ],
)
def test_tasks_that_cannot_be_are_refused(tasks, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(EvaluateConfig, {"tasks": tasks}, "test")


def test_what_no_one_knows_is_refused_with_the_nearest(monkeypatch) -> None:
    monkeypatch.setattr(check, "harness_tasks", frozenset)
    with pytest.raises(RecipeError, match=r"evaluate.tasks.hellaswg: unknown task .*did you mean `hellaswag`"):
        check_tasks(EvaluateConfig(tasks=["hellaswg"]))


def test_a_model_without_template_gets_no_conversation(tmp_path: Path) -> None:
    config = EvaluateConfig(tasks={"rag": "x"})
    check_chat(config, True, "the teacher")
    check_chat(config.model_copy(update={"chat_template": "plain"}), False, "the teacher")
    check_chat(EvaluateConfig(tasks=["piqa"]), False, "the teacher")
    with pytest.raises(RecipeError, match=r"evaluate.tasks.rag: needs a chat template, and the teacher has none"):
        check_chat(config, False, "the teacher")


def test_what_the_data_hold_decides_and_not_where_they_lie(tmp_path: Path) -> None:
    row = {"messages": ASK, "check": {"answers": []}}
    one, two = write(tmp_path / "a" / "x.jsonl", row), write(tmp_path / "b" / "x.jsonl", row)
    three = write(tmp_path / "c" / "x.jsonl", row, row)
    first, second, third = (EvaluateConfig(tasks={"rag": data}) for data in (one, two, three))
    assert first.identity() == second.identity()
    assert tasks_fingerprint(first) == tasks_fingerprint(second) != tasks_fingerprint(third)
    assert tasks_fingerprint(EvaluateConfig(tasks=["piqa"])) is None


@real("bfcl")
def test_real_files_are_read_whole() -> None:
    counts = {
        ("ifeval/input_data.jsonl", "instruction_following"): 541,
        ("mt-bench/mt_bench_question.jsonl", "roleplay"): 80,
        ("xquad/xquad.en.json", "rag"): 1190,
        ("bfcl", "function_calling"): 1554,
    }
    for (path, skill), count in counts.items():
        assert len(read(str(DATA / path), skill)) == count
