"""Training curves: each term of a loss, and the loss where it is a sum of several terms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from prunus.report.charts import LARGEST, Series, line_chart
from prunus.report.records import Result, Run

_NATS, _PAIR = "nats per token", "loss per pair"
TERMS: dict[str, tuple[str, str]] = {
    "forward_kl": ("KL(teacher ‖ student)", _NATS),
    "reverse_kl": ("KL(student ‖ teacher)", _NATS),
    "jensen_shannon": ("Jensen-Shannon divergence from the teacher", _NATS),
    "total_variation": ("Total variation distance to the teacher", "total variation, 0 to 1"),
    "mse": ("Squared error of the logits", "mean squared difference"),
    "cosine": ("Cosine distance of the logits", "1 - cosine"),
    "cross_entropy": ("Cross-entropy", _NATS),
    "states": ("Distance of the hidden states to the teacher's", "distance"),
    "sft": ("Cross-entropy of the chosen answers", _NATS),
    "odds_ratio": ("Odds ratio loss of ORPO", _PAIR),
    "bradley_terry": ("Bradley-Terry loss of the reward model", "nats per pair"),
    "kto": ("KTO loss", "loss per answer"),
    **{name: (f"{name.upper()} loss", _PAIR) for name in ("dpo", "cdpo", "ipo", "rpo", "simpo", "spin")},
}
"""Terms by their names in metrics.jsonl: title, and unit of the axis."""

ONLINE = ("grpo", "rloo")
"""Methods whose loss does not measure how good the model is; their reward does."""
_UNSCALED = ("mse", "cosine", "cross_entropy")  # losses without a temperature
_DISTANCES = {"relative": "squared error / state's size", "mse": "mean squared error", "cosine": "1 - cosine"}
_ALIKE = 1e-3  # relative difference up to which a term counts as the whole loss


def curves(run: Run) -> list[tuple[str, str, str]]:
    """Title, note and chart of every curve; different losses do not share a chart."""
    series_of: dict[tuple[str, str], list[Series]] = {}
    for result in [*run.of_kind("correct"), *run.of_kind("distill"), *run.of_kind("align")]:
        for title, unit, points in _of(result):
            series_of.setdefault((title, unit), []).append(Series(_named(result), points))
    note = "By training tokens; each point is the mean since the point before."
    return [
        (title, note, line_chart(series, "tokens", unit, log_y=unit != "reward"))
        for (title, unit), series in series_of.items()
    ]


def _named(result: Result) -> str:
    """A line's name: the model, and which training where it has several."""
    kind, _, rest = result.label.partition("-")
    if kind == "align":
        return f"{result.subject}: alignment {rest.partition('-')[0]}".rstrip()
    if kind == "qat":
        return f"{result.subject}: for its quantised file"
    return f"{result.subject}: first cut" if rest == "via" else result.subject


def _of(result: Result) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """The curves of one training step: title, unit, points."""
    lines, config = result.lines("metrics.jsonl"), result.record["config"]
    if config.get("method") in ONLINE:
        yield f"Reward of the model's answers, {config['method']}", "reward", _points(lines, "reward")
        return
    terms = [term for term in TERMS if any(_is_number(line.get(term)) for line in lines)]
    for term in terms:
        yield (*_titled(term, config), _points(lines, term))
    if not (len(terms) == 1 and all(_alike(line, terms[0]) for line in lines)):
        yield f"Training loss: {composition(config)}", "loss", _points(lines, "loss")


def composition(config: dict[str, Any]) -> str:
    """The terms of a training loss, in words."""
    guide, method = _guide(config), config.get("method", "distil")
    if method == "orpo":
        return f"cross-entropy + {config.get('odds_weight', 0):g} × odds ratio"
    if method != "distil":
        text = config.get("sft_weight")
        return f"{method} + {text:g} × cross-entropy" if text else str(method)
    loss = str(guide.get("loss", "cross_entropy"))
    temperature = guide.get("temperature", 1.0)
    parts = [loss if temperature == 1 or loss in _UNSCALED else f"{temperature:g}² × {loss}"]
    if guide.get("cross_entropy_weight"):
        parts.append(f"{guide['cross_entropy_weight']:g} × cross-entropy")
    states = guide.get("states", {})
    if states.get("weight"):
        falling = ", falling to 0" if states.get("decay", "linear") == "linear" else ""
        parts.append(f"{states['weight']} × states{falling}")
    weighted = ", tokens weighted by the teacher's entropy" if guide.get("token_weights") == "teacher_entropy" else ""
    return " + ".join(parts) + weighted


def _titled(term: str, config: dict[str, Any]) -> tuple[str, str]:
    """A term's title, with the options that its values depend on, and its unit."""
    title, unit = TERMS[term]
    guide, method = _guide(config), config.get("method")
    if term == guide.get("loss") and term not in _UNSCALED:
        if guide.get("temperature", 1.0) != 1:
            title += f" at temperature {guide['temperature']:g}"
        if guide.get("top_k"):
            title += f", over the teacher's top {guide['top_k']} tokens and the rest as one"
        if guide.get("targets") == "cached":
            title += ", over the teacher's stored tokens"
        if guide.get("teacher_bits"):
            title += f", to the teacher in {guide['teacher_bits']} bits"
    if guide.get("data") == "student":
        rollouts = guide.get("rollouts", {})
        mixed = rollouts.get("share", 1) < 1 or rollouts.get("start", 0) > 0
        title += f", on {'the corpus and ' if mixed else ''}the student's own text"
    if method is not None and term in ("cross_entropy", guide.get("loss")):
        title += ", on the assistant's turns"
    if term == "states":
        unit = _DISTANCES.get(guide.get("states", {}).get("distance", ""), unit)
    if term == "sft" and method not in ("simpo", "orpo") and not config.get("per_token"):
        unit = "nats per answer"
    return title, unit


def _guide(config: dict[str, Any]) -> dict[str, Any]:
    """The options of learning from a teacher."""
    if "method" not in config:
        return config
    return dict(config.get("guide", {})) if config["method"] == "distil" else {}


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["tokens"], line[name]) for line in lines if _is_number(line.get(name))]


def _alike(line: dict[str, Any], term: str) -> bool:
    return _is_number(line.get(term)) and math.isclose(line[term], line["loss"], rel_tol=_ALIKE, abs_tol=1e-6)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
