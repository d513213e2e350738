"""The records of a run in which every kind of step stands, as the steps write them."""

import json
from pathlib import Path
from typing import Any

from tests.tiny import SMALL

RECORD: dict[str, Any] = {
    "key": "00000000",
    "seconds": 61.0,
    "peak_memory_bytes": {"process": 2e9},
    "files": {"a": {"bytes": 10, "xxh3": "0"}},
    "versions": {"torch": "2"},
    "hardware": "a machine",
}
EVOLVE = {"trials": 2, "i_am_tuning_on_the_test_set": False}
GUIDE = {
    "loss": "forward_kl", "temperature": 2.0, "cross_entropy_weight": 0.5, "token_weights": "uniform", "top_k": None,
    "states": {"weight": 1.0, "decay": "linear", "distance": "relative"}, "targets": "online", "data": "corpus",
}  # fmt: skip


def figure(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def task(first: str, unit: str, value: float) -> dict[str, Any]:
    metrics = {first: {**figure(value), "difference": figure(-0.1), "items": 9}, "length": figure(20)}
    groups = {name: {"metrics": {first: figure(value)}, "items": 4} for name in ("a", "b")}
    return {"first": first, "unit": unit, "generates": True, "metrics": metrics, "groups": groups}


def results(beside: bool) -> dict[str, Any]:
    names = ("nll", "perplexity", "bits_per_byte", *(("kl", "agreement", "nll_increase") if beside else ()))
    tally = {"asked": 9, "graded": 7, "malformed": 1, "failed": 1, "hole": None}
    speed = {"parameters": 1.0, "bytes": 2.0, "kv_bytes_per_token": 3.0, "prefill": 4.0, "decode": 5.0}
    return {
        "parameters": 4_540_469_248,
        "non_embedding_parameters": 3_489_796_096,
        "figures": {name: figure(0.5) for name in names},
        "tasks": {
            "mmlu": task("acc", "share", 0.6),
            "mt": {**task("judge", "grade", 7.7), "judge": tally},
            "wikitext": task("word_perplexity", "perplexity", 21.5),
            "rag": {"hole": "no data"},
        },
        "efficiency": {"model": speed, "teacher": speed},
        "warnings": ["be warned"],
    }


def search() -> dict[str, Any]:
    def candidate(parameters: float, losses: list[float]) -> dict[str, Any]:
        return {"figures": {"parameters": parameters}, "before": {"kl": {"value": 3.0}}, "loss": losses[-1],
                "rungs": [{"kl": {"value": loss}} for loss in losses]}  # fmt: skip

    before = {"rank_correlation": 0.5, "chosen": "b", "regret": 0.1}
    return {
        "measure": "kl", "cost": "parameters", "tokens": [1000, 2000], "order": [["b", "a"], ["a", "b"], ["a"]],
        "before": before, "rank_correlations": [None], "settled_at_tokens": 1000, "pareto": ["a"],
        "candidates": {"a": candidate(5, [2.0, 1.0]), "b": candidate(6, [2.5])},
    }  # fmt: skip


def lines(*values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"step": i, "tokens": 8 * i, **value} for i, value in enumerate(values, start=1)]


def steps() -> list[tuple[str, str, str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Of each step subject, label, kind, options, figures and files."""
    answers = [{"prompt": "Once", "answer": "upon a time"}]
    said = [{"id": "1", "said": ["Say it"], "answers": [["It.", "That."]], "scores": {}}]
    terms = {"forward_kl": 0.5, "cross_entropy": 3.0, "states": 0.25, "loss": 3.75}
    journal = [{"number": i, "part": 0, "vector": [0.1], "scores": {"a": 0.5}, "fitness": 0.5 + i} for i in range(2)]
    evolved = {"chosen_trial": 1.0, "fitness": 0.6, "fitness_start": 0.5}
    prune = {"init": "teacher", "importance": {"channels": {"criterion": "activation"}}}
    scores = {
        "layers": {"block_influence": [0.5, 0.1]}, "channels": [1.0, 3.0, 2.0], "neurons": [[1.0, 4.0], [3.0, 2.0]],
        "heads": [[1.0, 2.0], [2.0, 1.0]],
    }  # fmt: skip
    exported = {
        "proof": {"difference": 0},
        "gguf-q4_k_m": {"file": "w.gguf", "nbytes": 2e6, "kl": 0.01, "perplexity": 9.5},
    }
    tokens = {"tokens": 1_500_000}
    return [
        ("teacher", "correct", "correct", {}, tokens, {"metrics.jsonl": lines({"cross_entropy": 2.0, "loss": 2.0})}),
        ("teacher", "score", "score", {}, {}, {"scores.json": scores}),
        ("teacher", "evaluate", "evaluate", {}, {},
         {"results.json": results(False), "answers.jsonl": answers, "answers/mt.jsonl": said}),
        ("search", "search", "search", {}, {}, {"search.json": search()}),
        ("w", "prune", "prune", prune, {}, {"config.json": SMALL}),
        ("w", "distill", "distill", GUIDE, tokens, {"metrics.jsonl": lines(terms, terms), "config.json": SMALL}),
        ("w", "align-1-dpo", "align", {"method": "dpo", "sft_weight": 0.1, "per_token": True}, {},
         {"metrics.jsonl": lines({"dpo": 0.6, "sft": 1.0, "loss": 0.7}), "config.json": SMALL}),
        ("w", "align-2-grpo", "align", {"method": "grpo"}, {},
         {"metrics.jsonl": lines({"reward": 0.6, "loss": 0.001}), "config.json": SMALL}),
        ("w", "evaluate", "evaluate", {}, {},
         {"results.json": results(True), "answers.jsonl": answers, "answers/mt.jsonl": said}),
        ("w", "export", "export", {}, {}, {"export.json": exported}),
        ("m", "merge", "merge", {"method": "linear", "evolve": EVOLVE}, evolved,
         {"journal.jsonl": journal, "parents.json": [{"0": {"a": 0.5}, "1": {"a": 0.4}}], "config.json": SMALL}),
        ("m", "evaluate", "evaluate", {}, {}, {"results.json": results(True), "answers.jsonl": answers}),
    ]  # fmt: skip


def make_run(root: Path) -> Path:
    """Write them."""
    listed = []
    for subject, label, kind, config, metrics, files in steps():
        folder = root / subject / f"{label}-00000000"
        for name, content in files.items():
            write(folder / name, content)
        write(folder / "artifact.json", {**RECORD, "config": config, "metrics": metrics})
        listed.append({"subject": subject, "label": label, "kind": kind, "folder": f"{subject}/{folder.name}"})
    recipe = {
        "evaluate": {"confidence": 0.95}, "teacher": {"path": None}, "seed": 0,
        "data": {"corpus": [{"path": "corpus.jsonl"}], "held_out": None},
        "students": {"w": {"prune": {}, "merge": None}, "m": {"merge": {"of": ["w", "teacher"], "base": None}}},
    }  # fmt: skip
    write(root / "run.json", {"name": "run", "recipe": recipe, "teacher": {"hidden_size": 32}, "steps": listed})
    return root


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
    else:
        file.write_text(json.dumps(content), encoding="utf-8")
