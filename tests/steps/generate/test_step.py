import json
from pathlib import Path

import pytest
import torch

from prunus.cli.main import main
from prunus.data.tokens import Tokens
from prunus.errors import DataError, RecipeError
from prunus.inference import local
from prunus.inference.answers import Answer, AnswerStore
from prunus.models.pretrained import load_tokenizer
from tests.families import make_teacher
from tests.processes import together
from tests.steps.generate.making import generate, lines, make_stream, with_template, write_rows
from tests.tiny import load

FILES = ("generated.jsonl", "tokens.bin", "document_ends.npy", "document_bytes.npy", "answers.npy")
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "samples": 12}


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    return make_stream(teacher, corpus, tmp_path_factory.mktemp("tokens") / "stream")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    texts = ["a plum tree", "once", "there was a cherry tree that bore more fruit", "almond", "a time that was"]
    return write_rows(tmp_path_factory.mktemp("prompts") / "x.jsonl", *texts, column="text")


def documents(out: Path) -> list[tuple[list[int], list[int]]]:
    """Prompt and answer of each document, as tokens."""
    tokens = Tokens.open(out)
    assert tokens.answers is not None
    assert tokens.answers[:, 1].tolist() == tokens.ends.tolist()
    borders = zip(tokens.starts.tolist(), tokens.answers.tolist(), strict=True)
    return [(tokens.ids[start:first].tolist(), tokens.ids[first:end].tolist()) for start, (first, end) in borders]


def one_by_one(model, ids: list[int], count: int, ends: set[int]) -> list[int]:
    """Greedy decoding with nothing clever in it: no padding, no cache, no batch."""
    written: list[int] = []
    while len(written) < count and not (written and written[-1] in ends):
        with torch.no_grad():
            written.append(int(model(torch.tensor([ids + written])).logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_padding_changes_nothing(family: str, prompts: Path, tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", family)
    generate(teacher, tmp_path / "out", batch=4, prompts=[str(prompts)])
    model = load(teacher)
    found = documents(tmp_path / "out")
    assert len({len(prompt) for prompt, _ in found}) > 2
    ends = set(local.end_tokens(model, load_tokenizer(teacher)))
    for prompt, answer in found:
        assert answer == one_by_one(model, prompt, 10, ends)


def test_the_stream_is_what_was_written(teacher: Path, stream: Path, tmp_path: Path) -> None:
    written = generate(teacher, tmp_path / "out", stream, samples=20, temperature=1.5, max_new_tokens=60)
    tokens, tokenizer = Tokens.open(tmp_path / "out"), load_tokenizer(teacher)
    found = documents(tmp_path / "out")
    assert len(found) == len(written) == len(tokens.sizes)
    assert {line["finish"] for line in written} == {"stop", "length"}
    for (prompt, answer), line, size in zip(found, written, tokens.sizes.tolist(), strict=True):
        assert len(prompt) == 6
        assert tokenizer.decode(prompt) == line["prompt"]
        assert tokenizer.decode(answer, skip_special_tokens=True) == line["answer"]
        assert size == len(tokenizer.decode([*prompt, *answer], skip_special_tokens=True).encode())
        assert (answer[-1] == tokenizer.eos_token_id) == (line["finish"] == "stop")
        assert tokenizer.eos_token_id not in answer[:-1]
        assert len(answer) == 60 or line["finish"] == "stop"
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_sampling_depends_on_the_options_alone(teacher: Path, stream: Path, tmp_path: Path) -> None:
    first = generate(teacher, tmp_path / "a", stream, **SAMPLED)
    assert generate(teacher, tmp_path / "b", stream, **SAMPLED) == first
    assert generate(teacher, tmp_path / "c", stream, batch=5, **SAMPLED) == first  # other portions, the same draws
    assert generate(teacher, tmp_path / "d", stream, **{**SAMPLED, "samples": 4}) == first[:4]
    assert generate(teacher, tmp_path / "e", stream, **{**SAMPLED, "seed": 8}) != first
    assert generate(teacher, tmp_path / "f", stream, **{**SAMPLED, "temperature": 0}) != first


def test_a_killed_run_resumes_and_ends_the_same(teacher: Path, stream: Path, tmp_path: Path, monkeypatch) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    generate(teacher, whole, stream, **SAMPLED)
    written: list[list[int]] = []
    write = local.generate

    def counted(model, batch, *rest):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append([prompt.number for prompt in batch])
        return write(model, batch, *rest)

    monkeypatch.setattr(local, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        generate(teacher, killed, stream, **SAMPLED)
    (kept,) = killed.glob("checkpoints/*/answers.jsonl")
    assert (kept.parent / "complete").exists()
    with kept.open("a") as file:
        file.write('{"number": 11, "ids": [4')  # the line that the kill cut off
    before = [number for batch in written for number in batch]
    monkeypatch.setattr(
        local, "generate", lambda model, batch, *rest: written.append(batch) or write(model, batch, *rest)
    )
    generate(teacher, killed, stream, **SAMPLED)
    after = [prompt.number for batch in written[2:] for prompt in batch]
    assert sorted([*before, *after]) == list(range(12))
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_answers_are_kept_whatever_the_number_of_processes(tmp_path: Path, monkeypatch) -> None:
    for rank in "0", "1":
        monkeypatch.setenv("RANK", rank)
        kept = AnswerStore(tmp_path)
        with kept.writing() as file:
            kept.add(file, int(rank), Answer([1, 2], f"ü {rank}", "stop"))
    monkeypatch.delenv("RANK")
    found = AnswerStore(tmp_path)
    assert [found.read(number) for number in (0, 1)] == [Answer([1, 2], f"ü {rank}", "stop") for rank in "01"]
    assert (len(found), 1 in found, 2 in found) == (2, True, False)
    assert len(AnswerStore(tmp_path, "gen")) == 0
    another = AnswerStore(tmp_path, "generate-2")
    with another.writing() as file:
        another.add(file, 7, Answer([], "of another", "stop"))
    assert 7 not in AnswerStore(tmp_path)


def test_a_repeated_prompt_is_answered_once(teacher: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", "a plum", "a cherry", "a plum", "a plum", column="text")
    written = generate(teacher, tmp_path / "out", prompts=[str(file)])
    assert [line["source"]["row"] for line in written] == [1, 2]
    assert len(Tokens.open(tmp_path / "out").ends) == 2


def test_a_conversation_is_answered_behind_the_template(teacher: Path, tmp_path: Path) -> None:
    chat = with_template(teacher, tmp_path / "chat")
    turns = [{"role": "user", "content": "a plum?"}, {"role": "assistant", "content": "not this"}]
    file = write_rows(tmp_path / "x.jsonl", turns)
    (line,) = generate(chat, tmp_path / "out", prompts=[{"path": str(file), "column": "messages"}])
    assert line["prompt"] == "<s>user: a plum?\n<s>assistant:"
    assert line["source"] == {"file": str(file), "row": 1}
    ((prompt, answer),) = documents(tmp_path / "out")
    assert answer == one_by_one(load(chat), prompt, 10, {1})


def test_prompts_that_leave_no_room_are_passed_over(teacher: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", "plum " * 90, "a cherry", column="text")
    (line,) = generate(teacher, tmp_path / "out", prompts=[str(file)], max_new_tokens=50)
    assert line["prompt"] == "a cherry"
    with pytest.raises(DataError, match=r"generate.prompts: no prompt left: 1 are longer than the 78 tokens"):
        generate(
            teacher, tmp_path / "none", prompts=[str(write_rows(file, "plum " * 90, column="text"))], max_new_tokens=50
        )
    with pytest.raises(
        RecipeError, match=r"generate.max_new_tokens: 128 .* context of 128 tokens; allowed: at most 127"
    ):
        generate(teacher, tmp_path / "none", prompts=[str(file)], max_new_tokens=128)


def test_a_stream_without_prompts_has_none(stream: Path) -> None:
    tokens = Tokens.open(stream)
    assert tokens.answers is None


@pytest.mark.processes
def test_two_processes_write_as_one_does(teacher: Path, corpus: Path, tmp_path: Path) -> None:
    words = ["generate", teacher, "--corpus", corpus, "--samples", 10, "--prompt-tokens", 5, "--max-new-tokens", 6]
    words = [str(word) for word in [*words, "--runtime.device-batch-size", 3]]
    assert main([*words, "--out", str(tmp_path / "one" / "written")]) == 0
    together([*words, "--out", str(tmp_path / "two" / "written")])
    one, two = (tmp_path / name / "written" for name in ("one", "two"))
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    records = [json.loads((out / "artifact.json").read_text()) for out in (one, two)]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["metrics"]["documents"] == len(lines(one)) == 10
