"""The search in a report: candidates, how their ranking changed and when it settled, and the Pareto front."""

from __future__ import annotations

from typing import Any

from prunus.console import human, human_bytes
from prunus.report.charts import Series, line_chart, scatter_chart
from prunus.report.records import Run
from prunus.report.tasks import Table

_CUT = "before recovery"


def found_in(run: Run) -> dict[str, Any] | None:
    """The record of a run's search, or None where it has none."""
    result = next(iter(run.of_kind("search")), None)
    return None if result is None else result.json("search.json")


def candidates(found: dict[str, Any]) -> Table:
    """Every candidate: its figure for the tightest limit, its rank before recovery, its loss after each rung.

    Candidates that reached the last rung come first.
    """
    tokens = [human(count) for count in found["tokens"]]
    cost = found["cost"]
    places = {name: place for place, name in enumerate(found["order"][0], start=1)}
    rows = []
    for name, one in _ordered(found):
        losses = [rung[found["measure"]]["value"] for rung in one["rungs"]]
        cells = [f"{loss:.4f}" for loss in losses] + [""] * (len(tokens) - len(losses))
        before = f"{one['before'][found['measure']]['value']:.3f} ({places[name]}.)"
        rows.append([name, _figure(cost, one["figures"][cost]), before, *cells])
    return Table(("candidate", cost, f"{found['measure']} {_CUT}", *(f"{count} tokens" for count in tokens)), rows)


def movement(found: dict[str, Any]) -> str:
    """How the ranking changed, in a sentence."""
    before = found["before"]
    first = human(found["tokens"][0])
    rank = before["rank_correlation"]
    alike = "" if rank is None else f"rank correlation of before recovery and after {first} tokens: {rank:.2f}; "
    worse = f"before recovery {before['chosen']} led, which is {before['regret']:.4f} worse after {first} tokens"
    first_choice = "before recovery the same candidate led" if not before["regret"] else worse
    later = [f"{value:.2f}" for value in found["rank_correlations"] if value is not None]
    between = f"; from rung to rung: {', '.join(later)}" if later else ""
    return f"{alike}{first_choice}{between}; the leader is the same from {human(found['settled_at_tokens'])} tokens on"


def charts(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Title, note and chart of the Pareto front and of the ranking."""
    measure, cost = found["measure"], found["cost"]
    points = [
        (name, one["figures"][cost], one["rungs"][0][measure]["value"]) for name, one in found["candidates"].items()
    ]
    unit = _unit(cost)
    x_label = f"{cost}, {unit}" if unit else cost
    y_label = f"{measure} after {human(found['tokens'][0])} tokens, nats per token"
    front = scatter_chart(points, found["pareto"], x_label, y_label)
    stages = len(found["order"])
    series = []
    for name, _ in _ordered(found):
        places = [(stage, order.index(name) + 1) for stage, order in enumerate(found["order"]) if name in order]
        series.append(Series(name, [(float(stage), float(place)) for stage, place in places]))
    moved = line_chart(series, f"0: {_CUT}; 1 to {stages - 1}: rungs", "rank, the best on top", reversed_y=True)
    return [
        (
            f"Search: {measure} by {cost}",
            "Every candidate after the first rung. No candidate is better in both than one on the line.",
            front,
        ),
        ("Search: ranking after each rung", movement(found) + ".", moved),
    ]


def _ordered(found: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs = list(found["candidates"].items())
    return sorted(pairs, key=lambda pair: (-len(pair[1]["rungs"]), pair[1]["loss"]))


def _unit(cost: str) -> str:
    """The unit of a budget's limit in search.json."""
    if "file" in cost or "context" in cost:
        return "bytes"
    return "seconds a token" if "decode" in cost else ""


def _figure(cost: str, value: float) -> str:
    if "file" in cost or "context" in cost:
        return human_bytes(value)
    return f"{1000 * value:.3g} ms" if "decode" in cost else human(value)
