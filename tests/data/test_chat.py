"""Conversations in the forms that people keep them in."""

import json
import math
import os
from pathlib import Path

import pytest

from prunus.data.chat import conversation, conversations
from prunus.data.config import ChatSource
from prunus.errors import DataError

REAL = Path(os.environ.get("PRUNUS_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "chat"
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
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form: str) -> None:
    read = conversation(FORMS[form], "here")
    assert (read.messages, read.tools, read.rejected) == ([ASK, SAY], None, None)


def test_systems_inputs_and_histories_go_where_they_belong() -> None:
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


PAIRS = {
    "TRL, explicit": {"prompt": [ASK], "chosen": [SAY], "rejected": [NO]},
    "TRL, implicit": {"chosen": [ASK, SAY], "rejected": [ASK, NO]},
    "UltraFeedback": {"prompt": "plum?", "chosen": [ASK, SAY], "rejected": [ASK, NO]},
    "texts": {"prompt": "plum?", "chosen": "plum.", "rejected": "no."},
    "NeMo": {"prompt": "plum?", "chosen_response": "plum.", "rejected_response": "no."},
    "ShareGPT": {"conversations": [{"from": "human", "value": "plum?"}], "chosen": {"from": "gpt", "value": "plum."},
                 "rejected": {"from": "gpt", "value": "no."}},
    "Alpaca": {"instruction": "plum?", "input": "", "chosen": "plum.", "rejected": "no."},
}  # fmt: skip


@pytest.mark.parametrize("form", PAIRS)
@pytest.mark.parametrize("rewards", [None, ("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected")])
def test_every_form_of_a_pair_says_the_same(form: str, rewards: tuple[str, str] | None) -> None:
    more = {} if rewards is None else dict(zip(rewards, (4, 1.5), strict=True))
    read = conversation({**PAIRS[form], **more}, "here")
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
    for given in ({"helpfulness": 4, "toxicity": 0, "humor": None}, "helpfulness:4,toxicity:0"):
        assert conversation({"messages": [ASK, SAY], "attributes": given}, "here").attributes == wanted


WRONG = [
    ({"text": "plum"}, "has the columns text; wanted are messages"),
    ({"messages": [ASK]}, "the assistant has no turn; roles: user"),
    ({"messages": [ASK, {**SAY, "content": " "}]}, "the assistant says nothing"),
    ({"messages": [{"role": "assistent", "content": "x"}]}, r"turn 1: the role is 'assistent' \(did you mean"),
    ({"messages": [{"role": "user", "content": 3}]}, "turn 1: the content is 3; text is wanted"),
    ({"messages": "plum"}, "'plum' is no list of messages"),
    ({"messages": []}, r"\[\] is no list of messages"),
    ({"messages": ["plum"]}, r"turn 1 is str; \{role, content\}"),
    ({"messages": [ASK, {"from": "function_call", "value": "pick plums"}]}, "'pick plums' is no call of a function"),
    ({"messages": [ASK, SAY], "tools": "pick"}, "tools holds 'pick'"),
    ({"prompt": " ", "completion": "x"}, "the prompt is empty"),
    ({"prompt": "x", "completion": ""}, "the assistant says nothing"),
    ({"prompt": "x", "chosen": "y"}, "rejected is missing"),
    ({"prompt": "x", "rejected": "y"}, "chosen is missing"),
    ({"prompt": "x", "chosen": "", "rejected": "y"}, "chosen is missing"),
    ({"prompt": "x", "chosen": "y", "rejected": "y"}, "chosen and rejected are equal"),
    ({"chosen": [ASK], "rejected": [ASK, NO]}, "chosen: the assistant has no turn"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": 1}, "one of chosen_reward and"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": math.nan, "rejected_reward": 1},
     "chosen_reward is nan; a finite number"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": 2, "rejected_reward": math.inf},
     "rejected_reward is inf"),
    ({"prompt": "x", "chosen": "y", "rejected": "z", "chosen_reward": "good", "rejected_reward": 0},
     "chosen_reward is 'good'"),
    ({"messages": [ASK, SAY], "label": "yes"}, "label is 'yes'; true, where the answer is wanted"),
    ({"messages": [ASK, SAY], "attributes": {"humor": "very"}}, "attributes is .* numbers by name are wanted"),
    ({"instruction": "x", "output": "y", "history": ["a"]}, "history holds 'a'; pairs of question and answer"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), WRONG)
def test_what_is_wrong_is_told_with_its_row(row: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"data.chat.0: x.jsonl, row 7.*{message}"):
        conversation(row, "data.chat.0: x.jsonl, row 7")


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
