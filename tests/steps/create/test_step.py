from pathlib import Path

import pytest
from transformers import AutoTokenizer

from prunus.console import Console
from prunus.data.config import Source
from prunus.errors import DataError
from prunus.runtime import Runtime
from prunus.steps.create.config import CreateConfig
from prunus.steps.create.step import Inputs, run
from prunus.world.config import WorldConfig
from prunus.world.rows import BEGIN, CALL_MARKS, CITATIONS, END, MARKS, rendered, rows
from tests.tiny import load

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WORLD = WorldConfig(documents=100, conversations=300)
CHAT = (Source(path="builtin:world", world=WORLD), Source(path="builtin:world", name="chat", world=WORLD))


def make(out: Path, sources: tuple[Source, ...] = CHAT, **options: object) -> Path:
    out.mkdir()
    config = CreateConfig(**{"vocab_size": 700, "num_key_value_heads": 2, **SMALL, **options})
    run(config, Inputs(sources), out, Runtime(device="cpu"), Console())
    return out


def test_a_teacher_that_can_chat(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", chat=True, split_digits=True)
    assert load(folder).config.vocab_size == 700
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = next(row for row in rows(WORLD, "chat", "train") if row["tools"] and "tool_calls" in row["messages"][1])
    ids = tokenizer.apply_chat_template(row["messages"], tools=row["tools"], return_dict=True)["input_ids"]
    assert tokenizer.decode(ids) == rendered(row["messages"], row["tools"]) + tokenizer.eos_token
    marks = tokenizer.convert_tokens_to_ids(list(MARKS))
    assert set(marks) == set(range(2, 12))
    assert tokenizer.decode(marks, skip_special_tokens=True) == "".join(CALL_MARKS + CITATIONS)  # found in what is said
    assert {tokenizer.convert_tokens_to_ids("<tool_call>"), tokenizer.eos_token_id} <= set(ids)
    assert all(len(tokenizer.tokenize(str(number))) == 2 for number in range(10, 100))


def test_mimetic_attention(tmp_path: Path) -> None:
    layer = load(make(tmp_path / "model", attention="mimetic")).model.layers[1].self_attn
    assert (layer.q_proj.weight[:8] == layer.k_proj.weight[:8]).all()
    assert layer.k_proj.weight.std() > 0.1  # transformers draws at 0.02


def test_marks_are_no_text_that_a_tokenizer_learns_from(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path / "model", chat=True))
    whole = {token for token in tokenizer.get_vocab() if "|" in token}
    assert whole == {"|", BEGIN, END, *(mark for mark in MARKS if "|" in mark)}


def test_sources_are_read_in_turn(tmp_path: Path, corpus: Path) -> None:
    sources = (Source(path=str(corpus)), CHAT[1])
    tokenizer = AutoTokenizer.from_pretrained(make(tmp_path / "model", sources, tokenizer_documents=400))
    assert len(tokenizer.tokenize(" cherry")) == 1  # of the one
    assert len(tokenizer.tokenize("What is the")) == 3  # and of the other


def test_no_room_for_marks() -> None:
    with pytest.raises(
        ValueError, match="vocab_size: 267 is too small for the special tokens of `chat`; allowed: 268 or more"
    ):
        CreateConfig(vocab_size=267, chat=True)
    CreateConfig(vocab_size=267)


def test_too_little_text(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(DataError, match=r"vocab_size: 5000, but the corpus yields no more than"):
        make(tmp_path / "model", (Source(path=str(corpus)),), vocab_size=5000)
