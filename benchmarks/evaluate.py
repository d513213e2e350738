"""Base tasks compared with lm-evaluation-harness alone, and the gain from pairing, on real questions.

    python benchmarks/evaluate.py MODEL --data FOLDER [--items 200] [--json FILE]

FOLDER has hellaswag.jsonl, arc_easy.jsonl, piqa.jsonl, winogrande.jsonl and lambada_openai.jsonl. Each task is
evaluated by `evaluate` and then by the harness, which loads the same folder. Scores must be equal; the ratio of times
is the overhead of `evaluate`. Then the model is compared with a copy with a little noise in its weights: the width of
the paired interval, and that of two separate scores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from prunus.models.folder import ModelFolder
from prunus.models.load import load_model, load_tokenizer
from prunus.pipeline.machine import hardware, versions
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.harness import Harness
from prunus.steps.evaluate.summary import summarise

TASKS = ("hellaswag", "arc_easy", "piqa", "winogrande", "lambada_openai")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: measured(options, name) for name in TASKS}
    print(f"{hardware()}, {options.threads} threads, {options.items} items, seed {options.seed}")
    print(f"{'task':16}{'acc':>8}{'harness':>9}{'seconds':>9}{'ratio':>7}{'± alone':>9}{'± paired':>10}")
    for name, row in found.items():
        print(
            f"{name:16}{row['accuracy']:8.4f}{row['harness_accuracy']:9.4f}{row['seconds']:9.2f}"
            f"{row['seconds'] / row['harness_seconds']:7.2f}{row['half_apart']:9.4f}{row['half_paired']:10.4f}"
        )
    if options.json:
        facts = {"hardware": hardware(), "versions": versions(), "model": options.model.parent.name}
        facts |= {name: getattr(options, name) for name in ("items", "noise", "seed", "threads")}
        options.json.write_text(json.dumps({**facts, "found": found}, indent=2) + "\n")


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One task, by both."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    task: dict[str, Any] = {"data": str(options.data / f"{name}.jsonl"), "limit": options.items, "num_fewshot": 1}
    config = EvaluateConfig(tasks={name: task}, seed=options.seed)
    context = ModelFolder(options.model).shape.max_position_embeddings
    model = load_model(options.model, torch.device("cpu"), torch.float32)
    tokenizer = load_tokenizer(options.model)
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        first = task | {"limit": 1}
        Harness(model, tokenizer, context, Path(two), 16).run(f"{name}-warm", _task(name, first), config)
        start = time.perf_counter()
        rows = Harness(model, tokenizer, context, Path(one), 16).run(name, _task(name, task), config)
        seconds = time.perf_counter() - start
        written = str(Path(one) / "checkpoints" / f"harness-{name}")
        start = time.perf_counter()
        theirs = simple_evaluate(
            model=HFLM(pretrained=str(options.model), batch_size=16, max_length=context, device="cpu"),
            tasks=[f"prunus_{name}"], num_fewshot=1, limit=options.items, bootstrap_iters=0,
            random_seed=options.seed, fewshot_random_seed=options.seed,
            task_manager=TaskManager(include_path=written, include_defaults=False),
        )["results"][f"prunus_{name}"]["acc,none"]  # fmt: skip
        harness_seconds = time.perf_counter() - start
        torch.manual_seed(options.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(options.noise * parameter.std() * torch.randn_like(parameter))
        noisy = Harness(model, tokenizer, context, Path(two), 16).run(name, _task(name, task), config)
    accuracy = float(np.mean([row["scores"]["acc"][0] for row in rows]))
    assert abs(accuracy - theirs) < 1e-9, (name, accuracy, theirs)
    alone, beside = (summarise(part, other, config)["metrics"]["acc"] for part, other in ((rows, []), (noisy, rows)))
    halves = [(figure["high"] - figure["low"]) / 2 for figure in (alone, beside, beside["difference"])]
    return {
        "accuracy": accuracy,
        "harness_accuracy": theirs,
        "seconds": seconds,
        "harness_seconds": harness_seconds,
        "difference": beside["difference"]["value"],
        "half_apart": float(np.hypot(halves[0], halves[1])),
        "half_paired": halves[2],
    }


def _task(name: str, options: dict[str, Any]) -> TaskConfig:
    return TaskConfig(kind=name, **options)


if __name__ == "__main__":
    main()
