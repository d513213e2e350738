"""What training takes at a time, and how fast, where nobody says."""

import pytest

from prunus.training import pace


@pytest.mark.parametrize(("tokens", "step"), [(500_000, 2048), (94_000_000_000, 9_437_184)])
def test_the_two_points_that_are_known_to_work(tokens: int, step: int) -> None:
    assert pace.step_tokens(tokens, 512) == pytest.approx(step, rel=0.05)
    assert pace.learning_rate(3072, 0.5) == pytest.approx(1e-4, rel=0.05)
    assert pace.learning_rate(576, 0.5) == pytest.approx(5e-4, rel=0.05)


@pytest.mark.parametrize("tokens", [100, 4096, 33_000, 10**6, 10**8, 10**11])
@pytest.mark.parametrize("context", [32, 512, 131_072])
@pytest.mark.parametrize("hidden", [16, 576, 8192])
def test_every_run_has_steps_within_the_context(tokens: int, context: int, hidden: int) -> None:
    length = pace.sequence_length(tokens, hidden, context)
    batch = pace.batch_size(tokens, hidden, length)
    steps = tokens // (length * batch)
    assert 2 <= length <= min(context, tokens, 8192)
    assert length & (length - 1) == 0
    assert steps > pace.warmup_steps(steps)


def test_a_model_near_its_teacher_is_trained_gently() -> None:
    rates = [pace.learning_rate(640, cut) for cut in (0.0, 0.05, 0.25, 0.5, 0.9)]
    assert rates == [4.7e-5, 4.7e-5, 2.3e-4, 4.7e-4, 4.7e-4]
    assert pace.learning_rate(8, 0.5) == 1e-2


def test_a_step_is_long_enough_for_its_optimiser() -> None:
    assert pace.step_tokens(100_000, 1024) == 1024
    assert pace.step_tokens(100_000, 432) == 670
    assert pace.step_tokens(20_000, 4096) == 1000
