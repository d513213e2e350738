"""Conversations in the forms that people keep them in."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.data.chat import conversation, conversations
from prunus.data.config import ChatSource
from prunus.data.template import Dialogue, Script
from prunus.errors import DataError
from tests.data.templates import CHATML
from tests.fuzz import fuzz
from tests.real import DATA

REAL = DATA / "chat"
ASK, SAY = {"role": "user", "content": "plum?"}, {"role": "assistant", "content": "plum."}
NO = {"role": "assistant", "content": "no."}
RULE = {"role": "system", "content": "be brief"}
CALL = {"name": "pick", "arguments": {"tree": "plum"}}
CALLED = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
GIVEN = {"role": "tool", "content": "3 plums"}

FORMS = {
    "messages": {"messages": [ASK, SAY]},
    "messages as text": {"messages": json.dumps([ASK, SAY])},
    "messages in parts": {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "plum."}]}]},
    "fields not set": {"messages": [{**ASK, "tool_calls": None}, SAY], "tools": None},
    "conversations": {"conversations": [ASK, SAY]},
    "ShareGPT": {"conversations": [{"from": "human", "value": "plum?"}, {"from": "gpt", "value": "plum."}]},
    "NeMo": {"mask": "User", "conversations": [{"from": "User", "value": "plum?"},
                                               {"from": "Assistant", "value": "plum."}]},
    "Alpaca": {"instruction": "plum?", "input": "", "output": "plum."},
    "prompt": {"prompt": "plum?", "completion": "plum."},
    "prompt and response": {"prompt": "plum?", "response": "plum."},
    "prompt in messages": {"prompt": [ASK], "completion": [SAY]},
    "question and answer": {"question": "plum?", "answer": "plum."},
    "input alone": {"instruction": "", "input": "plum?", "output": "plum."},
    "transcript": {"text": "\n\nHuman: plum?\n\nAssistant: plum."},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_means_the_same(form: str) -> None:
    read = conversation(FORMS[form], "here")
    assert (read.messages, read.tools, read.rejected) == ([ASK, SAY], None, None)


def test_systems_inputs_and_histories_become_turns() -> None:
    row = {"instruction": "plum?", "input": "ripe", "output": "plum.", "system": "be brief", "history": [["a", "b"]]}
    said = [(turn["role"], turn["content"]) for turn in conversation(row, "here").messages]
    assert said == [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "plum?\nripe"),
                    ("assistant", "plum.")]  # fmt: skip


CALLS = {
    "ShareGPT": [{"from": "human", "value": "plum?"}, {"from": "function_call", "value": json.dumps(CALL)},
                 {"from": "observation", "value": "3 plums"}, {"from": "gpt", "value": "plum."}],
    "OpenAI": [ASK, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "pick", "arguments": json.dumps({"tree": "plum"})}}]},
        {**GIVEN, "tool_call_id": "1"}, SAY],
}  # fmt: skip


@pytest.mark.parametrize("form", CALLS)
def test_calls_of_functions(form: str) -> None:
    schema = {"name": "pick", "parameters": {"type": "object"}}
    read = conversation({"conversations": CALLS[form], "tools": json.dumps([schema])}, "here")
    for turn in read.messages:
        turn.pop("tool_call_id", None)
        for call in turn.get("tool_calls", ()):
            call.pop("id", None)
    assert read.messages == [ASK, CALLED, GIVEN, SAY]
    assert read.tools == [{"type": "function", "function": schema}]


OLDER = {"name": "pick", "arguments": '{"tree": "plum"}'}


@pytest.mark.parametrize("content", ["", None])
def test_calls_in_the_older_form_and_their_answers(content: str | None) -> None:
    turns = [ASK, {"role": "assistant", "content": content, "function_call": OLDER},
             {"role": "function", "name": "pick", "content": "3 plums"}, SAY]  # fmt: skip
    read = conversation({"messages": turns}, "here")
    assert read.messages == [ASK, CALLED, {**GIVEN, "name": "pick"}, SAY]


def test_nulls_among_arguments_are_kept_where_the_file_has_them() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": None}}}]}
    for filled, arguments in ((False, {"x": None}), (True, {})):
        read = conversation({"messages": [ASK, turn]}, "here", filled=filled)
        assert read.messages[1]["tool_calls"][0]["function"]["arguments"] == arguments


def test_the_file_decides_whether_nulls_are_of_rows_or_of_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def turn(**arguments: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}

    given = [{"messages": [ASK, turn(x=1)]}, {"messages": [ASK, turn(y=None, z=2)]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "a.parquet")
    for name, wanted in (("a.jsonl", [{"x": 1}, {"y": None, "z": 2}]), ("a.parquet", [{"x": 1}, {"z": 2}])):
        read = conversations(ChatSource(path=str(tmp_path / name)), "x")
        assert [row.messages[1]["tool_calls"][0]["function"]["arguments"] for row in read] == wanted


MARKS = [{"weight": 0}, {"train": False}, {"loss": False}, {"loss_weight": 0.0}, {"trainable": False},
         {"training": 0}, {"loss_mask": 0}]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_turns_that_are_marked_as_not_to_be_learnt(mark: dict[str, Any]) -> None:
    (name,) = mark
    turns = [ASK, {**NO, **mark}, {**ASK, **mark}, {**SAY, name: 1}, ASK, {**SAY, name: None}]
    read = conversation({"messages": turns}, "here").messages
    assert [turn.get("learnt", True) for turn in read] == [True, False, True, True, True, True]
    assert all(name not in turn for turn in read)


PAIRS = {
    "TRL, explicit": {"prompt": [ASK], "chosen": [SAY], "rejected": [NO]},
    "TRL, implicit": {"chosen": [ASK, SAY], "rejected": [ASK, NO]},
    "UltraFeedback": {"prompt": "plum?", "chosen": [ASK, SAY], "rejected": [ASK, NO]},
    "texts": {"prompt": "plum?", "chosen": "plum.", "rejected": "no."},
    "NeMo": {"prompt": "plum?", "chosen_response": "plum.", "rejected_response": "no."},
    "ShareGPT": {"conversations": [{"from": "human", "value": "plum?"}], "chosen": {"from": "gpt", "value": "plum."},
                 "rejected": {"from": "gpt", "value": "no."}},
    "Alpaca": {"instruction": "plum?", "input": "", "chosen": "plum.", "rejected": "no."},
    "MedicalGPT": {"question": "plum?", "response_chosen": "plum.", "response_rejected": "no."},
    "distilabel": {"system": "", "input": "plum?", "chosen": "plum.", "rejected": "no."},
    "query": {"query": "plum?", "chosen": "plum.", "rejected": "no."},
    "hh-rlhf": {"chosen": "\n\nHuman: plum?\n\nAssistant: plum.", "rejected": "\n\nHuman: plum?\n\nAssistant: no."},
    "hh-rlhf, apart": {"prompt": "\n\nHuman: plum?\n\nAssistant:", "chosen": " plum.",
                       "rejected": "\n\nAssistant: no."},
}  # fmt: skip


@pytest.mark.parametrize("form", PAIRS)
@pytest.mark.parametrize("rewards", [None, ("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected")])
def test_every_form_of_a_pair_means_the_same(form: str, rewards: tuple[str, str] | None) -> None:
    more = {} if rewards is None else dict(zip(rewards, (4, 1.5), strict=True))
    read = conversation({**PAIRS[form], **more}, "here")
    for turns in (read.messages, read.rejected or []):
        turns[-1]["content"] = turns[-1]["content"].strip()
    assert (read.messages, read.rejected, read.prompt) == ([ASK, SAY], [ASK, NO], 1)
    assert read.rewards == (None if rewards is None else (4.0, 1.5))


def test_pairs_of_conversations_share_what_they_have_in_common() -> None:
    row = {"system": "be brief", "chosen": [ASK, SAY, ASK, SAY], "rejected": [ASK, SAY, ASK, NO]}
    read = conversation(row, "here")
    assert read.prompt == 4
    assert read.messages[:4] == [RULE, ASK, SAY, ASK]


def test_labels() -> None:
    for label in (True, False, 1, 0):
        read = conversation({"messages": [ASK, SAY], "label": label}, "here")
        assert (read.desirable, read.prompt) == (bool(label), 1)


def test_attributes() -> None:
    wanted = {"helpfulness": 4.0, "toxicity": 0.0}
    for value in ({"helpfulness": 4, "toxicity": 0, "humor": None}, "helpfulness:4,toxicity:0"):
        assert conversation({"messages": [ASK, SAY], "attributes": value}, "here").attributes == wanted


WRONG = [
    ({"text": "plum"}, "has the columns text; expected messages"),
    ({"messages": [ASK]}, "the assistant has no turn; roles: user"),
    ({"messages": [ASK, {**SAY, "content": " "}]}, "the assistant.s turn is empty"),
    ({"messages": [ASK, {**SAY, "content": ""}, ASK, SAY]}, "turn 2: the assistant.s turn is empty"),
    ({"messages": [SAY, ASK, SAY]}, "the assistant answers before the user asks anything"),
    ({"messages": [RULE, SAY]}, "the assistant answers before the user asks anything"),
    ({"prompt": [RULE], "completion": "x"}, "the assistant answers before the user asks anything"),
    ({"chosen": "x", "rejected": "y"}, "the assistant answers before the user asks anything"),
    ({"system": "x", "chosen": [SAY], "rejected": [NO]}, "the assistant answers before the user asks anything"),
    ({"chosen": [ASK, SAY], "rejected": [{**ASK, "content": "cherry?"}, NO]}, "different questions"),
    ({"chosen": [ASK, {**ASK, "content": "a"}, SAY], "rejected": [ASK, {**ASK, "content": "b"}, NO]},
     "answer different questions"),
    ({"prompt": [ASK, SAY], "chosen": "x", "rejected": "y"}, "chosen: the turn before it is the assistant's, too"),
    ({"prompt": "cherry?", "chosen": [ASK, SAY], "rejected": [ASK, NO]}, "without the row's prompt, 'cherry"),
    ({"prompt": "a", "question": "b", "completion": "x"}, "prompt and question could both be the prompt, and differ"),
    ({"messages": [{**ASK, "content": ""}, SAY]}, "turn 1: the user's turn is empty"),
    ({"messages": [ASK, None]}, "turn 2 is NoneType"),
    ({"messages": [ASK, {"role": "judge", "content": "x"}]}, "turn 2: the role is 'judge'"),
    ({"messages": [ASK, {**SAY, "weight": 0.5}]}, "turn 2: weight is 0.5; allowed: 0 or 1"),
    ({"messages": [ASK, {**SAY, "weight": "0"}]}, "turn 2: weight is '0'; allowed: 0 or 1"),
    ({"messages": [ASK, {**SAY, "weight": 0, "train": True}]}, "turn 2: weight, train contradict each other"),
    ({"messages": [ASK, {**SAY, "weight": 0}]}, "every assistant turn is excluded from training"),
    ({"messages": [{**ASK, "train": True}, SAY]}, "turn 1: train marks a turn of the user as trained on"),
    ({"messages": [ASK, {**SAY, "train_detail": [{"begin_offset": 0}]}]}, "train_detail is .* not supported"),
    ({"messages": [ASK, {**SAY, "content": [{"type": "image", "image": "x"}]}]}, "a part of the content is 'image'"),
    ({"messages": [ASK, {**SAY, "content": ["x"]}]}, "a part of the content is 'str'"),
    ({"messages": [ASK, {**CALLED, "function_call": CALL}]}, "function calls are given twice"),
    ({"messages": [{**ASK, "function_call": CALL}, SAY]}, "a turn of the user calls functions"),
    ({"messages": [ASK, {"role": "assistant", "function_call": {"name": "f", "arguments": "plum"}}]},
     r"a call of 'f' has the arguments \['plum'\]"),
    ({"messages": [ASK, {"role": "assistant", "function_call": {"name": "f", "inputs": {}}}]}, "has 'inputs'"),
    ({"messages": [ASK, SAY], "tools": 5}, "tools holds 5"),
    ({"messages": [ASK, SAY], "tools": [{"type": "function", "function": 5}]}, "tools holds"),
    ({"messages": [RULE, ASK, SAY], "system": "be long"}, "`system` holds 'be long', and the system turn 'be brief'"),
    ({"messages": [ASK, SAY], "system": 5}, "system is 5; expected text"),
    ({"instruction": "x", "output": "y", "history": 5}, "history is 5; expected pairs of question and answer"),
    ({"instruction": "x", "input": 3, "output": "y"}, "the input is 3; expected text"),
    ({"messages": "[" * 500}, "nested deeper than 100 levels|not JSON"),
    ({"messages": "[" * 500 + "]" * 500}, "nested deeper than 100 levels"),
    ({"messages": [ASK, SAY], "tools": "[" * 100_000 + "]" * 100_000}, "nested deeper than 100 levels"),
    ({"text": "plum"}, "has the columns text"),
    ({"prompt": "x", "chosen": "### Human: a\n### Assistant: b", "rejected": "c"},
     "chosen begins with a turn of its own"),
    ({"prompt": "x", "completion": "USER: a ASSISTANT: b"}, "completion begins with a turn of its own"),
    ({"prompt": "x", "completion": "<|im_start|>user\na<|im_end|>"}, "completion begins with a turn of its own"),
    ({"prompt": "x", "chosen": "[INST] a [/INST] b", "rejected": "c"}, "chosen begins with a turn of its own"),
    ({"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "assistant.s turn is empty"),
    ({"messages": [{"role": "assistent", "content": "x"}]}, r"turn 1: the role is 'assistent' \(did you mean"),
    ({"messages": [{"role": "user", "content": 3}]}, "turn 1: the content is 3; expected text"),
    ({"messages": "plum"}, "'plum' is not a list of messages"),
    ({"messages": []}, r"\[\] is not a list of messages"),
    ({"messages": ["plum"]}, r"turn 1 is str; expected \{role, content\}"),
    ({"messages": [ASK, {"from": "function_call", "value": "pick plums"}]}, "'pick plums' is not a function call"),
    ({"messages": [ASK, SAY], "tools": "pick"}, "tools holds 'pick'"),
    ({"prompt": " ", "completion": "x"}, "the prompt is empty"),
    ({"prompt": "x", "completion": ""}, "the assistant.s turn is empty"),
    ({"prompt": "x", "chosen": "y"}, "rejected is missing"),
    ({"prompt": "x", "rejected": "y"}, "chosen is missing"),
    ({"prompt": "x", "chosen": "", "rejected": "y"}, "chosen is missing"),
    ({"prompt": "x", "chosen": "y", "rejected": "y"}, "chosen and rejected are equal"),
    ({"chosen": [ASK], "rejected": [ASK, NO]}, "chosen: the assistant has no turn"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": 1}, "one of chosen_reward and"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": math.nan, "rejected_reward": 1},
     "chosen_reward is nan; expected a finite number"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": 2, "rejected_reward": math.inf},
     "rejected_reward is inf"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": "good", "rejected_reward": 0},
     "chosen_reward is 'good'"),
    ({"messages": [ASK, SAY], "label": "yes"}, "label is 'yes'; expected true"),
    ({"messages": [ASK, SAY], "attributes": {"humor": "very"}}, "attributes is .* expected numbers by name"),
    ({"instruction": "x", "output": "y", "history": ["a"]}, "history holds 'a'; expected pairs of question and answer"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_mistakes_are_reported_with_their_row(row: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"data.chat.0: x.jsonl, row 7.*{message}"):
        conversation(row, "data.chat.0: x.jsonl, row 7")


CHECK = {"check": {"answers": ["4"]}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "2 + 2"}]},
        {"conversations": [{"from": "human", "value": "2 + 2"}]},
        {"prompt": "2 + 2"},
        {"instruction": "2 + 2"},
        {"input": "2 + 2"},
        {"prompt": [{"role": "user", "content": "2 + 2"}], "completion": None},
    ],
    ids=lambda row: next(iter(row)),
)
def test_a_question_with_a_check_needs_no_answer(row: dict[str, Any]) -> None:
    found = conversation({**row, **CHECK}, "here")
    assert found.messages == found.prompt_turns() == [{"role": "user", "content": "2 + 2"}]
    found.require("checks")
    for kind in ("answers", "labels", "attributes"):
        with pytest.raises(DataError, match="here: the assistant has no turn; a row with a check may leave it out"):
            found.require(kind)
    with pytest.raises(DataError):
        conversation(row, "here")


def test_a_check_does_not_excuse_a_row_without_a_question() -> None:
    with pytest.raises(DataError, match="the assistant has no turn; roles: system"):
        conversation({"messages": [{"role": "system", "content": "Add."}], **CHECK}, "here")


def test_a_system_message_that_is_given_twice_is_one() -> None:
    assert conversation({"system": "be brief", "messages": [RULE, ASK, SAY]}, "x").messages == [RULE, ASK, SAY]


def test_what_nothing_reads_is_known() -> None:
    row = {**PAIRS["texts"], "id": 3, "category": "fruit", "note": None, "tags": []}
    assert conversation(row, "x").unread == ("id", "category")
    assert conversation({"messages": [ASK, SAY], "prompt": "plum?"}, "x").unread == ("prompt",)
    assert conversation({"dialog": [ASK, SAY]}, "x", {"messages": "dialog"}).unread == ()
    with pytest.raises(DataError, match=r"columns.message \(did you mean `messages`"):
        conversation({"dialog": [ASK, SAY]}, "x", {"message": "dialog"})


def test_a_transcript_is_every_turn_of_it() -> None:
    text = "\n\nHuman: a\n\nb\n\nAssistant: c\n\nHuman: d: e\n\nAssistant: f"
    said = [(turn["role"], turn["content"]) for turn in conversation({"text": text}, "x").messages]
    assert said == [("user", "a\n\nb"), ("assistant", "c"), ("user", "d: e"), ("assistant", "f")]


NAMES = st.sampled_from(
    ["messages", "conversations", "prompt", "question", "input", "completion", "history", "system", "tools", "chosen",
     "rejected", "chosen_reward", "rejected_reward", "label", "attributes", "check", "text", "role", "from", "content",
     "value", "tool_calls", "function_call", "function", "name", "arguments", "type", "weight", "train", "x"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["", " ", "user", "assistant", "system", "tool", "function_call", "text", "plum", "[", "{", "[1]", '{"name": "f"}',
     '{"a": null}', "\n\nHuman: a\n\nAssistant: b", "a:1,b:x", "\ud800"]
)  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": WORDS | ANY},
    optional={"tool_calls": ANY, "function_call": ANY, "weight": ANY, "train": st.booleans(), "name": ANY},
)
ROWS = st.dictionaries(NAMES, ANY, max_size=5) | st.fixed_dictionaries(
    {"messages": st.lists(TURN, min_size=1, max_size=4)}, optional={"tools": ANY, "system": ANY, "label": ANY}
)


@fuzz(300)
@given(ROWS)
def test_any_row_is_a_conversation_or_refused(row: dict[str, Any]) -> None:
    try:
        read = conversation(row, "x")
    except DataError:
        return
    for turns in filter(None, (read.messages, read.rejected)):
        users = [i for i, turn in enumerate(turns) if turn["role"] == "user" and turn["content"].strip()]
        learnt = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("learnt", True)]
        assert users
        assert learnt
        assert users[0] < max(learnt)
        try:
            text, spans = Script(CHATML, {}, ("<|im_end|>",)).shown(Dialogue("x", turns, read.tools, read.prompt))
        except DataError:
            continue
        assert all(0 <= start < end <= len(text) for start, end in spans)


def test_rows_are_counted_from_the_file_and_read_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    rows = [{"dialog": [ASK, SAY]}, {"dialog": [ASK, SAY]}, {"dialog": [ASK]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = {"path": str(file), "columns": {"messages": "dialog"}}
    assert len(list(conversations(ChatSource(**named, limit=2), "data.chat.0"))) == 2
    with pytest.raises(DataError, match=r"data.chat.0: .*x.jsonl, row 3: the assistant has no turn"):
        list(conversations(ChatSource(**named), "data.chat.0"))
    with pytest.raises(DataError, match=r"row 1: no column 'dialogue' for messages \(did you mean `dialog`"):
        list(conversations(ChatSource(path=str(file), columns={"messages": "dialogue"}), "data.chat.0"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real conversations are not here")
def test_real_files_are_read_whole() -> None:
    read = {file.name.partition("_")[0].partition("-")[0]: list(conversations(ChatSource(path=str(file)), "x"))
            for file in REAL.iterdir()}  # fmt: skip
    assert {name: len(rows) for name, rows in read.items()} == {
        "dpo": 300, "glaive": 300, "kto": 300, "roleplay": 3146, "synthetic": 1000
    }  # fmt: skip
    assert all(row.rejected is not None and row.rejected[: row.prompt] == row.messages[: row.prompt]
               for row in read["dpo"])  # fmt: skip
    assert sum(bool(row.desirable) for row in read["kto"]) == 150
    calls = [turn for row in read["glaive"] for turn in row.messages if turn.get("tool_calls")]
    assert len(calls) > 100
    assert any(row.tools for row in read["glaive"])
