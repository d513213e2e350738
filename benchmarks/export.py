"""Writing GGUF compared with a plain copy of the same bytes: CPU and wall seconds, peak memory.

    python benchmarks/export.py [--gigabytes 2.2] [--json FILE]

The checkpoint is bfloat16, of small finite values, made by benchmarks/prune.py. The copy reads and writes it in
pieces of 1 MiB and syncs, as does the writer. Each runs in a separate process. The best of the rounds counts,
alternating.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prune import make_checkpoint
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prunus.pipeline.machine import hardware

FORMATS = ("gguf-bf16", "gguf-f16", "gguf-q8_0", "gguf-f32")
COPY = (
    "import os, sys\n"
    "with open(sys.argv[1], 'rb', buffering=0) as a, open(sys.argv[2], 'wb', buffering=0) as b:\n"
    "    while piece := a.read(1 << 20): b.write(piece)\n"
    "    os.fsync(b.fileno())"
)
WRITE = (
    "import sys; from pathlib import Path\n"
    "from prunus.gguf.writer import write_gguf; from prunus.gguf.vocabulary import read_vocabulary\n"
    "from prunus.models.folder import ModelFolder\n"
    "folder = ModelFolder(Path(sys.argv[1]))\n"
    "write_gguf(folder, read_vocabulary(folder.path, folder.shape.vocab_size), sys.argv[3], Path(sys.argv[2]))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = measure(Path(place), arguments.gigabytes, arguments.rounds)
    copy = rows["copy"]
    print(f"{'what':12}{'GB':>7}{'CPU s':>8}{'/ copy':>8}{'wall s':>8}{'/ copy':>8}{'peak MB':>9}")
    for name, row in rows.items():
        row |= {f"{key}_by_copy": row[key] / copy[key] for key in ("cpu_seconds", "wall_seconds")}
        print(
            f"{name:12}{row['gigabytes']:7.2f}{row['cpu_seconds']:8.2f}{row['cpu_seconds_by_copy']:8.2f}"
            f"{row['wall_seconds']:8.2f}{row['wall_seconds_by_copy']:8.2f}{row['peak_mb']:9.0f}"
        )
    if arguments.json:
        machine = {"processor": hardware(), "python": platform.python_version()}
        settings = {"threads": os.environ.get("OMP_NUM_THREADS", "all"), "gigabytes": arguments.gigabytes}
        text = json.dumps({"machine": machine, **settings, "rounds": arguments.rounds, "rows": rows}, indent=2)
        arguments.json.write_text(text + "\n")


def measure(folder: Path, gigabytes: float, rounds: int) -> dict[str, dict[str, float]]:
    """Make the checkpoint, write it in every way, and return the best of each."""
    model = make_checkpoint(folder / "model", gigabytes)
    save_tokenizer(model)
    out = folder / "out"
    commands = {"copy": [COPY, str(model / "model.safetensors"), str(out)]}
    commands |= {name: [WRITE, str(model), str(out), name] for name in FORMATS}
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            row = timed(command, out)
            if name not in best or row["wall_seconds"] < best[name]["wall_seconds"]:
                best[name] = row
    return best


def save_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def timed(command: list[str], out: Path) -> dict[str, float]:
    """Run a program that writes `out`; the seconds and the peak resident memory of its process."""
    os.sync()  # or what was written before is paid for here
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", *command])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed: {command[1:]}")
    size = out.stat().st_size
    out.unlink()
    return {
        "gigabytes": size / 1e9,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": wall,
        "peak_mb": usage.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
