"""What is made of the harness's samples, in the forms in which it gives them; it need not be installed."""

import math
from typing import Any

import pytest

from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.harness import rows_of
from prunus.steps.evaluate.summary import summarise


def samples(
    values: list[dict[str, Any]], choices: int = 1, filters: tuple[str, ...] = ("none",)
) -> list[dict[str, Any]]:
    return [
        {"doc_id": i, "filter": name, "metrics": list(one), "resps": [0] * choices, "filtered_resps": [0.0], **one}
        for name in filters
        for i, one in enumerate(values)
    ]


def figures(kind: str, values: list[dict[str, Any]], reported: dict[str, Any], **options: Any) -> dict[str, Any]:
    rows = rows_of(kind, kind, samples(values, **options), reported)
    return summarise(rows, [], EvaluateConfig(resamples=100))["metrics"]


@pytest.mark.parametrize("kind", ["lambada_openai", "lambada_standard"])
def test_the_perplexity_of_answers_is_the_harnesss(kind: str) -> None:
    logs = [-0.5, -2.0, -1.0]
    values = [{"perplexity": log, "acc": int(log > -1)} for log in logs]
    reported = {"perplexity,none": math.exp(3.5 / 3), "acc,none": 1 / 3}
    rows = rows_of(kind, kind, samples(values), reported)
    assert rows[0]["scores"] == {"nll": (0.5, 1.0), "acc": (1.0, 1.0)}
    found = figures(kind, values, reported)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(3.5 / 3))
    assert found["acc"]["value"] == pytest.approx(1 / 3)


def test_the_perplexities_of_texts_are_the_harnesss() -> None:
    texts = [(-30.0, 10, 50), (-50.0, 10, 70)]
    values = [
        {"word_perplexity": (log, words), "byte_perplexity": (log, size), "bits_per_byte": (log, size)}
        for log, words, size in texts
    ]
    expected = {
        "word_perplexity": math.exp(80 / 20),
        "byte_perplexity": math.exp(80 / 120),
        "bits_per_byte": 80 / 120 / math.log(2),
    }
    found = figures("wikitext", values, {f"{name},none": value for name, value in expected.items()})
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value)


def test_a_metric_that_is_no_mean_is_left_out() -> None:
    values = [{"exact": 1.0, "mcc": 1.0}, {"exact": 0.0, "mcc": 1.0}, {"exact": 1.0, "f1": (0, 1), "mcc": 0.0}]
    assert list(figures("glue", values, {"exact,none": 2 / 3, "mcc,none": 0.1, "f1,none": 0.5})) == ["exact"]


def test_of_several_filters_one_counts() -> None:
    values = [{"exact_match": 1.0}, {"exact_match": 0.0}]
    reported = {"exact_match,strict-match": 0.5, "exact_match,flexible-extract": 0.9}
    rows = rows_of("gsm8k", "gsm8k", samples(values, filters=("flexible-extract", "strict-match")), reported)
    assert [row["scores"]["exact_match"] for row in rows] == [(1.0, 1.0), (0.0, 1.0)]


def test_a_task_without_items_has_no_rows() -> None:
    assert rows_of("piqa", "piqa", [], {}) == []


def test_chance_is_one_of_the_choices() -> None:
    (row,) = rows_of("piqa", "prunus_piqa", samples([{"acc": 1.0, "acc_norm": 0.0}], choices=4), {})
    assert row["scores"]["chance"] == (0.25, 1.0)
    assert row["group"] is None
