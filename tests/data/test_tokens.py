from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.documents import documents
from prunus.data.sources import is_in
from prunus.data.step import Inputs, run
from prunus.data.stream import Stream
from prunus.data.tokens import Tokens, schedule
from prunus.runtime import Runtime


def stream(tokenizer: Path, out: Path, *sources: Source, **options) -> Tokens:
    out.mkdir(parents=True)
    run(TokensConfig(**options), Inputs(sources, tokenizer), out, Runtime(), Console(quiet=True))
    return Tokens.open(out)


def test_documents_lie_one_after_the_other(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    source = Source(path=str(corpus))
    tokens = stream(teacher, tmp_path / "out", source)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    texts = list(documents(source, "x"))
    assert len(tokens.ends) == len(texts) == 400
    start = 0
    for text, end, size in zip(texts, tokens.ends, tokens.sizes, strict=True):
        assert tokens.ids[start:end].tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert size == len(text.encode())
        start = end
    assert start == len(tokens.ids)
    assert tokens.answers is None
    assert tokens.loss_mask(3, 20).all()


def test_without_eos_there_is_none(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    tokens = stream(teacher, tmp_path / "out", Source(path=str(corpus)), append_eos=False)
    assert not (tokens.ids == 1).any()


def test_the_two_parts_are_the_whole_and_share_nothing(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    source = Source(path=str(corpus))
    parts = [stream(teacher, tmp_path / p, source, part=p, held_out_fraction=0.3) for p in ("train", "held_out")]
    held = {text for text in documents(source, "x") if is_in("held_out", text, 0.3)}
    assert len(parts[0].ends) + len(parts[1].ends) == 400
    assert len(parts[1].ends) == sum(is_in("held_out", text, 0.3) for text in documents(source, "x"))
    assert 60 < len(held) < 180


def test_weights_are_shares_of_tokens(teacher: Path, tmp_path: Path) -> None:
    for name, word, count in (("a", "plum", 4000), ("b", "cherry", 4000)):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{word} {word} {word}"}}\n' * count)
    sources = [Source(path=str(tmp_path / f"{n}.jsonl"), weight=w) for n, w in (("a", 3), ("b", 1))]
    tokens = stream(teacher, tmp_path / "out", *sources)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    plum = len(tokenizer("plum plum plum")["input_ids"]) + 1
    firsts = [int(tokens.ids[start]) for start in [0, *tokens.ends[:-1]]]
    share = sum(plum for first in firsts if first == tokenizer("plum")["input_ids"][0]) / len(tokens.ids)
    assert share == pytest.approx(0.75, abs=0.03)


def test_reading_stops_at_max_tokens(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    whole = stream(teacher, tmp_path / "whole", Source(path=str(corpus)))
    tokens = stream(teacher, tmp_path / "out", Source(path=str(corpus)), max_tokens=100)
    assert 100 <= len(tokens.ids) < len(whole.ids)


class Killed(BaseException):
    pass


class Deadly:
    """A tokenizer that dies at a batch, and remembers what it was given."""

    def __init__(self, tokenizer, batches: int) -> None:
        self.tokenizer, self.left = tokenizer, batches
        self.bos_token_id, self.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.given: list[str] = []

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, texts, **options):
        if isinstance(texts, str):  # to see what it adds to every text
            return self.tokenizer(texts, **options)
        if not self.left:
            raise Killed
        self.left -= 1
        self.given += texts
        return self.tokenizer(texts, **options)


@pytest.mark.parametrize("weights", [(None, None), (3.0, 1.0)])
def test_a_killed_step_reads_nothing_again(teacher: Path, tmp_path: Path, monkeypatch, weights) -> None:
    for name, count in (("a", 900), ("b", 700)):
        rows = "".join(f'{{"text": "{name} {number} {"plum " * (number % 7)}"}}\n' for number in range(count))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    sources = [Source(path=str(tmp_path / f"{n}.jsonl"), weight=w) for n, w in zip("ab", weights, strict=True)]
    options = {"part": "train", "held_out_fraction": 0.1}
    wanted = stream(teacher, tmp_path / "whole", *sources, **options)
    tokenizer, out = AutoTokenizer.from_pretrained(teacher), tmp_path / "out"
    out.mkdir()
    given = []
    for batches in (0, 1, 3, 100):  # dies at once, then after so many batches more
        deadly = Deadly(tokenizer, batches)
        monkeypatch.setattr("prunus.data.step.load_tokenizer", lambda folder, deadly=deadly: deadly)
        runtime = Runtime(checkpoint_minutes=0)
        with suppress(Killed):
            run(TokensConfig(**options), Inputs(tuple(sources), teacher), out, runtime, Console(quiet=True))
        given += deadly.given
    found = Tokens.open(out)
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.ends.tolist() == wanted.ends.tolist()
    assert len(given) == len(set(given)) == len(wanted.ends)
    assert not (out / "checkpoints").exists()


def test_what_was_written_after_the_last_keeping_is_written_again(tmp_path: Path) -> None:
    with (tmp_path / "ids").open("ab") as file:
        lost = Stream(file, 300)
        assert lost.resume(tmp_path / "kept") is None
        lost.write("one", [1, 2, 3])
        lost.checkpoint(tmp_path / "kept", {"at": 1})
        lost.write("two", [4])
    with (tmp_path / "ids").open("ab") as file:
        found = Stream(file, 300)
        assert found.resume(tmp_path / "kept") == {"at": 1}
        found.write("two", [5, 6])
        assert found.finish(tmp_path) == {"documents": 2, "tokens": 5, "bytes": 6}
    assert np.fromfile(tmp_path / "ids", np.uint16).tolist() == [1, 2, 3, 5, 6]


@given(blocks=st.integers(1, 20), count=st.integers(1, 70), seed=st.integers(0, 9))
def test_each_epoch_sees_every_block_once(blocks: int, count: int, seed: int) -> None:
    order = schedule(blocks, count, seed)
    assert len(order) == count
    for start in range(0, count - blocks + 1, blocks):
        assert sorted(order[start : start + blocks]) == list(range(blocks))
    assert order.tolist() == schedule(blocks, count, seed).tolist()


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert schedule(10, 35, 3)[:12].tolist() == schedule(10, 12, 3).tolist()


def test_a_searchs_parts_are_apart_from_what_is_held_out() -> None:
    texts = [f"document {i}" for i in range(2000)]
    parts = {part: {text for text in texts if is_in(part, text, 0.1)} for part in ("held_out", "ranking", "recovery")}
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)  # each is in one of them
    assert {text for text in texts if is_in("train", text, 0.1)} == parts["ranking"] | parts["recovery"]
    assert 150 < len(parts["ranking"]) < 250
    assert 150 < len(parts["held_out"]) < 250
