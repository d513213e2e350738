"""Prunus on a GPU, in one command without network: correctness against the CPU, and the speed of training and answers.

    python benchmarks/gpu.py [--minutes 8] [--peak TFLOPS] [--json FILE]
    python benchmarks/gpu.py --small          # the same code on tiny models; on a CPU too, in seconds

Parts run in the order of `PARTS`; a part that would not end within `--minutes` is skipped. A part that fails is
reported, the others run, and the exit code is 1. The output is Markdown.

1. checks: the functions and steps of gpu_checks.py on the device and on the CPU. Products of float32 are not rounded to
   TF32. Errors are relative to the CPU's values in float32.
2. step: a step of distillation at the shapes of Llama-3.1 8B to 4B, by the number of layers; see gpu_step.py.
   *Products* is the share of its time that its products by weights alone take; FLOP count those and causal attention.
3. shards: distillation under torchrun with `runtime.shard` on one process, whose losses must be those without it.
4. generation: new tokens per second of Prunus's generation, with a model of SmolLM2-135M's shape.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gpu_checks
import gpu_step
import torch
from gpu_checks import CHECKS, NotHereError
from gpu_made import CPU, TINY, Made, Where, make
from gpu_step import Size
from transformers import GenerationConfig
from transformers.utils import logging

from prunus import distributed
from prunus.inference.config import GenerationOptions
from prunus.inference.local import generate
from prunus.inference.prompts import Prompt
from prunus.pipeline.machine import hardware, versions

SMOLLM2 = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}  # fmt: skip
BATCHES = (1, 16, 64)
SHARDED = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # the largest relative difference of a loss
FRAMES, LINES, WIDTH = 6, 20, 300  # of an error that are shown: calls, and lines of its message
Row = dict[str, Any]


@dataclass
class Bench:
    """What the parts share.

    Attributes:
        options: The command line.
        device: The device.
        made: Folders of models and tokens.
        rows: The rows of the part that runs.
        failed: What went wrong in it.
    """

    options: argparse.Namespace
    device: torch.device
    made: Made
    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def heading(self, *columns: str) -> None:
        """Begin a table."""
        say(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells: object, **facts: Any) -> None:
        """Print a row as soon as it is known, and keep its figures."""
        self.rows.append(facts)
        say(f"| {' | '.join(map(str, cells))} |")

    def fail(self, what: str, error: BaseException | None = None) -> None:
        """Note that something is wrong; of an error, its last calls and the beginning of its message."""
        lines = [what]
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
            lines += [f"  {Path(one.filename).name}:{one.lineno}, {one.name}: {one.line}" for one in frames]
            message = [line[:WIDTH] for line in str(error).strip().splitlines()[:LINES]]
            lines.append(f"{type(error).__name__}: " + "\n".join(message))
        self.failed.append("\n".join(lines))


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: what it does, and about how long it takes on a GPU."""

    run: Callable[[Bench], None]
    seconds: float


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="cpu, or cuda:N")
    parser.add_argument("--small", action="store_true", help="tiny models, and no limit of time")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 16, 32], help="of both models of a step")
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--peak", type=float, help="the device's TFLOP/s in bfloat16, for the utilisation")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sharded", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    begin = time.monotonic()
    torch.set_float32_matmul_precision("highest")  # no TF32
    torch.manual_seed(0)
    logging.set_verbosity_error()
    device = torch.device(options.device)
    if options.sharded:
        distil_sharded(Made.reopen(options.sharded, options.small), device)
        return
    if device.type == "cpu":
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(device)
    say(f"{hardware()}; {', '.join(f'{name} {one}' for name, one in versions().items())}, CUDA {torch.version.cuda}")
    facts = {"hardware": hardware(), "versions": versions(), "cuda": torch.version.cuda, "device": str(device)}
    facts |= {"seed": 0, "small": options.small, "minutes": options.minutes, "peak_tflops": options.peak, "parts": {}}
    with TemporaryDirectory() as root:
        made = make(Path(root), options.small)
        for name in options.parts:
            facts["parts"][name] = run_part(name, Bench(options, device, made), begin)
            if options.json:
                options.json.write_text(json.dumps(facts, indent=2) + "\n")
    failed = [name for name, part in facts["parts"].items() if part.get("failed")]
    say(f"\n{time.monotonic() - begin:.0f} s. " + (f"Failed: {', '.join(failed)}" if failed else "Nothing failed."))
    raise SystemExit(1 if failed else 0)


def run_part(name: str, bench: Bench, begin: float) -> dict[str, Any]:
    """Run one part if there is time for it, and return its rows and failures."""
    part, start = PARTS[name], time.monotonic()
    say(f"\n## {name}")
    late = start - begin + part.seconds > 60 * bench.options.minutes
    if late and not bench.options.small:
        say(f"\nskipped: it takes about {part.seconds:.0f} s, and {start - begin:.0f} s are over")
        return {"skipped": True}
    try:
        part.run(bench)
    except Exception as error:
        bench.fail(name, error)
    gpu_step.release(bench.device)  # the next part may run in another process
    for text in bench.failed:
        say("\n```\n" + text + "\n```")
    return {"seconds": time.monotonic() - start, "rows": bench.rows, "failed": bench.failed}


def check(bench: Bench) -> None:
    """Every check, in float32 and in bfloat16."""
    bench.heading("check", "dtype", "error", "tolerance", "largest in", "")
    reference = Where(CPU, torch.float32, bench.made)
    for name, one in CHECKS.items():
        tolerances = {torch.float32: one.float32, torch.bfloat16: one.bfloat16}
        same = bench.device == CPU and one.bfloat16 is not None  # then float32 would be compared with itself
        try:
            expected = one.run(reference)
            for dtype, tolerance in tolerances.items():
                if tolerance is not None and not (same and dtype is torch.float32):
                    found = gpu_checks.errors(one.run(Where(bench.device, dtype, bench.made)), expected)
                    report(bench, name, dtype, found, tolerance)
        except NotHereError as reason:
            bench.row(name, "", "", "", "", f"skipped: {reason}", check=name, skipped=str(reason))
        except Exception as error:
            bench.row(name, "", "", "", "", f"**{type(error).__name__}**", check=name, error=repr(error))
            bench.fail(name, error)


def report(bench: Bench, name: str, dtype: torch.dtype, found: Mapping[str, float], tolerance: float) -> None:
    """The row of a check: its largest error."""
    kind, worst = str(dtype).removeprefix("torch."), max(found, key=lambda key: found[key])
    right = found[worst] <= tolerance
    cells = (name, kind, f"{found[worst]:.1e}", f"{tolerance:.0e}", worst, "" if right else "**wrong**")
    bench.row(*cells, check=name, dtype=kind, error=found[worst], tolerance=tolerance, worst=worst)
    if not right:
        bench.fail(f"{name} in {kind}: the error of {worst} is {found[worst]:.3g}, above {tolerance:g}")


def step(bench: Bench) -> None:
    """A step of distillation by its number of layers, and with Muon at the smallest."""
    options = bench.options
    if not (options.small or bench.cuda):
        raise RuntimeError("models of 8B and 4B need a GPU; on a CPU, use --small")
    size = Size.small() if options.small else Size.full(tuple(options.layers), options.tokens)
    say(f"\n{size.tokens} tokens in a sequence. Times in ms.")
    peak = ("of peak",) if options.peak else ()
    bench.heading("layers", "optimizer", "tokens/s", "products", "TFLOP/s", *peak, "GB", "step", *gpu_step.PARTS)
    for layers, optimizer in [*((layers, "adamw") for layers in size.layers), (min(size.layers), "muon")]:
        try:
            row = gpu_step.measure(size, layers, optimizer, bench.device, options.peak)
        except torch.OutOfMemoryError:
            bench.row(layers, optimizer, "out of memory", layers=layers, optimizer=optimizer, out_of_memory=True)
            continue
        memory = "" if row["gigabytes"] is None else f"{row['gigabytes']:.1f}"
        times = [f"{1000 * row[name]:.1f}" for name in ("seconds", *gpu_step.PARTS)]
        of_peak = [f"{row['of_peak']:.0%}"] if options.peak else []
        speed = (f"{row['tokens_per_second']:.0f}", f"{row['of_products']:.0%}", f"{row['tflops']:.3g}")
        bench.row(layers, optimizer, *speed, *of_peak, memory, *times, **row)
    measured = [row for row in bench.rows if row["optimizer"] == "adamw" and "seconds" in row]
    if len(measured) > 1:
        line = gpu_step.by_layers(measured, size)
        bench.rows.append({"optimizer": "adamw", "by_layers": line})
        known = max(row["layers"] for row in measured) >= line["layers"]
        say(
            f"\nA layer of both models takes {1000 * line['layer_seconds']:.2f} ms, the rest of the step "
            f"{1000 * line['other_seconds']:.2f} ms; with {line['layers']} layers the line gives "
            f"{line['tokens_per_second']:.0f} tokens/s ({'measured' if known else 'extrapolated, not measured'})."
        )


def shards(bench: Bench) -> None:
    """Distillation with and without `runtime.shard`, on one process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", __file__]
    command += ["--sharded", str(bench.made.root), "--device", str(bench.device), *(["--small"] * bench.options.small)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    if answer.returncode:
        raise RuntimeError("\n".join(answer.stderr.strip().splitlines()[-LINES:]))
    bench.heading("dtype", "losses", "losses, sharded", "error", "tolerance", "")
    for dtype in sharded_dtypes(bench.device):
        plain = gpu_checks.distillation("adamw", Where(bench.device, dtype, bench.made))
        found = {"losses": gpu_checks.losses_of(sharded_folder(bench.made, dtype))}
        error, tolerance = gpu_checks.errors(found, plain)["losses"], SHARDED[dtype]
        kind, losses = str(dtype).removeprefix("torch."), [one["losses"].tolist() for one in (plain, found)]
        shown = (" ".join(f"{loss:.4f}" for loss in one) for one in losses)
        bench.row(kind, *shown, f"{error:.1e}", f"{tolerance:.0e}", "" if error <= tolerance else "**wrong**",
                  dtype=kind, plain=losses[0], sharded=losses[1], error=error, tolerance=tolerance)  # fmt: skip
        if not error <= tolerance:
            bench.fail(f"shards in {kind}: losses differ by {error:.3g}, above {tolerance:g}")


def sharded_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """The dtypes to compare in: bfloat16 on a GPU alone."""
    return (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,)


def sharded_folder(made: Made, dtype: torch.dtype) -> Path:
    """The folder of a sharded distillation."""
    return made.root / f"sharded-{dtype}"


def distil_sharded(made: Made, device: torch.device) -> None:
    """In the process that torchrun starts: distil with sharded weights."""
    distributed.join()
    if not distributed.shards_weights(True):
        raise RuntimeError("weights are not sharded under torchrun")
    for dtype in sharded_dtypes(device):
        out = sharded_folder(made, dtype)
        out.mkdir()
        runtime = Where(device, dtype, made).runtime.model_copy(update={"shard": True})
        gpu_checks.run_distillation(made, "adamw", out, runtime)


def generation(bench: Bench) -> None:
    """New tokens per second, greedy and sampled, by batch size."""
    small = bench.options.small
    prompt, new = (8, 4) if small else (64, 128)
    config = TINY if small else SMOLLM2
    dtype = torch.bfloat16 if bench.cuda else torch.float32
    model = gpu_step.build(config, config["num_hidden_layers"], dtype, bench.device).eval().requires_grad_(False)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=new, pad_token_id=0)
    say(f"\n{new} tokens after prompts of {prompt}, {str(dtype).removeprefix('torch.')}. Tokens per second.")
    bench.heading("batch", "greedy", "sampled")
    for size in BATCHES:
        ids = torch.randint(3, config["vocab_size"], (size, prompt), generator=torch.Generator().manual_seed(0))
        prompts = [Prompt(number, row, "") for number, row in enumerate(ids.tolist())]
        speeds = []
        for temperature in (0.0, 1.0):
            options = GenerationOptions(new, temperature=temperature, top_p=0.9 if temperature else 1.0)
            generate(model, prompts, options, set(), None)
            begin = gpu_step.now(bench.device)
            generate(model, prompts, options, set(), None)
            speeds.append(size * new / (gpu_step.now(bench.device) - begin))
        bench.row(size, *(f"{speed:.0f}" for speed in speeds), batch=size, greedy=speeds[0], sampled=speeds[1])


PARTS = {
    "checks": Part(check, 120),
    "step": Part(step, 120),
    "shards": Part(shards, 60),
    "generation": Part(generation, 60),
}

if __name__ == "__main__":
    main()
