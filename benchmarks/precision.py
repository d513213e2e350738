"""What bfloat16 changes in scores, in the student cut by them, and in the figures of an evaluation; and its speed.

    python benchmarks/precision.py TEACHER --corpus FILE --held-out FILE [--student FOLDER] [--json FILE]

Each step runs twice, with `runtime.precision` float32 and bfloat16. Scores are compared by what they decide: the share
of neurons, heads and channels that both keep in a cut to half of each, and the KL of the two students before training.
Figures of an evaluation are compared window by window (paired), for the teacher and for a student.

On a processor without bfloat16, products of bfloat16 factors are computed in float32 and rounded, as a processor with
bfloat16 does it; the time of that means nothing and is not shown.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file

from prunus.config import parse
from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.inference.heldout import COLUMNS
from prunus.models.folder import ModelFolder
from prunus.models.precision import product_dtype
from prunus.pipeline.machine import hardware, versions
from prunus.runtime import Runtime
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.evaluate.intervals import ratio_interval
from prunus.steps.evaluate.step import Inputs as EvaluateInputs
from prunus.steps.evaluate.step import run as evaluate
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as prune
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as score

PRECISIONS = ("float32", "bfloat16")
QUIET = Console(quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--student", type=Path, help="evaluated in both; by default the student cut by the scores")
    parser.add_argument("--prune", type=json.loads, help="the cut; by default half of the MLP and 5/6 of the channels")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--held-out-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    native = product_dtype(torch.device("cpu")) is torch.bfloat16
    with TemporaryDirectory() as folder, nullcontext() if native else rounded_products():
        found = compare(options, Path(folder))
    show(found, options, native)
    if options.json:
        facts = {"hardware": hardware(), "versions": versions(), "teacher": options.teacher.resolve().name}
        facts |= {name: getattr(options, name) for name in ("samples", "sequence_length", "held_out_tokens", "threads")}
        facts |= {"bfloat16": "native" if native else "products in float32, rounded"}
        options.json.write_text(json.dumps({**facts, **found}, indent=2) + "\n")


@contextmanager
def rounded_products() -> Iterator[None]:
    """Within this context, linear layers and attention multiply bfloat16 factors in float32 and round the results."""

    def rounded(function: Any) -> Any:
        def call(first: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
            if first.dtype is not torch.bfloat16:
                return function(first, *rest, **options)
            wide = [value.float() if _is_narrow(value) else value for value in (first, *rest)]
            named = {name: value.float() if _is_narrow(value) else value for name, value in options.items()}
            return function(*wide, **named).bfloat16()

        return call

    functional = torch.nn.functional
    names = ("linear", "scaled_dot_product_attention")
    with mock.patch.multiple(functional, **{name: rounded(getattr(functional, name)) for name in names}):
        yield


def _is_narrow(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every step in both precisions."""
    prepare(options, folder)
    seconds: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        seconds[f"score {precision}"] = scored(options, folder, precision)
        cut(options, folder, precision)
    models = {"teacher": (options.teacher, None)}
    for precision in PRECISIONS:
        models[f"student scored in {precision}"] = (folder / f"student-{precision}", options.teacher)
    if options.student:
        models["student"] = (options.student, options.teacher)
    evaluations = {}
    for name, (model, teacher) in models.items():
        rows = {}
        for precision in PRECISIONS:
            rows[precision], seconds[f"evaluate {name} {precision}"] = evaluated(
                options, folder, model, teacher, precision
            )
        evaluations[name] = differences(rows, beside_teacher=teacher is not None)
    return {"kept_by_both": kept_by_both(options, folder), "evaluations": evaluations, "cpu_seconds": seconds}


def prepare(options: argparse.Namespace, folder: Path) -> None:
    for name, text in (("tokens", options.corpus), ("held-out", options.held_out)):
        (folder / name).mkdir()
        inputs = DataInputs((parse(Source, text, name),), options.teacher)
        tokenise(TokensConfig(max_tokens=400_000), inputs, folder / name, Runtime(), QUIET)


def scored(options: argparse.Namespace, folder: Path, precision: str) -> float:
    """Score the teacher; returns CPU seconds."""
    config = ScoreConfig(samples=options.samples, sequence_length=options.sequence_length)
    return timed(
        score, config, ScoreInputs(options.teacher, folder / "tokens"), folder / f"scores-{precision}", precision
    )[1]


def cut(options: argparse.Namespace, folder: Path, precision: str) -> None:
    """Cut a student by the scores, without a refit, so that it shows what the scores decide."""
    shape = ModelFolder(options.teacher).shape
    unit = 4 * shape.num_attention_heads
    kept = {
        "hidden_size": shape.hidden_size * 5 // 6 // unit * unit,
        "intermediate_size": shape.intermediate_size // 2,
    }
    config = PruneConfig.model_validate({**(options.prune or kept), "heal": "none", "check_samples": 0})
    inputs = PruneInputs(options.teacher, folder / f"scores-{precision}", folder / "tokens")
    timed(prune, config, inputs, folder / f"student-{precision}", "float32")


def evaluated(
    options: argparse.Namespace, folder: Path, model: Path, teacher: Path | None, precision: str
) -> tuple[np.ndarray, float]:
    """Evaluate on the held-out text; returns the windows' sums [N, len(COLUMNS)], and CPU seconds."""
    config = EvaluateConfig(sequence_length=512, max_tokens=options.held_out_tokens, prompt_count=0)
    out = folder / f"evaluate-{len(list(folder.iterdir()))}"
    _, seconds = timed(evaluate, config, EvaluateInputs(model, folder / "held-out", teacher), out, precision)
    lines = (out / "windows.jsonl").read_text(encoding="utf-8").splitlines()
    return np.array([[json.loads(line)[name] for name in COLUMNS] for line in lines]), seconds


def timed(run: Any, config: Any, inputs: Any, out: Path, precision: str) -> tuple[dict[str, float], float]:
    out.mkdir()
    begin = time.process_time()
    metrics = run(config, inputs, out, Runtime(precision=precision), QUIET)
    return metrics, time.process_time() - begin


def differences(rows: dict[str, np.ndarray], beside_teacher: bool) -> dict[str, dict[str, float]]:
    """Each figure in float32, and the paired difference of bfloat16, with 95 % intervals over windows."""
    wide, narrow = (rows[precision] for precision in PRECISIONS)
    names = ("nll", "kl", "agreed") if beside_teacher else ("nll",)
    found = {}
    for name in names:
        column = COLUMNS.index(name)
        for key, values in ((name, wide[:, column]), (f"{name} difference", narrow[:, column] - wide[:, column])):
            found[key] = ratio_interval(values, wide[:, 0], 0.95, 10_000, 0)
    return found


def kept_by_both(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """For each axis of the scores, the share of the better half by float32 that bfloat16's scores keep as well."""
    scores = [load_file(folder / f"scores-{precision}" / "scores.safetensors") for precision in PRECISIONS]
    shares = {}
    for name in scores[0]:
        if not name.endswith(".mean"):
            continue
        sets = [(one[name][1] if one[name].ndim > 2 else one[name]).argsort(dim=-1, descending=True) for one in scores]
        half = sets[0].shape[-1] // 2
        same = [
            len(set(a[:half].tolist()) & set(b[:half].tolist()))
            for a, b in zip(*(one.flatten(0, -2) for one in sets), strict=True)
        ]
        shares[name.removesuffix(".mean")] = float(np.mean(same)) / half
    return shares


def show(found: dict[str, Any], options: argparse.Namespace, native: bool) -> None:
    print(f"{hardware()}, {options.threads} threads, scores from {options.samples} x {options.sequence_length} tokens")
    for axis, share in found["kept_by_both"].items():
        print(f"{axis}: {share:.2%} of the better half by float32 are kept by bfloat16's scores as well")
    print(f"{'model':32}{'figure':8}{'float32':>28}{'bfloat16 - float32':>34}")
    for model, figures in found["evaluations"].items():
        for name in [name for name in figures if not name.endswith("difference")]:
            a, d = figures[name], figures[f"{name} difference"]
            value = f"{a['value']:.4f} [{a['low']:.4f}, {a['high']:.4f}]"
            print(f"{model:32}{name:8}{value:>28}   {d['value']:+.5f} [{d['low']:+.5f}, {d['high']:+.5f}]")
    if native:
        for step in [step for step in found["cpu_seconds"] if step.endswith("float32")]:
            other = f"{step.removesuffix('float32')}bfloat16"
            share = found["cpu_seconds"][other] / found["cpu_seconds"][step]
            print(f"{step.removesuffix(' float32')}: {share:.2f} of float32's CPU time")


if __name__ == "__main__":
    main()
