"""What a tokenizer adds to every text, beside what transformers makes of several texts."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs, run
from prunus.data.tokenizing import prefix_of, suffix_of
from prunus.data.tokens import FACTS, Tokens
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime

FRAMES = [((), ()), ((0,), ()), ((), (1,)), ((0,), (1,)), ((0, 0), (1, 1))]


def framed(teacher: Path, out: Path, before: tuple[int, ...], after: tuple[int, ...], **settings) -> Path:
    """A copy of a tokenizer that puts ids before and after every text."""
    shutil.copytree(teacher, out)
    raw = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))
    names = {token["id"]: token["content"] for token in raw["added_tokens"]}
    special = {names[i]: {"id": names[i], "ids": [i], "tokens": [names[i]]} for i in (*before, *after)}
    of = lambda ids: [{"SpecialToken": {"id": names[i], "type_id": 0}} for i in ids]  # noqa: E731
    text = {"Sequence": {"id": "A", "type_id": 0}}
    raw["post_processor"] = {
        "type": "TemplateProcessing", "single": [*of(before), text, *of(after)], "pair": [text, text],
        "special_tokens": special,
    }  # fmt: skip
    (out / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    file = out / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    return out


@pytest.mark.parametrize(("before", "after"), FRAMES)
def test_what_is_added_to_every_text_is_found_and_recorded(teacher: Path, tmp_path: Path, before, after) -> None:
    folder = framed(teacher, tmp_path / "model", before, after)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (prefix_of(tokenizer), suffix_of(tokenizer)) == (before, after)
    for text in ("", "plum", "A cherry, ü"):
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer(text)["input_ids"] == [*before, *bare, *after]
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "A plum."}\n', encoding="utf-8")
    (tmp_path / "out").mkdir()
    run(TokensConfig(), Inputs((Source(path=str(file)),), folder), tmp_path / "out", Runtime(), Console(quiet=True))
    assert Tokens.open(tmp_path / "out").prefix == before
    facts = json.loads((tmp_path / "out" / FACTS).read_text(encoding="utf-8"))
    del facts["prefix"]  # as folders had it before
    (tmp_path / "out" / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    assert Tokens.open(tmp_path / "out").prefix == ()


def written(folder: Path, out: Path, texts: list[str], **options) -> list[list[int]]:
    """The documents that the data step writes."""
    out.mkdir()
    (out.parent / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    inputs = Inputs((Source(path=str(out.parent / "a.jsonl")),), folder)
    run(TokensConfig(**options), inputs, out, Runtime(), Console(quiet=True))
    tokens = Tokens.open(out)
    return [tokens.ids[start:end].tolist() for start, end in zip(tokens.starts, tokens.ends, strict=True)]


@pytest.mark.parametrize(("before", "after"), FRAMES)
def test_a_document_ends_once(teacher: Path, tmp_path: Path, before, after) -> None:
    folder = framed(teacher, tmp_path / "model", before, after)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_ids_to_tokens(1)
    for append in (True, False):
        found = written(folder, tmp_path / f"out-{append}", ["A plum.", f"A cherry.{end}"], append_eos=append)
        for text, ids in zip(["A plum.", f"A cherry.{end}"], found, strict=True):
            whole = tokenizer(text)["input_ids"]
            assert ids == ([*whole, 1] if append and whole[-1] != 1 else whole)


@pytest.mark.parametrize(("named", "expected"), [(None, []), (7, [7]), ([7, 8], [7])])
def test_an_end_that_config_alone_names_ends_documents(teacher: Path, tmp_path: Path, named, expected) -> None:
    folder = tmp_path / "model"
    shutil.copytree(teacher, folder)
    before = ModelFolder(folder).tokenizer_fingerprint()
    for name in ("config.json", "tokenizer_config.json"):
        raw = json.loads((folder / name).read_text(encoding="utf-8"))
        raw.pop("eos_token", None)
        (folder / name).write_text(json.dumps({**raw, "eos_token_id": named}), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id is None
    assert written(folder, tmp_path / "out", ["A plum."]) == [[*tokenizer("A plum.")["input_ids"], *expected]]
    assert ModelFolder(folder).tokenizer_fingerprint() != before  # so that what was tokenised by it is done again
