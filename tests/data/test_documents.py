"""Sources of conversations as text to train on: rendered as alignment renders them, mixed with text, resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.cli.main import main
from prunus.config import parse
from prunus.console import Console
from prunus.data import step
from prunus.data.config import ChatSource, DataConfig, Source, TokensConfig
from prunus.data.documents import documents, tokens_config
from prunus.data.step import Inputs, run
from prunus.data.stream import Stream
from prunus.data.template import PLAIN
from prunus.data.tokens import Tokens
from prunus.errors import DataError, ModelError, RecipeError
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import Recipe
from prunus.runtime import Runtime
from prunus.steps.conversations.config import ConversationsConfig
from prunus.steps.conversations.step import Inputs as ChatInputs
from prunus.steps.conversations.step import run as read_chat
from tests.pipeline.recipes import tiny_recipe
from tests.tiny import make_model

QUIET = Console(quiet=True)
FORMS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"messages": [{"role": "user", "content": f"what is {i}"}, {"role": "assistant", "content": f"it is {i}"},
                      {"role": "user", "content": "sure?"}, {"role": "assistant", "content": "yes"}]}
        for i in range(7)
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": f"why {i}"}, {"from": "gpt", "value": f"so {i}"}]}
        for i in range(5)
    ],
    "alpaca": [{"instruction": f"add {i}", "input": "1", "output": f"{i + 1}"} for i in range(3)],
    "tools": [
        {"messages": [{"role": "user", "content": f"rain in {i}?"},
                      {"role": "assistant", "content": "", "tool_calls": [
                          {"type": "function", "function": {"name": "rain", "arguments": {"to": str(i), "by": 1}}}]}],
         "tools": [{"type": "function", "function": {"name": "rain", "parameters": {"type": "object", "properties": {
             "town": {"type": "string"}, "day": {"type": "integer"}}}}}]}
        for i in range(3)
    ],
    "completion": [{"prompt": f"hello {i}", "completion": "hi"} for i in range(4)],
}  # fmt: skip


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def stream(sources: list[dict[str, Any]], model: Path, out: Path, **options: Any) -> Tokens:
    out.mkdir()
    config = TokensConfig(template=PLAIN, **options)
    run(config, Inputs(tuple(parse(Source, one, "corpus") for one in sources), model), out, Runtime(), QUIET)
    return Tokens.open(out)


@pytest.mark.parametrize("form", FORMS)
def test_conversations_become_the_tokens_that_alignment_trains_on(form: str, model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", FORMS[form])
    ours = stream([{"path": str(file), "rows": "chat"}], model, tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    config = ConversationsConfig(wanted="answers", sequence_length=4096, template=PLAIN)
    read_chat(config, ChatInputs((ChatSource(path=str(file)),), model), tmp_path / "theirs", Runtime(), QUIET)
    theirs = Tokens.open(tmp_path / "theirs")
    assert len(ours.ends) == len(FORMS[form])
    for name in ("ids", "ends", "sizes", "answers"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert 0 < ours.loss_mask(0, len(ours.ids)).sum() < len(ours.ids)


def test_in_a_mixture_all_of_a_text_counts_and_of_a_conversation_the_answers(model: Path, tmp_path: Path) -> None:
    texts = write(tmp_path / "text.jsonl", [{"text": f"some words {i}"} for i in range(6)])
    chat = write(tmp_path / "chat.jsonl", FORMS["messages"])
    sources = [{"path": str(texts), "weight": 1}, {"path": str(chat), "rows": "chat", "weight": 1}]
    tokens = stream(sources, model, tmp_path / "out")
    alone = stream([{"path": str(chat), "rows": "chat"}], model, tmp_path / "alone")
    masks = [tokens.loss_mask(start, end - start) for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    plain = [mask.all() for mask in masks]
    assert plain == [True] * 6 + [False] * 7
    assert sum(int(mask.sum()) for mask in masks[6:]) == alone.loss_mask(0, len(alone.ids)).sum()


def test_a_killed_step_resumes_with_the_next_conversation(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "chat.jsonl", FORMS["messages"] + FORMS["sharegpt"])
    monkeypatch.setattr(step, "_BATCH", 2)
    source = {"path": str(file), "rows": "chat"}
    whole = stream([source], model, tmp_path / "whole")
    real, calls = Stream.checkpoint, []

    def killed(self: Stream, folder: Path, state: Any) -> None:
        real(self, folder, state)
        calls.append(state)
        if len(calls) == 3:
            raise KeyboardInterrupt

    out, config = tmp_path / "out", TokensConfig(template=PLAIN)
    out.mkdir()
    inputs = Inputs((parse(Source, source, "corpus"),), model)
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, inputs, out, Runtime(checkpoint_minutes=0), QUIET)
    run(config, inputs, out, Runtime(), QUIET)
    resumed = Tokens.open(out)
    assert np.array_equal(resumed.ids, whole.ids)
    assert np.array_equal(resumed.answers, whole.answers)


def test_equal_conversations_are_on_the_same_side_of_the_split(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"hello {i}", "completion": "hi"} for i in range(60)]
    file = write(tmp_path / "chat.jsonl", rows)
    source = {"path": str(file), "rows": "chat"}
    parts = {
        part: stream([source], model, tmp_path / part, part=part, held_out_fraction=0.3)
        for part in ("train", "held_out")
    }
    counts = {part: len(tokens.ends) for part, tokens in parts.items()}
    assert sum(counts.values()) == 60
    assert 5 < counts["held_out"] < 35


def test_the_split_does_not_depend_on_the_file_or_the_row(tmp_path: Path) -> None:
    row = FORMS["messages"][0]
    files = [write(tmp_path / "a.jsonl", [row]), write(tmp_path / "b.jsonl", [FORMS["messages"][1], row])]
    texts = [list(documents(Source(path=str(file), rows="chat"), "here")) for file in files]
    assert texts[0][0] == texts[1][1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": 3}], "row 1 has the columns text; expected messages"),
        ([{"prompt": "a", "completion": ""}], "row 1, turn 2: the assistant's turn is empty"),
        ([*FORMS["messages"], {"messages": []}], "row 8"),
        ([{"prompt": "a", "check": {"answers": ["b"]}}], "row 1: the assistant has no turn; a row with a check"),
    ],
)
def test_a_row_that_holds_no_conversation_is_named(rows: list, message: str, model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "chat.jsonl", rows)
    with pytest.raises(DataError, match=message):
        stream([{"path": str(file), "rows": "chat"}], model, tmp_path / "out")


def test_a_file_of_conversations_read_as_text_is_recognised(tmp_path: Path) -> None:
    for form, rows in FORMS.items():
        file = write(tmp_path / f"{form}.jsonl", rows)
        with pytest.raises(DataError, match="has no column 'text'.*; for conversations, set rows: chat"):
            next(documents(Source(path=str(file)), "data.corpus.0"))
    file = write(tmp_path / "other.jsonl", [{"body": "a"}])
    with pytest.raises(DataError) as caught:
        next(documents(Source(path=str(file)), "data.corpus.0"))
    assert "rows: chat" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": "chat", "column": "body"}, "column: body is for rows: text"),
        ({"columns": {"messages": "dialog"}}, "columns: for rows: chat"),
        ({"rows": "talk"}, "rows"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(Source, {"path": "a.jsonl", **options}, "data.corpus.0")


def test_results_of_text_keep_their_fingerprints() -> None:
    assert not {"rows", "columns"} & set(Source(path="a").identity())
    assert "template" not in TokensConfig().identity()
    data = DataConfig(corpus=(Source(path="a"),), template="builtin:plain")
    assert tokens_config(data) == TokensConfig()
    data = DataConfig(corpus=(Source(path="a", rows="chat"),), template="builtin:plain")
    assert tokens_config(data).template == PLAIN


def chat_recipe(model: Path, chat: Path, text: Path, **data: Any) -> dict[str, Any]:
    recipe = tiny_recipe(model, text, text)
    corpus = [{"path": str(text), "weight": 1}, {"path": str(chat), "rows": "chat", "weight": 1}]
    return {**recipe, "data": {"corpus": corpus, "held_out": [{"path": str(chat), "rows": "chat"}], **data}}


def test_a_plan_shows_a_row_and_refuses_what_has_no_template(model: Path, corpus: Path, tmp_path: Path) -> None:
    chat = write(tmp_path / "chat.jsonl", FORMS["sharegpt"])
    plan = make_plan(
        parse(Recipe, chat_recipe(model, chat, corpus, template="builtin:plain"), "test"), tmp_path / "run"
    )
    (shown,) = {seen for seen in plan.previews}  # noqa: C416  # equal previews of corpus and held-out text are one
    assert shown.path == str(chat)
    with pytest.raises(RecipeError, match="data.corpus.1.rows: chat: the model's tokenizer has no chat template"):
        make_plan(parse(Recipe, chat_recipe(model, chat, corpus), "test"), tmp_path / "run")
    (tmp_path / "out").mkdir()
    inputs = Inputs((Source(path=str(chat), rows="chat"),), model)
    with pytest.raises(ModelError, match="has no chat template"):
        run(TokensConfig(), inputs, tmp_path / "out", Runtime(), QUIET)


def test_a_student_is_distilled_on_conversations_alone(model: Path, tmp_path: Path) -> None:
    (model / "chat_template.jinja").write_text(PLAIN)
    chat = write(tmp_path / "chat.jsonl", FORMS["messages"] * 8)
    words = ["distill", model, "--teacher", model, "--corpus", chat, "--rows", "chat", "--out", tmp_path / "out"]
    words += ["--tokens", 512, "--sequence-length", 16, "--batch-size", 4, "--states", "none"]
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
