"""Every criterion and aggregation, compared with the papers' formulas."""

import numpy as np
import pytest
import torch

from prunus.errors import ArtifactError
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.steps.prune.config import ImportanceConfig, Ranking
from prunus.steps.prune.rank import layer_losses, rank
from prunus.steps.score.importance import moments, over_sequence
from tests.tiny import SMALL

TEACHER = Shape.from_config(SMALL, LLAMA, "test")
HOWS = ("mean", "l2", "variance")
VALUES = torch.randn(6, 5, 48, generator=torch.Generator().manual_seed(0))


def slowly(values: np.ndarray, how: str) -> float:
    """One aggregation of a list of numbers, as arXiv 2407.14679 writes it."""
    if how == "mean":
        return sum(abs(v) for v in values) / len(values)
    if how == "l2":
        return sum(v * v for v in values) ** 0.5
    return sum((v - sum(values) / len(values)) ** 2 for v in values) / len(values)


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    actual = {f"neurons.{how}": moments(over_sequence(VALUES, how))[:, None].numpy() for how in HOWS}
    actual |= {f"channels.{how}": draw.random((2, 9, 32)) for how in HOWS}
    actual["neurons.gradients"] = draw.random((2, 4, 48))
    return {**actual, "counts": np.array([6.0, 30.0]), "reader_norms": draw.random((1, 48)) + 0.5}


@pytest.mark.parametrize("batch", HOWS)
@pytest.mark.parametrize("sequence", HOWS)
def test_the_nine_aggregations(scores, batch: str, sequence: str) -> None:
    actual = rank(scores, "neurons", Ranking(batch=batch, sequence=sequence), TEACHER, 0)[0]
    for i in range(48):
        inner = [slowly(row[:, i].tolist(), sequence) for row in VALUES.double()]
        assert actual[i] == pytest.approx(slowly(inner, batch), rel=1e-5)


def test_the_default_is_the_papers_choice() -> None:
    assert Ranking() == Ranking(criterion="activation", batch="l2", sequence="mean")


def test_activation_times_the_norm_of_what_reads_it(scores) -> None:
    ranking = Ranking(criterion="activation_norm", batch="l2", sequence="l2")
    actual = rank(scores, "neurons", ranking, TEACHER, 0)[0]
    expected = VALUES.double().square().sum((0, 1)).sqrt().numpy() * scores["reader_norms"][0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_variances_scale_with_the_square_of_the_norm(scores) -> None:
    ranking = Ranking(criterion="activation_norm", batch="mean", sequence="variance")
    actual = rank(scores, "neurons", ranking, TEACHER, 0)[0]
    expected = VALUES.double().var(dim=1, unbiased=False).mean(0).numpy() * scores["reader_norms"][0] ** 2
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_taylor_and_fisher_are_the_two_sums(scores) -> None:
    for i, criterion in enumerate(("taylor", "fisher")):
        actual = rank(scores, "neurons", Ranking(criterion=criterion), TEACHER, 0)
        np.testing.assert_array_equal(actual, scores["neurons.gradients"][i])


def test_channels_are_summed_over_the_norms(scores) -> None:
    actual = rank(scores, "channels", Ranking(), TEACHER, 0)
    np.testing.assert_allclose(actual, np.sqrt(scores["channels.mean"][1]).sum(0, keepdims=True))


def test_what_was_not_collected_is_named(scores) -> None:
    with pytest.raises(ArtifactError, match="contain no heads.gradients; add 'gradients' to `score.collect`"):
        rank(scores, "heads", Ranking(criterion="taylor"), TEACHER, 0)
    with pytest.raises(ArtifactError, match="contain no layers.lm_loss.2; add 'lm_loss'"):
        layer_losses(scores, ImportanceConfig(layers="lm_loss"), 2)


def test_a_criterion_that_an_axis_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="heads: 'activation_norm' cannot rank heads; allowed: activation, taylor"):
        ImportanceConfig.model_validate({"heads": "activation_norm"})
    assert ImportanceConfig.model_validate("random").layers == "random"
    assert ImportanceConfig.model_validate("fisher").neurons.criterion == "fisher"


@pytest.mark.filterwarnings("ignore")
def test_rankings_equal_those_of_nvidias_hook() -> None:
    reason = "nvidia-modelopt is not installed: pip install '.[oracles]'"
    hooks = pytest.importorskip("modelopt.torch.prune.importance_hooks.base_hooks", reason=reason, exc_type=ImportError)
    hook = hooks.L2NormHook()
    actual = torch.zeros(2, 48, dtype=torch.float64)
    for batch in VALUES.split(2):
        hook(torch.nn.Identity(), (batch.transpose(0, 1),), batch)  # theirs is [sequence, batch, hidden]
        actual += moments(over_sequence(batch, "mean"))
    scores = {"neurons.mean": actual[:, None].numpy(), "counts": np.array([6.0, 30.0])}
    ours, theirs = rank(scores, "neurons", Ranking(), TEACHER, 0)[0], hook.accumulate().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_array_equal(np.argsort(-ours, kind="stable"), np.argsort(-theirs, kind="stable"))
