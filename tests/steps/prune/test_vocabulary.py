"""A cut vocabulary: the tokenizer still encodes every text, and the model predicts kept tokens as before."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.errors import ArtifactError, ModelError, ShapeError
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs, run
from prunus.steps.prune.vocabulary import choose_tokens, cut_tokenizer, read_tokenizer, vocab_of
from tests.tiny import WORDS, load, make_model

QUIET = Console(quiet=True)
MADE_UP = ["".join(np.random.default_rng(i).choice(list("bdfgklmnprstaeiou"), 7)) for i in range(40)]
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet))
    return with_bos(tokenizer)


def byte_fallback() -> Tokenizer:
    """As in Llama 2: sentencepiece's BPE in tokenizer.json."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(fallback)
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    train(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in SPECIAL]
    return with_bos(Tokenizer.from_str(json.dumps(raw)))


def unigram() -> Tokenizer:
    pieces = [(token, 0.0) for token in SPECIAL] + [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    words = sorted({w[:n] for w in WORDS for n in range(1, len(w) + 1)} | {f"▁{w}" for w in WORDS} | {"▁"})
    pieces += [(word, -float(9 - len(word))) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    tokenizer.add_special_tokens(SPECIAL)
    return with_bos(tokenizer)


def train(tokenizer: Tokenizer, trainer: trainers.BpeTrainer) -> None:
    tokenizer.train_from_iterator([" ".join(WORDS), "the plumtree", "cherrytree", *MADE_UP] * 20, trainer)


def with_bos(tokenizer: Tokenizer) -> Tokenizer:
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return tokenizer


TOKENIZERS = {"byte-level": byte_level(), "byte-fallback": byte_fallback(), "unigram": unigram()}


def cut(kind: str, count: int, counts: np.ndarray | None = None) -> tuple[Tokenizer, np.ndarray]:
    raw = json.loads(TOKENIZERS[kind].to_str())
    size = TOKENIZERS[kind].get_vocab_size()
    counts = np.random.default_rng(0).integers(0, 50, size) if counts is None else counts
    kept = choose_tokens(raw, counts, set(), count)
    return Tokenizer.from_str(json.dumps(cut_tokenizer(raw, kept))), kept


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=30) | st.lists(st.sampled_from([*WORDS, "plumtree"]), max_size=8).map(" ".join),
    drop=st.integers(0, 30),
)
def test_every_text_that_could_be_written_still_can(kind: str, text: str, drop: int) -> None:
    whole = TOKENIZERS[kind]
    small, kept = cut(kind, whole.get_vocab_size() - drop)
    ids = small.encode(text).ids
    assert all(0 <= i < len(kept) for i in ids)
    assert small.decode(ids) == whole.decode(whole.encode(text).ids)
    assert [small.id_to_token(i) for i in range(len(kept))] == [whole.id_to_token(int(i)) for i in kept]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_of_kept_tokens_is_cut_as_before(kind: str) -> None:
    whole = TOKENIZERS[kind]
    texts = [" ".join(WORDS), "cherry plum plum", "a tree that bore"]
    counts = np.zeros(whole.get_vocab_size(), dtype=int)
    for text in texts:
        np.add.at(counts, whole.encode(text).ids, 5)
    small, kept = cut(kind, whole.get_vocab_size() - 10, counts)
    for text in texts:
        assert [int(kept[i]) for i in small.encode(text).ids] == whole.encode(text).ids


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_and_byte_tokens_are_always_kept(kind: str) -> None:
    whole = TOKENIZERS[kind]
    small, _ = cut(kind, 262)
    assert [small.token_to_id(token) is not None for token in SPECIAL] == [True] * 3
    assert small.encode("\x07é☃").ids[0] == small.token_to_id("<s>")
    assert small.decode(small.encode("é☃").ids) == whole.decode(whole.encode("é☃").ids)
    with pytest.raises(ShapeError, match="200 is less than the"):
        cut(kind, 200)


def test_a_merged_token_brings_its_parts() -> None:
    raw = json.loads(TOKENIZERS["byte-level"].to_str())
    vocab = vocab_of(raw)
    counts = np.zeros(len(vocab), dtype=int)
    counts[vocab["cherry"]] = 100
    kept = set(choose_tokens(raw, counts, set(), 275).tolist())
    small = cut_tokenizer(raw, np.array(sorted(kept)))
    assert vocab["cherry"] in kept
    assert Tokenizer.from_str(json.dumps(small)).encode("cherry", add_special_tokens=False).tokens == ["cherry"]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = make_model(tmp_path / "teacher", vocab_size=420, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    PreTrainedTokenizerFast(
        tokenizer_object=TOKENIZERS["byte-level"], bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(b"stale")
    return folder


def stream(teacher: Path, corpus: Path, out: Path) -> Path:
    out.mkdir()
    tokenise(TokensConfig(), DataInputs((Source(path=str(corpus)),), teacher), out, Runtime(), QUIET)
    return out


def test_a_student_with_a_cut_vocabulary_is_a_stock_model_with_the_same_logits(teacher, corpus, tmp_path) -> None:
    tokens = stream(teacher, corpus, tmp_path / "tokens")
    used = len(np.unique(Tokens.open(tokens).ids))
    out = tmp_path / "out"
    out.mkdir()
    run(PruneConfig(vocab_size=360, importance="random"), Inputs(teacher, None, tokens), out, Runtime(), QUIET)
    kept = np.array(json.loads((out / "kept.json").read_text())["vocab"])
    assert len(kept) == 360 > used
    big, small = AutoTokenizer.from_pretrained(teacher), AutoTokenizer.from_pretrained(out)
    assert small.bos_token_id == small("x")["input_ids"][0] == load(out).config.bos_token_id
    assert kept[load(out).config.eos_token_id] == 2
    text = "once upon a time there was a plum tree"
    ids = small(text, return_tensors="pt")["input_ids"]
    assert kept[ids[0].numpy()].tolist() == big(text)["input_ids"]
    expected = load(teacher)(torch.from_numpy(kept)[ids]).logits[..., torch.from_numpy(kept)]
    torch.testing.assert_close(load(out)(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert load(out).generation_config.eos_token_id == load(out).config.eos_token_id
    assert not (out / "tokenizer.model").exists()


def test_without_a_corpus_or_a_fast_tokenizer_it_is_refused(teacher, corpus, tmp_path) -> None:
    config = PruneConfig(vocab_size=360, importance="random")
    with pytest.raises(ArtifactError, match="there is no corpus"):
        run(config, Inputs(teacher), tmp_path, Runtime(), QUIET)
    (teacher / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"needs a tokenizer\.json"):
        read_tokenizer(teacher)
    (teacher / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
    with pytest.raises(ModelError, match="a WordPiece vocabulary cannot be cut"):
        read_tokenizer(teacher)


@pytest.mark.parametrize("make", [byte_level, unigram])
def test_a_file_without_the_models_type_is_read_as_the_library_reads_it(make, tmp_path: Path) -> None:
    raw = json.loads(make().to_str())
    kind = raw["model"].pop("type")
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == make().get_vocab_size()
    actual = read_tokenizer(tmp_path)
    assert actual["model"]["type"] == kind
    assert cut_tokenizer(actual, np.arange(300)) == cut_tokenizer(json.loads(make().to_str()), np.arange(300))
