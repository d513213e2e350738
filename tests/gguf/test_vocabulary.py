"""Tokenizers of every structure that is known: llama.cpp gives the same tokens as transformers, or Prunus refuses."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from prunus.errors import ExportError, RecipeError
from prunus.gguf import vocabulary
from prunus.gguf.check import PROBES, Reference, check_tokens
from prunus.gguf.pretokenizers import APPROXIMATE, GPT2, GPT4O, LLAMA3, QWEN2, TEKKEN
from prunus.gguf.vocabulary import BYTE, CONTROL, UNKNOWN, UNUSED, USER_DEFINED, read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from tests.real import DATA
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

SIZE = 700
SPECIAL = ["<unk>", "<s>", "</s>"]


def split(expression: str) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(Regex(expression), "isolated"), bytes_(use_regex=False)]
    return pre_tokenizers.Sequence(parts)


def bytes_(use_regex: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


BYTE_LEVEL = {
    "gpt-2": bytes_(),
    "gpt-2 spelt out": split(GPT2),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_()]),
    "dbrx": split(LLAMA3),
    "qwen2": split(QWEN2),
    "tekken": split(TEKKEN),
    "gpt-4o": split(GPT4O),
}


def byte_level(pre: pre_tokenizers.PreTokenizer, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre, decoders.ByteLevel()
    train(tokenizer, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def sentencepiece(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    replaced = normalizers.Replace(" ", "▁")
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    elif kind == "gemma":
        tokenizer.normalizer = replaced
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    words = Tokenizer(models.BPE())  # trained on words, so that merges do not run over spaces
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    words.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    train(words, [])
    learnt = json.loads(words.to_str())["model"]
    pieces = [
        *SPECIAL,
        *(f"<0x{i:02X}>" for i in range(256)),
        *(piece for piece in learnt["vocab"] if piece not in SPECIAL),
    ]
    merges = [tuple(pair) for pair in learnt["merges"]]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer.model = models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def train(tokenizer: Tokenizer, alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 264, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    numbers = ["1984 12345 314159 1000000 12345678901234567890"] * 8
    tokenizer.train_from_iterator([*numbers, *(text for text in PROBES for _ in range(4))], trainer)


def with_bos(tokenizer: Tokenizer) -> Tokenizer:
    number = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    return tokenizer


def model_with(folder: Path, tokenizer: Tokenizer) -> Path:
    make_model(
        folder, vocab_size=SIZE, num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=2
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def hold(folder: Path, without_marks: bool = False) -> int:
    """Hold llama.cpp's tokens of a model's file against transformers'."""
    model = ModelFolder(folder)
    file = folder / "model.gguf"
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), "gguf-f32", file)
    reference = Reference(load_model(folder, torch.device("cpu"), torch.float32), load_tokenizer(folder), [], False, 16)
    with Running(file, 16) as running:
        return check_tokens(running, reference, file, without_marks)


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level(tmp_path: Path, kind: str) -> None:
    folder = model_with(tmp_path / "model", with_bos(byte_level(BYTE_LEVEL[kind])))
    assert read_vocabulary(folder, SIZE).pre == kind.partition(" ")[0]
    assert hold(folder, kind in APPROXIMATE) == len(PROBES) - 2 * (
        kind in APPROXIMATE
    )  # Hindi, and an emoji with a mark


def test_words_that_are_taken_whole(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", byte_level(BYTE_LEVEL["dbrx"], ignore_merges=True))
    assert read_vocabulary(folder, SIZE).pre == "llama-bpe"
    hold(folder)


@pytest.mark.parametrize("kind", ["llama", "gemma", "metaspace"])
def test_sentencepiece(tmp_path: Path, kind: str) -> None:
    folder = model_with(tmp_path / "model", with_bos(sentencepiece(kind)))
    found = read_vocabulary(folder, SIZE)
    assert (found.model, found.space_prefix, found.special.add_bos) == ("llama", kind != "gemma", True)
    assert found.types[0] == UNKNOWN
    assert found.types[1:3] == [CONTROL] * 2
    assert found.types[3:259] == [BYTE] * 256
    assert hold(folder) == len(PROBES)


@pytest.mark.parametrize(("right", "wrong"), [("gpt-2", "smollm"), ("dbrx", "gpt-2"), ("dbrx", "qwen2")])
def test_a_wrong_pre_tokenizer_is_caught(tmp_path: Path, monkeypatch, right: str, wrong: str) -> None:
    folder = model_with(tmp_path / "model", byte_level(BYTE_LEVEL[right]))
    monkeypatch.setattr(vocabulary, "byte_level", lambda *_: wrong)
    with pytest.raises(ExportError, match="differently from transformers, from token"):
        hold(folder)


def test_merges_in_another_order_are_caught(tmp_path: Path, monkeypatch) -> None:
    folder = model_with(tmp_path / "model", sentencepiece("llama"))
    own = vocabulary.merges_of
    monkeypatch.setattr(vocabulary, "merges_of", lambda model: own(model)[::-1])
    with pytest.raises(ExportError, match="differently from transformers"):
        hold(folder)


def test_tokens_that_were_added_and_rows_without_a_token(tmp_path: Path) -> None:
    tokenizer = byte_level(BYTE_LEVEL["gpt-2"])
    tokenizer.add_tokens([AddedToken("    ", normalized=True), AddedToken("<tool>", normalized=False)])
    folder = model_with(tmp_path / "model", tokenizer)
    found = read_vocabulary(folder, SIZE)
    number = tokenizer.token_to_id("    ")
    assert found.tokens[number : number + 2] == ["    ", "<tool>"]
    assert found.types[number : number + 2] == [USER_DEFINED] * 2
    assert found.types[-1] == UNUSED
    assert found.tokens[-1] == f"[PAD{SIZE - 1}]"
    hold(folder)


def test_special_tokens_and_the_chat_template(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", byte_level(BYTE_LEVEL["gpt-2"]))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 1]}))
    found = read_vocabulary(folder, SIZE)
    assert found.special.numbers == {"bos": 1, "eos": 2, "unknown": 0, "eot": 1}
    assert found.special.templates == {"default": "{{ messages[0].content }}"}
    assert found.special.add_bos is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "neither byte-level nor has byte fallback"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
            "no known equivalent in llama.cpp",
        ),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is Lowercase"),
        (
            {"model": json.loads(Tokenizer(models.WordPiece({"a": 0})).to_str())["model"], "added_tokens": []},
            "a WordPiece tokenizer",
        ),
    ],
)
def test_what_llama_cpp_has_not_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    folder = model_with(tmp_path / "model", byte_level(BYTE_LEVEL["gpt-2"]))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **change}))
    with pytest.raises(RecipeError, match=message):
        read_vocabulary(folder, SIZE)


def test_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="transformers does not load its tokenizer"):
        read_vocabulary(tmp_path, SIZE)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is absent")
@pytest.mark.parametrize("kind", ["20B", "gpt2"])
def test_a_real_tokenizer(tmp_path: Path, kind: str) -> None:
    folder = make_model(tmp_path / "model", vocab_size=50432, num_hidden_layers=1)
    file = DATA / "tokenizers" / "20B_tokenizer.json"
    if kind == "20B":
        tokenizer = Tokenizer.from_file(str(file))
    else:
        names = [str(DATA / "tokenizers" / name) for name in ("gpt2_vocab.json", "gpt2_merges.txt")]
        tokenizer = Tokenizer(models.BPE.from_file(*names))
        tokenizer.pre_tokenizer, tokenizer.decoder = bytes_(), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    assert hold(folder) == len(PROBES)
