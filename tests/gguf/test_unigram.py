"""Unigram tokenizers: llama.cpp gives the tokens that transformers gives, or Prunus refuses before it writes."""

import json
import math
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from prunus.errors import ExportError, RecipeError
from prunus.gguf import unigram, vocabulary
from prunus.gguf.check import PROBES
from prunus.gguf.vocabulary import NORMAL, UNKNOWN, UNUSED, read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.pretrained import load_tokenizer
from tests.gguf.test_vocabulary import DATA, SIZE, SPECIAL, hold, model_with, with_bos

TEXTS = (
    " a text that begins with a space",
    "several   spaces,\tand at the end  ",
    "Zeile eins\nZeile zwei\r\n\r\nunknown ones: ℵ ꙮꙮ 𓀀",
    "",
)


def charsmap(replacements: dict[str, str]) -> bytes:
    """sentencepiece's table for single ASCII characters: a double array of two levels, then the strings."""
    units, strings = [0] * 512, b""
    for text, other in replacements.items():
        units[ord(text)] = 256 << 10 | 1 << 8 | ord(text)  # the base of the leaf, that there is one, and its label
        units[ord(text) ^ 256] = 1 << 31 | len(strings)
        strings += other.encode() + b"\0"
    return struct.pack("<I512I", 2048, *units) + strings


TABLE = normalizers.Precompiled(charsmap({"\t": " ", "\n": " ", "\r": " ", "~": "-"}))
REPLACED = normalizers.Replace(" ", "▁")
STRIPPED = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
WORDS = pre_tokenizers.WhitespaceSplit()


def metaspace(scheme: str = "always", split: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=split)


KINDS: dict[str, tuple[Any, Any]] = {
    "t5": (TABLE, pre_tokenizers.Sequence([WORDS, metaspace()])),
    "converted": (normalizers.Sequence([TABLE, *STRIPPED]), metaspace()),
    "llama": (normalizers.Sequence([normalizers.Prepend("▁"), REPLACED]), None),
    "no prefix": (REPLACED, None),
    "never": (None, metaspace("never", split=False)),
    "always": (None, metaspace()),
}


@pytest.fixture(scope="module")
def learnt() -> list[tuple[str, float]]:
    return pieces_of_probes()


def pieces_of_probes() -> list[tuple[str, float]]:
    """Pieces of the probes' words and their log-probabilities, the same every time; no two cuts are alike."""
    words = [f"▁{word}" for text in PROBES for word in text.split()]
    counts = Counter(
        word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, min(i + 8, len(word)) + 1)
    )
    likely = sorted(counts, key=lambda piece: (len(piece) > 1, -counts[piece] * len(piece), piece))
    pieces = [(piece, math.log(counts[piece] / len(words))) for piece in likely[: SIZE - 40 - len(SPECIAL)]]
    whole = [*((name, 0.0) for name in SPECIAL), *pieces]
    return [(text, score - i * i % 997 / 1000) for i, (text, score) in enumerate(whole)]


def make(learnt: list[tuple[str, float]], kind: str, byte_fallback: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(learnt, unk_id=0, byte_fallback=byte_fallback))
    normalizer, pre = KINDS[kind]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.Metaspace("▁")
    tokenizer.add_special_tokens(SPECIAL)
    return with_bos(tokenizer)


def differing(folder: Path, texts: tuple[str, ...]) -> list[str]:
    """The texts of which llama.cpp gives other tokens than transformers, whatever their order."""
    model = ModelFolder(folder)
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), "gguf-f32", folder / "model.gguf")
    tokenizer = load_tokenizer(folder)
    with Running(folder / "model.gguf", 16) as running:
        return [text for text in texts if sorted(running.tokenize(text, True)) != sorted(tokenizer(text).input_ids)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens(tmp_path: Path, learnt: list, kind: str) -> None:
    folder = model_with(tmp_path / "model", make(learnt, kind))
    found = read_vocabulary(folder, SIZE)
    assert found.model == "t5"
    assert found.special.numbers["unknown"] == 0
    assert found.types[0] == UNKNOWN
    assert found.types[3 : len(learnt)] == [NORMAL] * (len(learnt) - 3)
    assert found.types[len(learnt) :] == [UNUSED] * (SIZE - len(learnt))
    assert len(found.scores) == SIZE
    assert hold(folder) == len(PROBES)
    assert found.doubled is (kind == "always")
    other = differing(folder, TEXTS)
    assert other == ([TEXTS[0]] if kind == "always" else [])  # what the step warns of


def without_table(found: unigram.Unigram, tokenizer: dict[str, Any]) -> unigram.Unigram:
    return replace(found, charsmap=b"")


def with_all_spaces(found: unigram.Unigram, tokenizer: dict[str, Any]) -> unigram.Unigram:
    return replace(found, merge_spaces=False)


def with_scores_turned(found: unigram.Unigram, tokenizer: dict[str, Any]) -> unigram.Unigram:
    tokenizer["model"]["vocab"] = [(text, -10.0 - score) for text, score in tokenizer["model"]["vocab"]]
    return found


@pytest.mark.parametrize("fault", [without_table, with_all_spaces, with_scores_turned])
def test_a_tokenizer_that_differs_from_transformers_is_refused(
    tmp_path: Path, learnt: list, monkeypatch, fault: Any
) -> None:
    folder = model_with(tmp_path / "model", make(learnt, "t5"))
    read = vocabulary.read_unigram
    monkeypatch.setattr(vocabulary, "read_unigram", lambda own, where: fault(read(own, where), own))
    with pytest.raises(ExportError, match="differently from transformers"):
        hold(folder)


def test_bytes_are_not_fallen_back_to(tmp_path: Path, learnt: list, monkeypatch) -> None:
    pieces = [*learnt[: SIZE - 300], *((f"<0x{byte:02X}>", -12.0) for byte in range(256))]
    folder = model_with(tmp_path / "model", make(pieces, "no prefix", byte_fallback=True))
    with pytest.raises(RecipeError, match=r"byte fallback.*What works: the plain folder"):
        read_vocabulary(folder, SIZE)
    monkeypatch.setattr(vocabulary, "read_unigram", lambda *_: unigram.Unigram(b"", False, False, 0))
    assert TEXTS[2] in differing(folder, TEXTS)  # it is so: the one with characters that no token has


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "prepares a text differently from llama.cpp"),
        ({"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}}, "prepares a text differently from llama.cpp"),
        ({"normalizer": json.loads(TABLE.__getstate__())}, "prepares a text differently from llama.cpp"),
        ({"model.unk_id": None}, "without an unknown token"),
        ({"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "split": True},
          "model.vocab": [["<unk>", 0.0], ["▁of▁the", -3.0]]}, "'▁of▁the' contains a space"),
    ],
)  # fmt: skip
def test_what_llama_cpp_has_not_is_refused(tmp_path: Path, learnt: list, change: dict, message: str) -> None:
    folder = model_with(tmp_path / "model", make(learnt, "no prefix"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for key, value in change.items():
        inner, _, name = key.rpartition(".")
        (tokenizer[inner] if inner else tokenizer)[name] = value
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(RecipeError, match=message):
        read_vocabulary(folder, SIZE)


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real data is absent")
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_real_text(tmp_path: Path, learnt: list, kind: str) -> None:
    wikitext = (DATA / "wikitext-2" / "test.txt").read_text().replace("<unk>", "unknown").splitlines()[:300]
    wikitext = [line for line in wikitext if line.strip()]
    plays = (DATA / "text" / "tinyshakespeare.txt").read_text()[:40_000]
    texts = (*wikitext, *(plays[i : i + 400] for i in range(0, len(plays), 400)))
    assert differing(model_with(tmp_path / "model", make(learnt, kind)), texts) == []
