"""Each loss against its formula written out, and its gradient as it is computed in place against autograd's."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from prunus.kd import losses
from prunus.kd.divergences import divergence_of
from prunus.kd.kernels import sparse_forward_kl_rows
from prunus.steps.distill.config import DistillConfig
from prunus.training.objectives import cross_entropy_rows

Formula = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def softmaxes(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> list[list[float]]:
    return [
        [math.exp(x / temperature) / sum(math.exp(y / temperature) for y in row) for x in row.tolist()]
        for row in (student, teacher)
    ]


def slow(name: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float, beta: float) -> float:
    """One token's loss, summed entry by entry."""
    s, t = softmaxes(student, teacher, temperature)
    pairs = list(zip(s, t, strict=True))
    kl = lambda rows: sum(p * math.log(p / q) for p, q in rows)  # noqa: E731
    mixture = [beta * b + (1 - beta) * a for a, b in pairs]
    value = {
        "forward_kl": kl([(b, a) for a, b in pairs]),
        "reverse_kl": kl(pairs),
        "jensen_shannon": beta * kl(zip(t, mixture, strict=True)) + (1 - beta) * kl(zip(s, mixture, strict=True)),
        "total_variation": sum(abs(a - b) for a, b in pairs) / 2,
    }[name]
    return value * temperature**2


FORMULAS: dict[str, Formula] = {
    "forward_kl": losses.forward_kl,
    "reverse_kl": losses.reverse_kl,
    "jensen_shannon": partial(losses.jensen_shannon, beta=0.3),
    "total_variation": losses.total_variation,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_divergence_is_its_formula(name: str, temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 9, dtype=torch.float64), torch.randn(2, 3, 9, dtype=torch.float64)
    found = FORMULAS[name](student, teacher, temperature=temperature)
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            wanted = slow(name, student[i, j], teacher[i, j], temperature, 0.3)
            assert found[i, j].item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", [*FORMULAS, "cosine"])
def test_equal_logits_lose_nothing(name: str) -> None:
    logits = torch.randn(3, 4, 7)
    formula = FORMULAS.get(name, losses.cosine_distance)
    assert formula(logits, logits).abs().max().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    student, teacher = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(FORMULAS[name](student + 5, teacher - 2), FORMULAS[name](student, teacher))


def test_divergences_keep_their_order() -> None:
    """Jensen-Shannon lies between 0 and its entropy bound, total variation within Pinsker's of both KLs."""
    student, teacher = torch.randn(50, 9) * 3, torch.randn(50, 9) * 3
    variation = losses.total_variation(student, teacher)
    assert bool((losses.jensen_shannon(student, teacher) <= math.log(2)).all())
    for kl in (losses.forward_kl(student, teacher), losses.reverse_kl(student, teacher)):
        assert bool((variation <= (kl / 2).sqrt() + 1e-6).all())


def test_the_bucket_of_the_rest_never_adds_and_all_tokens_are_the_whole() -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(6, 20, dtype=torch.float64), torch.randn(6, 20, dtype=torch.float64)
    whole = losses.forward_kl(student, teacher)
    before = torch.zeros(6, dtype=torch.float64)
    for count in (1, 5, 19, 20):
        kept, ids = teacher.softmax(-1).topk(count)
        found = losses.sparse_forward_kl(student, ids, kept)
        assert bool((found >= before - 1e-12).all()), "a finer partition has at least the divergence of a coarser"
        before = found
    torch.testing.assert_close(before, whole)


def test_tokens_drawn_twice_have_both_their_shares() -> None:
    student = torch.randn(1, 5, dtype=torch.float64)
    drawn = losses.sparse_forward_kl(student, torch.tensor([[2, 2, 4, 2]]), torch.full((1, 4), 0.25))
    p = torch.tensor([0.75, 0.25], dtype=torch.float64)
    expected = (p * (p.log() - student.log_softmax(-1)[0, [2, 4]])).sum()
    assert drawn.item() == pytest.approx(expected.item())


ROWS = [
    DistillConfig(tokens=0),
    DistillConfig(tokens=0, temperature=2.5),
    DistillConfig(tokens=0, top_k=4),
    DistillConfig(tokens=0, top_k=4, temperature=0.7),
    DistillConfig(tokens=0, top_k=50),
    DistillConfig(tokens=0, loss="reverse_kl", temperature=2.0),
    DistillConfig(tokens=0, loss="jensen_shannon", beta=0.2, temperature=0.7),
    DistillConfig(tokens=0, loss="total_variation", temperature=3.0),
    DistillConfig(tokens=0, loss="mse"),
    DistillConfig(tokens=0, loss="cosine"),
]


def formula_of(config: DistillConfig) -> Formula:
    temperature = config.temperature
    if config.top_k is not None:

        def top(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
            kept, ids = (teacher / temperature).softmax(-1).topk(min(config.top_k or 0, teacher.shape[-1]))
            return losses.sparse_forward_kl(student, ids, kept, temperature)

        return top
    plain = {"mse": losses.mean_squared_error, "cosine": losses.cosine_distance}
    if config.loss in plain:
        return plain[config.loss]
    options = {"beta": config.beta} if config.loss == "jensen_shannon" else {}
    return partial(getattr(losses, config.loss), temperature=temperature, **options)


@pytest.mark.parametrize("config", ROWS, ids=lambda c: f"{c.loss}-{c.temperature}-{c.top_k}")
def test_rows_in_place_are_the_formula_and_its_gradient(config: DistillConfig) -> None:
    torch.manual_seed(2)
    student, teacher = torch.randn(7, 30, dtype=torch.float64) * 2, torch.randn(7, 30, dtype=torch.float64) * 2
    leaf = student.clone().requires_grad_()
    wanted = formula_of(config)(leaf, teacher)
    wanted.sum().backward()
    found = divergence_of(config)(student, teacher.clone())
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(student, leaf.grad)


@pytest.mark.parametrize("config", ROWS, ids=lambda c: f"{c.loss}-{c.temperature}-{c.top_k}")
@pytest.mark.parametrize("size", [1e-3, 30.0, 2000.0])
def test_rows_in_float32_keep_to_those_in_float64(config: DistillConfig, size: float) -> None:
    """Also where almost all probabilities are too small for a float, and where both sides are nearly equal."""
    torch.manual_seed(5)
    teacher = torch.randn(6, 40) * size
    student = torch.where(torch.rand(6, 40) < 0.5, teacher, torch.randn(6, 40) * size)
    wide = student.double()
    wanted, found = divergence_of(config)(wide, teacher.double()), divergence_of(config)(student, teacher.clone())
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=2e-6)
    rounded = 2e-6 + 1e-6 * float(wanted.abs().max())  # differences of numbers as large as the loss
    torch.testing.assert_close(student.double(), wide, rtol=2e-5, atol=rounded)


def test_sparse_rows_take_repeated_tokens_and_rows_without_a_rest() -> None:
    torch.manual_seed(3)
    student = torch.randn(3, 12, dtype=torch.float64)
    ids = torch.tensor([[1, 1, 3], [4, 5, 6], [0, 2, 2]])
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.1], [0.1, 0.4, 0.2]], dtype=torch.float64)
    leaf = student.clone().requires_grad_()
    wanted = losses.sparse_forward_kl(leaf, ids, probabilities, 1.5)
    wanted.sum().backward()
    found = sparse_forward_kl_rows(student, ids, probabilities, 1.5)
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(student, leaf.grad)


def test_cross_entropy_rows_leave_out_what_has_no_label() -> None:
    logits = torch.randn(4, 9, dtype=torch.float64)
    labels = torch.tensor([3, -100, 0, 8])
    leaf = logits.clone().requires_grad_()
    wanted = F.cross_entropy(leaf, labels, reduction="none")
    wanted.sum().backward()
    torch.testing.assert_close(cross_entropy_rows(logits, labels), wanted.detach())
    torch.testing.assert_close(logits, leaf.grad)


def test_a_relative_error_is_its_formula() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    rows = [float(((s - t) ** 2).sum() / (t**2).sum()) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(losses.relative_error(student, teacher), torch.tensor(rows))
    assert losses.relative_error(teacher, teacher).max().item() == 0
