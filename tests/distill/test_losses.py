import pytest
import torch

from prunus.distill.losses import forward_kl


def slow(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    total = 0.0
    rows = list(zip(student.flatten(0, 1).double(), teacher.flatten(0, 1).double(), strict=True))
    for s, t in rows:
        p_s, p_t = (torch.exp(x / temperature) / torch.exp(x / temperature).sum() for x in (s, t))
        total += sum(float(b * (b / a).log()) for a, b in zip(p_s, p_t, strict=True))
    return total / len(rows) * temperature**2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_forward_kl_is_its_formula(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 9), torch.randn(2, 5, 9)
    found = forward_kl(student, teacher, temperature).item()
    assert found == pytest.approx(slow(student, teacher, temperature), rel=1e-5)


def test_equal_logits_have_none_whatever_is_added_to_both() -> None:
    logits = torch.randn(3, 4, 7)
    assert forward_kl(logits, logits + 5).item() == pytest.approx(0, abs=1e-6)


def test_the_gradient_is_student_less_teacher() -> None:
    student = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    forward_kl(student, teacher).backward()
    expected = (student.softmax(-1) - teacher.softmax(-1)) / 4  # the mean over four tokens
    torch.testing.assert_close(student.grad, expected.detach(), rtol=1e-5, atol=1e-6)
    assert teacher.grad is None


def test_it_is_not_symmetric_and_the_teacher_comes_first() -> None:
    sure, unsure = torch.tensor([[[9.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]])
    assert forward_kl(student=sure, teacher=unsure).item() > 3 * forward_kl(student=unsure, teacher=sure).item()
