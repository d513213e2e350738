"""Pruning a checkpoint of gigabytes: CPU seconds and peak memory, compared with a plain copy of the kept bytes.

    python benchmarks/prune.py [--gigabytes 2.2] [--json FILE] [--mergekit /path/to/mergekit-yaml]

Makes a Llama checkpoint of random bits (bfloat16, hidden 2048, as many layers as the size needs), then prunes it with
the `prunus` command, with random scores: by depth (a quarter of the layers is dropped) and by width (three quarters
of the channels and neurons are kept). The lower bound for both is a copy of as many bytes as the student has, through
a buffer of 1 MiB. If its command is given, mergekit's passthrough slicing of the same layers is measured too. Each
runs in a separate process, each tool in turn; the best of the rounds counts, since interference can only add time.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from prunus.models.checkpoint import TensorPlan, write_tensors
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
COPY = (
    "import sys\n"
    "source, target = open(sys.argv[1], 'rb', buffering=0), open(sys.argv[2], 'wb', buffering=0)\n"
    "count, buffer = int(sys.argv[3]), memoryview(bytearray(1 << 20))\n"
    "while count:\n"
    "    count -= target.write(buffer[: source.readinto(buffer[: min(count, 1 << 20)])])\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.2, help="at least four layers: 0.6")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mergekit", help="the mergekit-yaml command of a separate environment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments.gigabytes, arguments.rounds, arguments.mergekit)
    limits = {row["cut"]: row for row in rows if row["tool"] == "copy"}
    print(f"{'cut':7}{'tool':10}{'CPU s':>8}{'of copy':>9}{'peak MB':>9}{'GB out':>8}")
    for row in rows:
        ratio = row["cpu_seconds"] / limits[row["cut"]]["cpu_seconds"]
        figures = f"{row['cpu_seconds']:8.2f}{ratio:9.2f}{row['peak_mb']:9.0f}{row['gigabytes']:8.2f}"
        print(f"{row['cut']:7}{row['tool']:10}{figures}")
    if arguments.json:
        machine = {"processor": hardware(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def measure(folder: Path, gigabytes: float, rounds: int, mergekit: str | None) -> list[dict[str, object]]:
    """Make the checkpoint, cut it in every way, and return a row for each."""
    teacher = make_checkpoint(folder / "teacher", gigabytes)
    layers = json.loads((teacher / "config.json").read_text())["num_hidden_layers"]
    kept = layers - layers // 4
    cuts = {
        "depth": ["--num-hidden-layers", str(kept)],
        "width": ["--hidden-size", "1536", "--intermediate-size", "4224"],
    }
    recipe = folder / "slices.yml"
    recipe.write_text(slices(teacher, kept))
    best: dict[tuple[str, str], dict[str, object]] = {}
    for _ in range(rounds):
        for cut, options in cuts.items():
            out = folder / "out"
            command = [sys.executable, "-m", "prunus", "prune", str(teacher), "--importance", "random", *options]
            row = timed(cut, "prunus", [*command, "--out", str(out)], out)
            size = round(float(str(row["gigabytes"])) * 1e9)
            copy = [sys.executable, "-c", COPY, str(teacher / "model.safetensors"), str(out), str(size)]
            rows = [row, timed(cut, "copy", copy, out)]
            if mergekit and cut == "depth":
                rows.append(timed(cut, "mergekit", [mergekit, str(recipe), str(out), "--lazy-unpickle"], out))
            for row in rows:
                key = (cut, str(row["tool"]))
                best[key] = min(best.get(key, row), row, key=lambda r: float(str(r["cpu_seconds"])))
    return list(best.values())


def timed(cut: str, tool: str, command: list[str], out: Path) -> dict[str, object]:
    """Run a command that writes `out`; CPU seconds and peak resident memory of its process.

    The peak is at least that of the process that starts it, some 115 MB.
    """
    os.sync()  # or what was written before is paid for here
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{tool} failed: {' '.join(command)}")
    size = out.stat().st_size if out.is_file() else sum(file.stat().st_size for file in out.glob("*.safetensors"))
    out.unlink() if out.is_file() else shutil.rmtree(out)
    return {
        "cut": cut,
        "tool": tool,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "system_seconds": usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "gigabytes": size / 1e9,
    }


def make_checkpoint(folder: Path, gigabytes: float) -> Path:
    """A checkpoint of about that size, of small finite bfloat16 values."""
    folder.mkdir()
    shapes = [shape_of(layers) for layers in (1, 2)]
    layer = shapes[1].parameters - shapes[0].parameters
    layers = max(4, round((gigabytes * 1e9 / 2 - shapes[0].parameters) / layer) + 1)
    block = np.random.default_rng(0).integers(0x3C00, 0x3F00, 8 << 20).astype(np.uint16).tobytes()

    def pieces(size: int):
        for start in range(0, size, len(block)):
            yield block[: min(len(block), size - start)]

    plans = []
    for name, dims in shape_of(layers).tensors():
        size = 2 * int(np.prod(dims))
        plans.append(TensorPlan(name, "BF16", dims, lambda size=size: pieces(size)))
    write_tensors(folder, plans)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    return folder


def shape_of(layers: int) -> Shape:
    return Shape.from_config({**CONFIG, "num_hidden_layers": layers}, LLAMA, "benchmark")


def slices(teacher: Path, kept: int) -> str:
    return json.dumps(
        {
            "merge_method": "passthrough",
            "dtype": "bfloat16",
            "slices": [{"sources": [{"model": str(teacher), "layer_range": [0, kept]}]}],
        }
    )


if __name__ == "__main__":
    main()
