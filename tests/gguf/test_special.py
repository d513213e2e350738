"""Tokenizers in all the forms that people have them in: a GGUF file holds what transformers loads of them."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from prunus.errors import ExportError, PrunusError, RecipeError
from prunus.gguf.check import Reference, check_ends
from prunus.gguf.special import read_special
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.llamacpp.running import Running
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from tests.fuzz import fuzz
from tests.tiny import make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")

SIZE = 300
TURN, IM_END = 290, 291  # `<|turn|>` is no name that llama.cpp knows; `<|im_end|>` is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose tokenizer has more special tokens than `<s>` (0) and `</s>` (1)."""
    made = make_model(tmp_path / "model", num_hidden_layers=1)
    more = {TURN: "<|turn|>", IM_END: "<|im_end|>", 292: "<|a|>", 293: "<|b|>"}

    def add(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        for number in [number for number in vocab.values() if number >= TURN]:
            del vocab[next(text for text, other in vocab.items() if other == number)]
        kept = set(vocab)
        merges = tokenizer["model"]["merges"]
        tokenizer["model"]["merges"] = [pair for pair in merges if {*pair, "".join(pair)} <= kept]
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
        tokenizer["added_tokens"] += [{"id": number, "content": text, **flags} for number, text in more.items()]

    edit(made / "tokenizer.json", add)
    (made / "generation_config.json").unlink()
    return made


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    change(found)
    file.write_text(json.dumps(found), encoding="utf-8")


def in_llama_cpp(folder: Path) -> tuple[set[int], list[int]]:
    """Where transformers ends an answer; and where else llama.cpp does, with the file of this folder."""
    vocabulary = read_vocabulary(folder, SIZE)
    file = folder / "model.gguf"
    write_gguf(ModelFolder(folder), vocabulary, "gguf-f32", file)
    model = load_model(folder, torch.device("cpu"), torch.float32)
    reference = Reference(model, load_tokenizer(folder), [], False, 16, ends=vocabulary.special.ends)
    with Running(file, 16) as running:
        others = check_ends(running, reference, file)
    ends = model.generation_config.eos_token_id
    named = ends if isinstance(ends, list) else [ends]
    return {end for end in (*named, load_tokenizer(folder).eos_token_id) if end is not None}, others


def ends_in(file: str, key: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, lambda found: found.__setitem__(key, value))


def in_the_map_alone(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda found: found.pop("eos_token"))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|turn|>", "bos_token": "<s>"}))


ENDS = {
    "tokenizer_config": (ends_in("tokenizer_config.json", "eos_token", "<|turn|>"), {1, TURN}),
    "an object": (
        ends_in("tokenizer_config.json", "eos_token", {"content": "<|turn|>", "__type": "AddedToken"}),
        {1, TURN},
    ),
    "special_tokens_map": (in_the_map_alone, {1, TURN}),
    "generation_config": (ends_in("generation_config.json", "eos_token_id", TURN), {1, TURN}),
    "several": (ends_in("generation_config.json", "eos_token_id", [292, TURN, 1]), {1, TURN, 292}),
    "four, one by its text": (
        ends_in("generation_config.json", "eos_token_id", [292, TURN, IM_END, 1]),
        {1, TURN, 292, IM_END},
    ),
    "config": (ends_in("config.json", "eos_token_id", [1, TURN]), {1, TURN}),
    "no end in generation_config": (ends_in("generation_config.json", "temperature", 0.5), {1}),
    "beyond the embedding": (ends_in("generation_config.json", "eos_token_id", [1, 999]), {1}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_llama_cpp_ends_where_transformers_does(kind: str, folder: Path) -> None:
    change, ends = ENDS[kind]
    change(folder)
    found, others = in_llama_cpp(folder)
    assert {end for end in found if end < SIZE} == set(read_vocabulary(folder, SIZE).special.ends) == ends
    assert others == ([] if IM_END in ends else [IM_END])


def test_an_end_that_a_file_cannot_name_is_refused(folder: Path) -> None:
    ends_in("generation_config.json", "eos_token_id", [292, TURN, 293, 1])(folder)
    with pytest.raises(ExportError, match=r"transformers ends an answer at '<\|b\|>'"):
        in_llama_cpp(folder)


def without_type(tokenizer: dict[str, Any]) -> None:
    del tokenizer["model"]["type"]
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]


PADDED = {
    "padding": {
        "strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<s>",
    },
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [without_type, lambda tokenizer: tokenizer.update(PADDED)], ids=["as GPT-2's own", "saved after use"]
)
def test_another_form_of_tokenizer_json_is_the_same_vocabulary(change: Callable[..., None], folder: Path) -> None:
    ends_in("tokenizer_config.json", "pad_token", "<s>")(folder)  # stored padding names one too
    usual = read_vocabulary(folder, SIZE)
    edit(folder / "tokenizer.json", change)
    assert read_vocabulary(folder, SIZE) == usual


@pytest.mark.parametrize(
    ("template", "around"),
    [("<s> $A", (True, False)), ("$A </s>", (False, True)), ("<s> $A </s>", (True, True)), ("$A", (False, False))],
)
def test_what_is_put_around_a_text_is_tried(template: str, around: tuple[bool, bool], folder: Path) -> None:
    """Whatever tokenizer_config.json claims."""
    special = [("<s>", 0), ("</s>", 1), ("<|turn|>", TURN)]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    claim = {"add_bos_token": not around[0], "add_eos_token": not around[1]}
    edit(folder / "tokenizer_config.json", lambda found: found.update(claim))
    found = read_vocabulary(folder, SIZE).special
    ids = AutoTokenizer.from_pretrained(folder)("plum")["input_ids"]
    assert (found.add_bos, found.add_eos) == (ids[0] == 0, ids[-1] == 1) == around
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|turn|>", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(RecipeError, match=r"adds '<\|turn\|>' after a text"):
        read_vocabulary(folder, SIZE)


def test_named_templates_are_all_written(folder: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool use", "template": "tools"}]
    edit(folder / "tokenizer_config.json", lambda found: found.update(chat_template=named))
    keys = read_vocabulary(folder, SIZE).keys()
    assert keys["tokenizer.chat_template"] == "plain"
    assert keys["tokenizer.chat_templates"] == ["tool_use"]
    assert keys["tokenizer.chat_template.tool_use"] == "tools"
    folder.joinpath("chat_template.jinja").write_text("a file")
    assert read_special(load_tokenizer(folder), folder, SIZE).templates == {"default": "a file"}


def test_a_byte_order_mark_is_no_traceback(folder: Path) -> None:
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        edit(folder / name, lambda found: found.setdefault("eos_token_id", 1))
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text("\ufeff" + text, encoding="utf-8")
        with contextlib.suppress(PrunusError):  # transformers refuses it in some of the files
            assert read_vocabulary(folder, SIZE).special.ends == (1,)
        (folder / name).write_text(text, encoding="utf-8")


MODELS = st.sampled_from(
    [
        models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
        models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>", byte_fallback=True),
        models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>"),
        models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁a b", -2.0)], 0),
        models.Unigram([("a", -1.0)], None, False),
        models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"),
        models.WordPiece({"a": 0, "[UNK]": 1}),
    ]
)
CHANGES = st.lists(
    st.sampled_from(
        [
            normalizers.NFC(), normalizers.NFKC(), normalizers.Lowercase(), normalizers.Prepend("▁"),
            normalizers.Replace(" ", "▁"), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(),
            normalizers.BertNormalizer(), normalizers.ByteLevel(), normalizers.Nmt(),
        ]
    ),
    max_size=3,
)  # fmt: skip
PIECES = st.lists(
    st.sampled_from(
        [
            pre_tokenizers.ByteLevel(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
            pre_tokenizers.Metaspace(), pre_tokenizers.Metaspace("_", "first", split=False),
            pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(),
            pre_tokenizers.Punctuation(), pre_tokenizers.CharDelimiterSplit("-"), pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.FixedLength(5), pre_tokenizers.Split(Regex("a+"), "removed"),
            pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.BertPreTokenizer(),
        ]
    ),
    max_size=3,
)  # fmt: skip


@fuzz(60)
@given(model=MODELS, changes=CHANGES, pieces=PIECES)
def test_any_tokenizer_is_written_or_refused_by_name(
    model: models.Model, changes: list[Any], pieces: list[Any], tmp_path: Path
) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(changes)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    try:
        assert len(read_vocabulary(tmp_path, 8).tokens) == 8
    except RecipeError as error:
        assert str(tmp_path) in str(error)
