import json
from pathlib import Path

import pytest

from prunus.console import Console
from prunus.inference import local
from prunus.models.pretrained import load_tokenizer
from prunus.steps.evaluate.answers import CALLING, Answerer, as_tool, transcript
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.items import Item
from tests.tiny import load

QUIET = Console(quiet=True)
PLAIN = EvaluateConfig(chat_template="plain")
SHOWS = "{{ tools | tojson }}{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}<s>assistant:"
HIDES = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}<s>assistant:"
FUNCTION = {
    "name": "f",
    "parameters": {"type": "dict", "properties": {"x": {"type": "array", "items": {"type": "float"}}}},
}


@pytest.fixture(scope="module")
def parts(teacher: Path):
    return load(teacher), load_tokenizer(teacher)


@pytest.fixture
def answerer(parts, tmp_path: Path) -> Answerer:
    return Answerer(*parts, 128, tmp_path, 3)


def items(count: int, then=()) -> list[Item]:
    asks = ["a plum tree", "once", "a cherry tree that bore", "upon a time"]
    return [
        Item(str(i), [{"role": "user", "content": asks[i % 4]}], {}, [], list(then) if i % 2 else [], None)
        for i in range(count)
    ]


def answers_of(answerer: Answerer, asked: list[Item], task: TaskConfig, config=PLAIN):
    return answerer.answer("x", asked, task, config, QUIET)


def test_every_turn_is_queried_after_the_earlier_answers(answerer: Answerer, monkeypatch) -> None:
    read = []
    write = local.generate
    monkeypatch.setattr(local, "generate", lambda model, batch, *rest: read.extend(batch) or write(model, batch, *rest))
    given = answers_of(answerer, items(3, then=["and?"]), TaskConfig(max_new_tokens=6))
    assert [len(answers) for ((answers),) in given] == [1, 2, 1]
    second = read[-1].text
    first = given[1][0][0].text
    assert second == f"User: once\n\nAssistant: {first}\n\nUser: and?\n\nAssistant:"
    assert list(transcript(items(2, then=["and?"])[1], given[1][0]))[1] == (
        ["once", "and?"], [answer.text for answer in given[1][0]]
    )  # fmt: skip


def test_stored_answers_are_not_requested_again(answerer: Answerer, monkeypatch) -> None:
    task = TaskConfig(max_new_tokens=6, samples=2, temperature=1.0)
    whole = answers_of(answerer, items(5, then=["and?"]), task)
    monkeypatch.setattr(local, "generate", lambda *arguments: pytest.fail("asked again"))
    assert answers_of(answerer, items(5, then=["and?"]), task) == whole
    (kept,) = answerer.out.glob("checkpoints/x-0/answers.jsonl")
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 2 * (5 + 2)
    monkeypatch.undo()
    kept.write_text("".join(lines[:4]) + lines[4][:9])
    assert answers_of(answerer, items(5, then=["and?"]), task) == whole


def test_samples_differ_and_do_not_depend_on_portions(parts, tmp_path: Path) -> None:
    task = TaskConfig(max_new_tokens=8, samples=3, temperature=1.5)
    found = [answers_of(Answerer(*parts, 128, tmp_path / str(size), size), items(4), task) for size in (1, 5)]
    assert found[0] == found[1]
    assert any(len({answer.text for (answer,) in samples}) > 1 for samples in found[0])


def test_a_prompt_that_does_not_fit_is_not_queried(answerer: Answerer) -> None:
    long = Item("long", [{"role": "user", "content": "plum " * 200}], {}, [], [], None)
    given = answers_of(answerer, [*items(1), long], TaskConfig(max_new_tokens=6))
    assert given[0][0][0].ids
    assert (given[1][0][0].finish, given[1][0][0].text) == ("too long", "")


def test_answers_leave_half_of_the_context_to_prompts(answerer: Answerer) -> None:
    ((answers,),) = answers_of(answerer, items(1), TaskConfig(max_new_tokens=9999))
    assert len(answers[0].ids) <= 64


def test_tools_are_passed_to_a_template_that_shows_them_and_else_written_as_text(teacher: Path, tmp_path: Path) -> None:
    asked = Item("a", [{"role": "user", "content": "x?"}], {}, [FUNCTION], [], None)
    tokenizer = load_tokenizer(teacher)
    answerer = Answerer(None, tokenizer, 128, tmp_path, 1)  # type: ignore[arg-type]
    tokenizer.chat_template = SHOWS
    shown = answerer.prompt(asked, [], 0, "x", plain=False).text
    assert json.loads(shown[: shown.index("<s>")]) == [as_tool(FUNCTION)]
    assert CALLING not in shown
    tokenizer.chat_template = HIDES
    hidden = answerer.prompt(asked, [], 0, "x", plain=False).text
    assert hidden.startswith(f"<s>user: {CALLING}[")
    assert hidden.endswith("\n\nx?<s>assistant:")


def test_types_get_the_names_of_json_schema() -> None:
    parameters = as_tool({"type": "function", "function": FUNCTION})["function"]["parameters"]
    assert parameters == {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "number"}}}}


def test_a_model_that_continues_with_the_users_turn_is_stopped(answerer: Answerer, monkeypatch) -> None:
    seen = []
    write = local.generate
    monkeypatch.setattr(local, "generate", lambda m, b, w, *rest: seen.append(w) or write(m, b, w, *rest))
    answers_of(answerer, items(1), TaskConfig(max_new_tokens=4))
    assert "\n\nUser:" in seen[0].stop
