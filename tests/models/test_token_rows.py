"""Tokens beyond the embedding: refused where text needs one, in whatever way the tokenizer is called."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs, run
from prunus.errors import DataError
from prunus.models.pretrained import load_tokenizer
from prunus.models.token_rows import check_ids
from prunus.runtime import Runtime


@pytest.fixture
def grown(teacher: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer got tokens after it was trained."""
    folder = tmp_path / "grown"
    shutil.copytree(teacher, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<{i}>" for i in range(320 - len(tokenizer))], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


WAYS = {
    "one": lambda t, text: t(text),
    "several": lambda t, text: t(["plum", text]),
    "tensor": lambda t, text: t([text], return_tensors="pt"),
    "encode": lambda t, text: t.encode(text),
    "turns": lambda t, text: t.apply_chat_template([{"role": "user", "content": text}]),
    "no specials": lambda t, text: t(text, add_special_tokens=False, verbose=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_text_that_needs_a_token_without_a_row_is_refused_by_name(grown: Path, way: str) -> None:
    tokenizer, plain = load_tokenizer(grown), AutoTokenizer.from_pretrained(grown)
    last = plain.convert_ids_to_tokens(319)
    with pytest.raises(DataError, match=rf"'{last}' has the id 319, .* has 300 rows"):
        WAYS[way](tokenizer, f"A plum {last}")
    found, expected = WAYS[way](tokenizer, "A plum"), WAYS[way](plain, "A plum")
    assert str(found) == str(expected)  # what needs none of them is read as ever


def test_a_guarded_tokenizer_saves_the_same_files_as_transformers(grown: Path, tmp_path: Path) -> None:
    load_tokenizer(grown).save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(grown).save_pretrained(tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_tokenizer_with_a_row_for_each_token_is_left_alone(teacher: Path) -> None:
    assert type(load_tokenizer(teacher)) is type(AutoTokenizer.from_pretrained(teacher))
    check_ids(torch.tensor([[0, 299]]), None, teacher)


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
def test_an_end_without_a_row_is_refused_before_a_token_is_written(grown: Path, tmp_path: Path, name: str) -> None:
    file = grown / "tokenizer_config.json"
    last = AutoTokenizer.from_pretrained(grown).convert_ids_to_tokens(319)
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), name: last}), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"text": "A plum."}\n', encoding="utf-8")
    (tmp_path / "out").mkdir()
    inputs = Inputs((Source(path=str(tmp_path / "a.jsonl")),), grown)
    with pytest.raises(DataError, match="has the id 319"):
        run(TokensConfig(), inputs, tmp_path / "out", Runtime(), Console(quiet=True))
