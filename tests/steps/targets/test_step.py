"""The step against the teacher's whole logits, and against itself when it is killed or shared out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.data.blocks import Blocks
from prunus.data.tokens import Tokens, schedule
from prunus.errors import DataError
from prunus.models.quantized import load_frozen
from prunus.steps.targets import step
from tests.steps.generate.making import make_stream
from tests.steps.targets.asking import SAMPLES, TOP_K, ask
from tests.tiny import load

FILES = ("numbers.npy", "ids.npy")


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    return make_stream(teacher, corpus, tmp_path_factory.mktemp("tokens") / "stream")


@pytest.mark.parametrize("apart", [False, True])
def test_stored_targets_are_the_teachers_predictions(teacher: Path, stream: Path, tmp_path: Path, apart: bool) -> None:
    found, metrics = ask(
        teacher,
        stream,
        tmp_path / "out",
        temperature=2.0,
        attend_across_documents=not apart,
        sequence_length=64,
        **TOP_K,
    )
    tokens, model = Tokens.open(stream), load(teacher)
    blocks = Blocks(tokens, 64)
    assert found.numbers.tolist() == sorted({*schedule(len(blocks), 10, 7).tolist()})
    masses = []
    for number in found.numbers.tolist():
        ids = torch.from_numpy(blocks.batch([number]))
        positions = torch.from_numpy(blocks.positions(number))[None] if apart else None
        with torch.no_grad():
            likely = (model(ids, position_ids=positions, use_cache=False).logits[0] / 2).softmax(-1)
        items = found.items(number)
        kept = torch.from_numpy(items["target_log_probabilities"]).float().exp()
        wanted = likely.gather(-1, torch.from_numpy(items["target_ids"]).long())
        torch.testing.assert_close(kept[:, :-1], wanted, rtol=4e-3, atol=1e-6)
        torch.testing.assert_close(kept[:, -1], 1 - wanted.sum(-1), rtol=4e-3, atol=1e-5)
        masses.append(wanted.sum(-1).mean().item())
    assert metrics == {
        "sequences": 10,
        "tokens": 640,
        "bytes_per_token": 6 * 2 + 7 * 2,
        "kept_mass": pytest.approx(np.mean(masses), rel=1e-5),
    }
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_targets_of_a_teacher_in_few_bits_are_its_own(teacher: Path, stream: Path, tmp_path: Path) -> None:
    found, _ = ask(teacher, stream, tmp_path / "out", teacher_bits=4, **TOP_K)
    model, blocks = load_frozen(teacher, torch.device("cpu"), torch.float32, 4), Blocks(Tokens.open(stream), 16)
    number = int(found.numbers[0])
    with torch.no_grad():
        likely = model(torch.from_numpy(blocks.batch([number])), use_cache=False).logits[0].log_softmax(-1)
    items = found.items(number)
    wanted = likely.gather(-1, torch.from_numpy(items["target_ids"]).long())
    kept = torch.from_numpy(items["target_log_probabilities"]).float()[:, :-1]
    torch.testing.assert_close(kept, wanted, rtol=2e-3, atol=1e-3)
    whole, _ = ask(teacher, stream, tmp_path / "whole", **TOP_K)
    assert (whole.items(number)["target_log_probabilities"] != items["target_log_probabilities"]).any()


def test_a_block_read_twice_is_kept_once(teacher: Path, stream: Path, tmp_path: Path) -> None:
    count = len(Blocks(Tokens.open(stream), 128))
    found, metrics = ask(teacher, stream, tmp_path / "out", sequence_length=128, sequences=3 * count, count=1)
    assert found.numbers.tolist() == list(range(count))
    assert metrics["sequences"] == count
    with pytest.raises(KeyError, match=f"block {count} has no targets"):
        found.items(count)
    with pytest.raises(DataError, match="do not fill one sequence"):
        ask(teacher, stream, tmp_path / "long", sequence_length=10**6)


@pytest.mark.parametrize("options", [TOP_K, SAMPLES], ids=["top_k", "samples"])
def test_a_killed_run_resumes_and_ends_the_same(teacher, stream, tmp_path, monkeypatch, options: dict) -> None:
    _, metrics = ask(teacher, stream, tmp_path / "whole", **options)
    predict, seen = step._predictions, []

    def counted(model, tokens, config, numbers):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(numbers)
        return predict(model, tokens, config, numbers)

    monkeypatch.setattr(step, "_predictions", counted)
    with pytest.raises(KeyboardInterrupt):
        ask(teacher, stream, tmp_path / "killed", **options)
    assert (tmp_path / "killed" / "checkpoints" / "targets" / "complete").exists()
    monkeypatch.setattr(step, "_predictions", lambda *rest: seen.append(rest[-1]) or predict(*rest))
    assert ask(teacher, stream, tmp_path / "killed", **options)[1] == metrics
    assert sorted(np.concatenate(seen).tolist()) == np.load(tmp_path / "whole" / "numbers.npy").tolist()
    assert_alike(tmp_path / "whole", tmp_path / "killed")


def test_draws_depend_on_the_seed_and_the_block_alone(teacher, stream, tmp_path, monkeypatch) -> None:
    first, _ = ask(teacher, stream, tmp_path / "a", **SAMPLED)
    more, _ = ask(teacher, stream, tmp_path / "b", batch=5, **{**SAMPLED, "sequences": 20})
    other, _ = ask(teacher, stream, tmp_path / "c", **{**SAMPLED, "seed": 8})
    for number in first.numbers.tolist():
        np.testing.assert_array_equal(first.items(number)["target_ids"], more.items(number)["target_ids"])
    both = set(first.numbers.tolist()) & set(other.numbers.tolist())
    assert all((first.items(n)["target_ids"] != other.items(n)["target_ids"]).any() for n in both)


SAMPLED = {**SAMPLES, "count": 20}


def test_two_processes_write_as_one_does(teacher, stream, tmp_path, monkeypatch) -> None:
    """Each does its portions; here one after the other, the first last, as it is the one that ends the work."""
    ask(teacher, stream, tmp_path / "one", **SAMPLES)
    out = tmp_path / "two"
    out.mkdir()
    begin = step._begin
    monkeypatch.setattr(step.distributed, "wait", lambda: None)
    monkeypatch.setattr(step.distributed, "count", lambda: 2)
    with monkeypatch.context() as second:
        numbers = np.load(tmp_path / "one" / "numbers.npy")
        begin(step.TargetsConfig(sequence_length=16, sequences=10, **SAMPLES), out, numbers, 300)
        second.setattr(step.distributed, "rank", lambda: 1)
        ask(teacher, stream, out, **SAMPLES)
    ask(teacher, stream, out, **SAMPLES)
    assert_alike(tmp_path / "one", out)


def assert_alike(one: Path, two: Path) -> None:
    names = sorted(file.name for file in one.iterdir())
    assert sorted(file.name for file in two.iterdir()) == names
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
