"""Charts of scores: layers in order, channels and neurons by rank, heads by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prunus.report.charts import Series, bar_chart, heat_map, line_chart
from prunus.report.records import Run


def importance(run: Run) -> list[tuple[str, str, str]]:
    """Title, note and chart of each axis that was scored."""
    result = next(iter(run.of_kind("score")), None)
    return [] if result is None else list(_charts(result.json("scores.json")))


def _charts(scores: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    influence = scores["layers"]["block_influence"]
    yield (
        "Layers",
        "Block influence, 1 - cos(input, output) of the residual stream, from the first layer to the last.",
        bar_chart(influence, [str(i) for i in range(len(influence))], "block influence", "layer"),
    )
    if scores.get("channels"):
        channels = [Series("channels", _falling(scores["channels"]))]
        yield (
            "Hidden channels",
            "Importance summed over all norms, in falling order.",
            line_chart(channels, "rank", "importance", log_y=True),
        )
    if scores.get("neurons"):
        yield (
            "MLP neurons",
            "Importance of each layer's neurons, in falling order; the experts of a mixture are ranked together.",
            line_chart([Series(f"layer {i}", _falling(_flat(row))) for i, row in enumerate(scores["neurons"])],
                       "rank", "importance", log_y=True),
        )  # fmt: skip
    if scores.get("heads"):
        yield (
            "Attention heads",
            "Importance; each layer is shaded from its smallest value to its largest.",
            heat_map(scores["heads"], "head", "layer"),
        )
    if scores.get("expert_frequency"):
        yield (
            "Use of experts",
            "Share of the tokens that are routed to each expert; each layer is shaded from its smallest value to its "
            "largest.",
            heat_map(scores["expert_frequency"], "expert", "layer"),
        )


def _flat(row: list[Any]) -> list[float]:
    return [value for part in row for value in (part if isinstance(part, list) else [part])]


def _falling(values: list[float]) -> list[tuple[float, float]]:
    """Rank and value, the largest first; ranks begin at 1."""
    return [(float(rank), value) for rank, value in enumerate(sorted(values, reverse=True), start=1)]
