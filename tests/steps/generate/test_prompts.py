from pathlib import Path

import pytest

from prunus.data.config import Source
from prunus.data.tokens import Tokens
from prunus.errors import DataError
from prunus.models.folder import has_chat_template
from prunus.models.pretrained import load_tokenizer
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.generate.prompts import check_prompts, conversations, openings, read_prompts
from tests.steps.generate.making import make_stream, with_template, write_rows

USER, ANSWER = {"role": "user", "content": "a plum?"}, {"role": "assistant", "content": "a cherry."}
SYSTEM = {"role": "system", "content": "be brief"}


def ask(sources: list[Path], tokenizer, column: str = "messages", weights=None, **options):
    weights = weights or [None] * len(sources)
    chosen = tuple(
        Source(path=str(path), column=column, weight=weight) for path, weight in zip(sources, weights, strict=True)
    )
    return read_prompts(chosen, GenerateConfig(prompts=chosen, **options), tokenizer, 500)


def test_openings_are_the_first_tokens_of_documents_drawn_by_the_seed(teacher, corpus, tmp_path) -> None:
    tokens = Tokens.open(make_stream(teacher, corpus, tmp_path / "stream"))
    tokenizer = load_tokenizer(teacher)
    config = GenerateConfig(samples=10, prompt_tokens=5, seed=4)
    prompts = openings(tokens, config, tokenizer)
    starts = [0, *tokens.ends[:-1].tolist()]
    for number, prompt in enumerate(prompts):
        start = starts[prompt.source["document"]]
        assert prompt.number == number
        assert prompt.ids == tokens.ids[start : start + 5].tolist()
        assert prompt.text == tokenizer.decode(prompt.ids)
    assert len({prompt.source["document"] for prompt in prompts}) == 10
    assert openings(tokens, config, tokenizer) == prompts
    assert openings(tokens, config.model_copy(update={"seed": 5}), tokenizer) != prompts
    assert openings(tokens, config.model_copy(update={"samples": 4}), tokenizer) == prompts[:4]
    with pytest.raises(DataError, match=r"generate.prompt_tokens: 9999, but no document .* the longest has \d+ tokens"):
        openings(tokens, config.model_copy(update={"prompt_tokens": 9999}), tokenizer)


def test_an_opening_ends_with_a_whole_character(teacher, tmp_path) -> None:
    file = write_rows(tmp_path / "x.jsonl", "ü" * 20, column="text")
    tokens = Tokens.open(make_stream(teacher, file, tmp_path / "stream"))
    (prompt,) = openings(tokens, GenerateConfig(prompt_tokens=5), load_tokenizer(teacher))
    assert prompt.text == "üü"
    assert len(prompt.ids) == 4


def test_conversations_are_rendered_without_their_answer(teacher, tmp_path) -> None:
    tokenizer = load_tokenizer(with_template(teacher, tmp_path / "chat"))
    rows = [SYSTEM, USER, ANSWER, USER, ANSWER], [USER, ANSWER, ANSWER], [USER], [USER, ANSWER, USER]
    prompts, too_long = ask([write_rows(tmp_path / "x.jsonl", *rows)], tokenizer)
    assert [prompt.text for prompt in prompts] == [
        "<s>system: be brief\n<s>user: a plum?\n<s>assistant: a cherry.\n<s>user: a plum?\n<s>assistant:",
        "<s>user: a plum?\n<s>assistant:",
        "<s>user: a plum?\n<s>assistant:",
        "<s>user: a plum?\n<s>assistant: a cherry.\n<s>user: a plum?\n<s>assistant:",
    ]
    assert too_long == 0
    assert prompts[-1].ids == tokenizer(prompts[-1].text, add_special_tokens=False)["input_ids"]
    assert prompts[-1].ids.count(tokenizer.bos_token_id) == prompts[-1].text.count("<s>")


def test_a_text_is_a_question_where_there_is_a_template_and_a_beginning_where_not(teacher, tmp_path) -> None:
    file = write_rows(tmp_path / "x.jsonl", "a plum", " ", "a cherry", column="text")
    chat, plain = (load_tokenizer(folder) for folder in (with_template(teacher, tmp_path / "chat"), teacher))
    prompts, _ = ask([file], chat, "text")
    assert [prompt.text for prompt in prompts] == [f"<s>user: {text}\n<s>assistant:" for text in ("a plum", "a cherry")]
    assert [prompt.source["row"] for prompt in prompts] == [1, 3]
    assert [prompt.text for prompt in ask([file], plain, "text")[0]] == ["a plum", "a cherry"]


def test_sources_are_read_in_turn_or_by_weight(teacher, tmp_path) -> None:
    files = [write_rows(tmp_path / f"{name}.jsonl", *[name] * 9, column="text") for name in ("plum", "cherry")]
    files.append(write_rows(tmp_path / "few.jsonl", "fig", column="text"))
    tokenizer = load_tokenizer(teacher)
    prompts, _ = ask(files, tokenizer, "text", samples=7)
    assert [prompt.text for prompt in prompts] == ["plum", "cherry", "fig", "plum", "cherry", "plum", "cherry"]
    weighted, _ = ask(files[:2], tokenizer, "text", weights=[3, 1], samples=8)
    assert [prompt.text for prompt in weighted].count("plum") == 6
    assert len(ask(files, tokenizer, "text", samples=99)[0]) == 19


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "row 1: 'messages' holds int; expected text, or a list of {role, content}"),
        ([{"from": "human", "value": "a"}], "row 1: a turn is {.*}; expected {role: text, content: text}"),
        (["a", "b"], "row 1: a turn is {str}"),
        ([ANSWER], "row 1: no turn before the answer"),
        ([{"role": "tool", "content": "x"}], "row 1: the chat template refuses it: no tools"),
    ],
)
def test_rows_that_are_no_prompt_are_refused(teacher, tmp_path, value, message: str) -> None:
    tokenizer = load_tokenizer(with_template(teacher, tmp_path / "chat"))
    file = write_rows(tmp_path / "x.jsonl", value)
    with pytest.raises(DataError, match=message.replace("{", r"\{")):
        ask([file], tokenizer)


def test_what_a_source_lacks_is_found_by_its_first_row(teacher, tmp_path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [USER])
    check_prompts(Source(path=str(file), column="messages"), "here", has_template=True)
    with pytest.raises(DataError, match=r"here.column: 'messages' of .* no chat template; use a column of plain text"):
        check_prompts(Source(path=str(file), column="messages"), "here", has_template=False)
    with pytest.raises(DataError, match=r"here.column: .* no column 'message' \(did you mean `messages`\?\)"):
        check_prompts(Source(path=str(file), column="message"), "here", has_template=True)
    blank = write_rows(tmp_path / "blank.jsonl", [], [])
    with pytest.raises(DataError, match=r"has no prompts in its column 'messages'"):
        list(conversations(Source(path=str(blank), column="messages"), "here"))


def test_a_template_is_read_from_any_of_its_files(teacher, tmp_path) -> None:
    assert not has_chat_template(teacher)
    assert has_chat_template(with_template(teacher, tmp_path / "file"))
    tokenizer = load_tokenizer(teacher)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "new")
    tokenizer.save_pretrained(tmp_path / "old", save_jinja_files=False)
    assert has_chat_template(tmp_path / "new")
    assert has_chat_template(tmp_path / "old")
    assert not has_chat_template(tmp_path / "nowhere")
