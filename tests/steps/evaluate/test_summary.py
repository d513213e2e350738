import numpy as np
import pytest

from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.intervals import mcnemar, paired_difference, standard_error
from prunus.steps.evaluate.summary import hidden_loss, summarise
from prunus.steps.evaluate.tasks import unit_of

CONFIG = EvaluateConfig(resamples=400)


def rows(values, name: str = "right", group=None) -> list[dict]:
    return [{"id": str(i), "group": group, "scores": {name: (float(v), 1.0)}} for i, v in enumerate(values)]


def test_the_standard_error_is_the_textbooks() -> None:
    sample = np.random.default_rng(0).normal(2, 3, 50)
    assert standard_error(sample, np.ones(50)) == pytest.approx(sample.std(ddof=1) / np.sqrt(50))


def test_a_ratios_standard_error_is_that_of_its_samples() -> None:
    draw = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(400):
        count = draw.integers(1, 5, 80)
        right = draw.binomial(count, 0.6)
        found.append(right.sum() / count.sum())
        errors.append(standard_error(right.astype(float), count.astype(float)))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.1)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (3, 3), (1, 0), (8, 2), (0, 20), (60, 40)])
def test_mcnemar_is_a_fair_coin(won: int, lost: int) -> None:
    ours = np.array([1] * won + [0] * lost + [1, 0])
    theirs = np.array([0] * won + [1] * lost + [1, 0])
    flips = np.random.default_rng(1).binomial(won + lost, 0.5, 200_000)
    extreme = np.abs(2 * flips - won - lost) >= abs(won - lost)
    assert mcnemar(ours, theirs) == pytest.approx(extreme.mean(), abs=0.005)


def test_the_interval_of_a_paired_difference_covers_at_its_level() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        hard = draw.random(120)
        ours, theirs = (np.stack([(draw.random(120) < hard * f).astype(float), np.ones(120)], 1) for f in (0.9, 1.0))
        found = paired_difference(ours, theirs, 0.9, 200, seed)
        covered += found["low"] <= -0.05 <= found["high"]
    assert 0.82 <= covered / 200 <= 0.96


def test_figures_pair_what_both_have() -> None:
    draw = np.random.default_rng(0)
    theirs = draw.random(300) < 0.8
    ours = theirs & (draw.random(300) < 0.9)
    beside = rows(theirs)[:-5]
    figure = summarise(rows(ours), beside, CONFIG)["metrics"]["right"]
    assert figure["value"] == pytest.approx(ours.mean())
    assert figure["low"] <= figure["value"] <= figure["high"]
    difference = figure["difference"]
    assert difference["items"] == 295
    assert difference["value"] == pytest.approx(ours[:-5].mean() - theirs[:-5].mean())
    assert difference["high"] < 0
    assert difference["high"] - difference["low"] < figure["high"] - figure["low"]
    assert difference["mcnemar"] < 1e-4
    assert "difference" not in summarise(rows(ours), [], CONFIG)["metrics"]["right"]


def test_a_model_compared_with_itself_does_not_differ() -> None:
    same = rows([0, 1, 1, 0.5])
    difference = summarise(same, same, CONFIG)["metrics"]["right"]["difference"]
    assert difference == {"value": 0.0, "low": 0.0, "high": 0.0, "items": 4}


def test_groups_are_scored_apart() -> None:
    found = summarise(rows([1, 1], group="a") + rows([0], group="b"), [], CONFIG)
    assert {name: part["metrics"]["right"]["value"] for name, part in found["groups"].items()} == {"a": 1.0, "b": 0.0}
    assert found["groups"]["a"]["items"] == 2
    assert "groups" not in summarise(rows([1], group="a"), [], CONFIG)


def test_what_counts_nowhere_is_no_figure() -> None:
    nothing = [{"id": "a", "group": None, "scores": {"repetition": (0, 0), "right": (1.0, 1.0)}}]
    assert list(summarise(nothing, [], CONFIG)["metrics"]) == ["right"]


def task(share: float, generates: bool, repeated: float = 0.0, chance: float = 0.0) -> dict:
    figure = {"value": share, "difference": {"value": share - 1, "low": share - 1.1, "high": share - 0.9}}
    repetition = {"difference": {"value": repeated, "low": repeated - 0.01, "high": repeated + 0.01}}
    return {
        "first": "right",
        "unit": "share",
        "generates": generates,
        "metrics": {"right": figure, "repetition": repetition, "chance": {"value": chance}},
    }


def test_a_perplexity_is_the_exponential_of_a_mean_and_paired_as_such() -> None:
    draw = np.random.default_rng(0)
    ours, theirs = draw.exponential(3, 40), draw.exponential(2, 40)
    found = summarise(rows(ours, "nll"), rows(theirs, "nll"), CONFIG)["metrics"]
    assert list(found) == ["perplexity", "nll"]
    assert found["nll"]["value"] == pytest.approx(ours.mean())
    assert found["perplexity"]["value"] == pytest.approx(np.exp(ours.mean()))
    assert found["perplexity"]["low"] == pytest.approx(np.exp(found["nll"]["low"]))
    assert found["perplexity"]["difference"]["value"] == pytest.approx(np.exp(ours.mean()) - np.exp(theirs.mean()))
    slope = (np.exp(ours.mean() + 1e-5) - np.exp(ours.mean() - 1e-5)) / 2e-5
    assert found["perplexity"]["stderr"] == pytest.approx(slope * found["nll"]["stderr"], rel=1e-4)


def test_a_texts_perplexity_counts_words_or_bytes() -> None:
    texts = [
        {"id": str(i), "group": None, "scores": {"nll_per_byte": (n, b)}} for i, (n, b) in enumerate([(9, 4), (3, 8)])
    ]
    found = summarise(texts, [], CONFIG)["metrics"]
    assert found["byte_perplexity"]["value"] == pytest.approx(np.exp(12 / 12))
    assert found["bits_per_byte"]["value"] == pytest.approx(1 / np.log(2))


def test_what_no_float_holds_is_left_out() -> None:
    found = summarise(rows([900.0, 800.0], "nll"), rows([1.0, 2.0], "nll"), CONFIG)["metrics"]
    assert list(found) == ["nll"]


@pytest.mark.parametrize(
    ("metric", "bounded", "unit"),
    [
        ("acc", True, "share"), ("nll", False, "nats"),
        ("perplexity", True, "perplexity"), ("bits_per_byte", True, "bits"), ("bleu", False, "points"),
    ],
)  # fmt: skip
def test_units(metric: str, bounded: bool, unit: str) -> None:
    assert unit_of(metric, bounded) == unit


def test_a_loss_in_generation_that_multiple_choice_hides_is_reported() -> None:
    (warning,) = hidden_loss({"mmlu": task(0.95, False), "gsm8k": task(0.4, True)})
    assert (
        warning
        == "Multiple choice keeps 95% of the teacher's score above chance, but generation does not: gsm8k (40%)."
    )
    (warning,) = hidden_loss({"mmlu": task(0.95, False), "rag": task(0.9, True, 0.3)})
    assert "rag (+30% repeated)" in warning
    assert not hidden_loss({"mmlu": task(0.95, False), "gsm8k": task(0.8, True)})
    assert not hidden_loss({"mmlu": task(0.95, False, chance=0.9), "gsm8k": task(0.4, True)})  # half of what it knew
    assert not hidden_loss({"mmlu": task(0.95, False), "wikitext": {**task(0.4, True), "unit": "perplexity"}})
    guessing = {**task(0.95, False, chance=0.99)}
    guessing["metrics"]["right"]["stderr"] = 0.01
    assert not hidden_loss({"mmlu": guessing, "gsm8k": task(0.4, True)})
    assert not hidden_loss({"mmlu": task(0.5, False), "gsm8k": task(0.4, True)})
    assert not hidden_loss({"gsm8k": task(0.4, True), "x": {"hole": "no data"}})
