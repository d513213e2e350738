"""Tokenizers of every structure to a GGUF file and back: the same tokens as the first and as llama.cpp's."""

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import AddedToken

from prunus.errors import ModelError
from prunus.gguf.check import PROBES
from prunus.gguf.vocabulary import read_vocabulary
from prunus.models.pretrained import chat_templates, load_tokenizer
from prunus.steps.unpack.bytelevel import byte_level_of
from prunus.steps.unpack.merges import merges_of_scores
from tests.gguf.test_unigram import KINDS, make, pieces_of_probes
from tests.gguf.test_unigram import TEXTS as UNIGRAM_TEXTS
from tests.gguf.test_vocabulary import BYTE_LEVEL, SIZE, byte_level, model_with, sentencepiece, with_bos
from tests.steps.unpack.files import file_of, folder_of

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

TEXTS = [
    *(unicodedata.normalize("NFC", text) for text in PROBES),
    "",
    " leading",
    "trailing  ",
    "\n\n\n",
    "<s>a</s> b<s>",
    "a▁b ▁▁",
    "\u200b\ufeff",
    "<0x0A>",
]


def again(folder: Path) -> Path:
    return folder_of(file_of(folder, folder.parent / "m.gguf"), folder.parent / "out")


def assert_same_tokens(first: Path, second: Path, texts: list[str]) -> None:
    one, other = load_tokenizer(first), load_tokenizer(second)
    for text in texts:
        for special in (False, True):
            wanted = one(text, add_special_tokens=special)["input_ids"]
            assert other(text, add_special_tokens=special)["input_ids"] == wanted, text
        # the space that is put before a text goes again, as in Llama's own tokenizer; that made here leaves it
        decoded = [part.decode(wanted, skip_special_tokens=True).lstrip(" ") for part in (one, other)]
        assert decoded[0] == decoded[1]


@pytest.mark.parametrize(  # llama.cpp takes words whole by the name alone
    ("kind", "whole"), [*((kind, kind == "tekken") for kind in BYTE_LEVEL), ("dbrx", True)]
)
def test_byte_level(tmp_path: Path, kind: str, whole: bool) -> None:
    folder = model_with(tmp_path / "model", with_bos(byte_level(BYTE_LEVEL[kind], whole)))
    assert_same_tokens(folder, again(folder), TEXTS)


@pytest.mark.parametrize("kind", ["llama", "gemma", "metaspace"])
def test_sentencepiece(tmp_path: Path, kind: str) -> None:
    folder = model_with(tmp_path / "model", with_bos(sentencepiece(kind)))
    texts = [text for text in TEXTS if kind != "metaspace" or not text.startswith(("▁", " ", "<s>"))]
    assert_same_tokens(folder, again(folder), texts)


def test_every_split_of_a_token_is_a_merge() -> None:
    tokens = ["a", "b", "ab", "ba", "aba", "x"]
    scores = [0.0, 0.0, -1.0, -3.0, -2.0, 0.0]
    assert merges_of_scores(tokens, scores, range(6)) == [("a", "b"), ("a", "ba"), ("ab", "a"), ("b", "a")]
    assert merges_of_scores(tokens, scores, [0, 1, 3]) == [("b", "a")]


@pytest.mark.parametrize(
    ("pre", "name"),
    [("llama3", "llama-bpe"), ("deepseek-r1-qwen", "qwen2"), ("starcoder", "smollm"), ("olmo", "gpt-2")],
)
def test_other_names_of_the_same(pre: str, name: str) -> None:
    assert byte_level_of(pre, "x").name == name


@pytest.mark.parametrize("pre", [None, "default", "deepseek-v3"])
def test_a_pre_tokenizer_that_is_not_known(pre: str | None) -> None:
    with pytest.raises(ModelError, match=r"m.gguf: tokenizer.ggml.pre is .*; allowed: .*llama-bpe"):
        byte_level_of(pre, "m.gguf")


def test_tokens_that_were_added_ends_and_templates(tmp_path: Path) -> None:
    tokenizer = byte_level(BYTE_LEVEL["gpt-2"])
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens(["<|turn|>", "<|im_end|>"])
    folder = model_with(tmp_path / "model", tokenizer)
    number = tokenizer.token_to_id
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}\n")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, number("<|turn|>")]}))
    made = again(folder)
    assert_same_tokens(folder, made, [*TEXTS, "a    b<tool>c<|turn|>"])
    found = json.loads((made / "generation_config.json").read_text())
    assert found["eos_token_id"] == [2, number("<|turn|>"), number("<|im_end|>")]  # the last as llama.cpp, by its text
    assert chat_templates(load_tokenizer(made)) == {"default": "{{ messages[0].content }}\n"}
    assert read_vocabulary(made, SIZE).special.ends == (2, number("<|turn|>"), number("<|im_end|>"))


def test_several_templates(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", byte_level(BYTE_LEVEL["gpt-2"]))
    loaded = json.loads((folder / "tokenizer_config.json").read_text())
    templates = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    loaded["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    (folder / "tokenizer_config.json").write_text(json.dumps(loaded))
    assert chat_templates(load_tokenizer(again(folder))) == templates


@pytest.mark.parametrize("kind", KINDS)
def test_unigram(tmp_path: Path, kind: str) -> None:
    folder = model_with(tmp_path / "model", make(pieces_of_probes(), kind))
    texts = [text for text in (*TEXTS[: len(PROBES)], *UNIGRAM_TEXTS) if kind != "always" or not text.startswith(" ")]
    assert_same_tokens(folder, again(folder), texts)
