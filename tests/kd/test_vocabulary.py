"""Distillation over the tokens that both have, against the teacher's distribution cut by hand."""

from pathlib import Path

import pytest
import torch

from prunus.errors import ModelError
from prunus.kd.losses import forward_kl
from prunus.kd.vocabulary import SharedTokens, shared_tokens
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from tests.tiny import load, make_model

TEACHER = {"a": 0, "b": 1, "c": 2, "d": 3}


def test_one_vocabulary_of_one_size_needs_no_map() -> None:
    assert shared_tokens(TEACHER, TEACHER, (4, 4)) is None
    assert shared_tokens(TEACHER, TEACHER, (6, 6)) is None  # both padded alike


def test_tokens_of_two_vocabularies_are_matched_by_their_text() -> None:
    shared = shared_tokens({"c": 0, "a": 1}, TEACHER, (2, 4))
    assert shared is not None
    assert (shared.ours.tolist(), shared.theirs.tolist()) == ([0, 1], [2, 0])
    assert shared.to_teacher(torch.tensor([[1, 0]])).tolist() == [[0, 2]]


def test_the_first_piece_of_a_split_token_gets_its_mass() -> None:
    """Against probabilities added by hand, in float64; `ab` and `abc` begin with `a`, and padding has no place."""
    teacher = {"a": 0, "ab": 1, "b": 2, "abc": 3, "c": 4, "ca": 5}
    shared = shared_tokens({"c": 0, "b": 1, "a": 2}, teacher, (3, 8), lambda token: token[0])
    assert shared is not None
    assert (shared.lacking.tolist(), shared.first.tolist()) == ([1, 3, 5], [2, 2, 0])
    torch.manual_seed(0)
    logits = 4 * torch.randn(5, 8, dtype=torch.float64)
    logits[0] *= 200  # probabilities that underflow
    p = logits.softmax(dim=-1)
    expected = torch.stack([p[:, 4] + p[:, 5], p[:, 2], p[:, 0] + p[:, 1] + p[:, 3]], dim=1)
    found = shared.common(logits)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.softmax(dim=-1), expected / expected.sum(dim=-1, keepdim=True))


def test_a_cut_vocabulary_alone_leaves_something_to_learn(tmp_path: Path) -> None:
    """A student that equals its teacher but for its tokens: with whole chunks and rows of several sizes."""
    teacher = load(make_model(tmp_path / "teacher")).double().requires_grad_(False)
    names = {f"t{i}": i for i in range(300)}
    kept = {f"t{i}": i for i in range(210)}
    shared = shared_tokens(kept, names, (210, 300), lambda token: f"t{int(token[1:]) % 7}")
    student = load(make_model(tmp_path / "student")).double()
    student.resize_token_embeddings(210)
    config = DistillConfig.model_validate({"tokens": 0, "states": "none"})
    ids = torch.arange(2 * 15).reshape(2, 15)
    assert make_objective(config, student, teacher, None, SharedTokens(shared.ours, shared.theirs, shared.sizes))(
        ids
    ).item() == pytest.approx(0, abs=1e-9)
    loss = make_objective(config, student, teacher, None, shared)(ids)
    with torch.no_grad():
        s, p = student(ids).logits, teacher(ids).logits.softmax(dim=-1)
        target = p[..., :210].clone()
        for token in range(210, 300):
            target[..., token % 7] += p[..., token]
    assert loss.item() == pytest.approx(forward_kl(s, target.log()).mean().item(), rel=1e-6)
    assert loss.item() > 0.01


def test_padding_is_not_shared() -> None:
    shared = shared_tokens(TEACHER, TEACHER, (6, 5))
    assert shared is not None
    assert shared.ours.tolist() == shared.theirs.tolist() == [0, 1, 2, 3]
    assert shared.labels(torch.tensor([3, -100])).tolist() == [3, -100]


def test_tokens_that_the_teacher_lacks_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"1 of the student's 2 tokens are not among the teacher's 4, such as 'x'"):
        shared_tokens({"a": 0, "x": 1}, TEACHER, (2, 4))


def test_the_loss_is_that_of_the_teacher_given_a_shared_token(tmp_path: Path) -> None:
    teacher = load(make_model(tmp_path / "teacher", tie_word_embeddings=False)).double().requires_grad_(False)
    student = load(make_model(tmp_path / "student", seed=1, hidden_size=16, vocab_size=210)).double()
    ours, theirs = torch.arange(0, 200), torch.arange(0, 200) * 3 % 299
    shared = SharedTokens(ours, theirs, (210, 300))
    ids = torch.arange(2 * 15).reshape(2, 15)
    config = DistillConfig.model_validate({"tokens": 0, "states": "none", "cross_entropy_weight": 0.5})
    objective = make_objective(config, student, teacher, None, shared)
    loss = objective(ids)
    with torch.no_grad():
        t, s = teacher(theirs[ids]).logits, student(ids).logits[..., :200]
        text = torch.nn.functional.cross_entropy(s[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum") / 30
        wanted = forward_kl(s, t[..., theirs]).mean() + 0.5 * text
        outside = 1 - t.softmax(-1)[..., theirs].sum(-1).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert objective.figures["outside_vocabulary"].item() == pytest.approx(outside.item(), rel=1e-5)
    loss.backward()
    embedding = student.get_output_embeddings().weight.grad
    assert embedding[:200].abs().sum().item() > 0
