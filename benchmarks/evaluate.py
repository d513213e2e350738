"""Base tasks compared with lm-evaluation-harness alone, and the gain from pairing, on real questions.

    python benchmarks/evaluate.py MODEL --data FOLDER [--tasks piqa ...] [--shots 1] [--items 200] [--json FILE]

FOLDER has hellaswag.jsonl, arc_easy.jsonl, piqa.jsonl, winogrande.jsonl and lambada_openai.jsonl, or MMLU's folder for
`--tasks mmlu`, whose items are then per subject. Each task is evaluated by `evaluate` and then by the harness's own
`hf` model, which loads the same folder. Scores must be equal; CPU seconds are compared. Then the model is compared with
a copy with a little noise in its weights: the width of the paired interval, and that of two separate scores.
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

from prunus.console import Console
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.pretrained import load_tokenizer
from prunus.pipeline.machine import hardware, versions
from prunus.steps.evaluate.config import EvaluateConfig, TaskConfig
from prunus.steps.evaluate.harness import Harness
from prunus.steps.evaluate.summary import summarise

TASKS = ("hellaswag", "arc_easy", "piqa", "winogrande", "lambada_openai")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=(*TASKS, "mmlu"))
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {name: measured(options, name) for name in options.tasks}
    print(f"{hardware()}, {options.threads} threads, {options.items} items, seed {options.seed}")
    print(f"{'task':16}{'acc':>8}{'harness':>9}{'CPU s':>9}{'ratio':>7}{'± alone':>9}{'± paired':>10}")
    for name, row in found.items():
        print(
            f"{name:16}{row['accuracy']:8.4f}{row['harness_accuracy']:9.4f}{row['seconds']:9.2f}"
            f"{row['seconds'] / row['harness_seconds']:7.2f}{row['half_apart']:9.4f}{row['half_paired']:10.4f}"
        )
    if options.json:
        facts = {"hardware": hardware(), "versions": versions(), "model": options.model.resolve().name}
        facts |= {name: getattr(options, name) for name in ("items", "shots", "batch_size", "noise", "seed", "threads")}
        options.json.write_text(json.dumps({**facts, "found": found}, indent=2) + "\n")


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """One task, by both."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    data = options.data if name == "mmlu" else options.data / f"{name}.jsonl"
    task: dict[str, Any] = {"data": str(data), "limit": options.items, "num_fewshot": options.shots}
    config = EvaluateConfig(tasks={name: task}, seed=options.seed)
    context = ModelFolder(options.model).shape.max_position_embeddings
    model = load_model(options.model, torch.device("cpu"), torch.float32)
    tokenizer = load_tokenizer(options.model)
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        first, quiet, size = task | {"limit": 1}, Console(quiet=True), options.batch_size
        Harness(model, tokenizer, context, Path(two), size).run(f"{name}-warm", _task(name, first), config, quiet)
        start = time.process_time()
        rows = Harness(model, tokenizer, context, Path(one), size).run(name, _task(name, task), config, quiet)
        seconds = time.process_time() - start
        written = str(Path(one) / "checkpoints" / f"harness-{name}")
        parts = sorted(file.stem for file in Path(written).glob("*.yaml"))
        start = time.process_time()
        hf = HFLM(pretrained=str(options.model), dtype="float32", batch_size=size, max_length=context, device="cpu")
        theirs = simple_evaluate(
            model=hf,
            tasks=parts, num_fewshot=options.shots, limit=options.items, bootstrap_iters=0,
            random_seed=options.seed, fewshot_random_seed=options.seed,
            task_manager=TaskManager(include_path=written, include_defaults=False),
        )["results"]  # fmt: skip
        harness_seconds = time.process_time() - start
        torch.manual_seed(options.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(options.noise * parameter.std() * torch.randn_like(parameter))
        noisy = Harness(model, tokenizer, context, Path(two), size).run(name, _task(name, task), config, quiet)
    harness_accuracy = float(np.mean([theirs[part]["acc,none"] for part in parts]))
    accuracy = float(np.mean([row["scores"]["acc"][0] for row in rows]))
    assert abs(accuracy - harness_accuracy) < 1e-9, (name, accuracy, harness_accuracy)
    alone, beside = (summarise(part, other, config)["metrics"]["acc"] for part, other in ((rows, []), (noisy, rows)))
    halves = [(figure["high"] - figure["low"]) / 2 for figure in (alone, beside, beside["difference"])]
    return {
        "accuracy": accuracy,
        "harness_accuracy": harness_accuracy,
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
