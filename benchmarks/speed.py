"""NVIDIA's two students compared with their teacher, scaled down: the speedup of prefill and decode.

    python benchmarks/speed.py [--scale 4] [--engine llama.cpp] [--format gguf-f16] [--json FILE]

Llama-3.1-Minitron 4B was made from Llama 3.1 8B twice, by depth (16 of 32 layers) and by width (hidden 4096 -> 3072,
MLP 14336 -> 9216). NVIDIA reports 2.7 and 1.8 times the teacher's throughput, with TensorRT-LLM on an H100 (arXiv
2408.11796). Here hidden size, MLP, heads and vocabulary are divided by `--scale`; depth and head dimension are the
same. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prunus.cli.render import show_speeds
from prunus.console import Console
from prunus.models.draw import draw_model
from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware
from prunus.runtime import Runtime
from prunus.tools.bench.compare import compare
from prunus.tools.bench.config import BenchConfig

TEACHER: dict[str, Any] = {"num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336}
STUDENTS = {"depth": {"num_hidden_layers": 16}, "width": {"hidden_size": 3072, "intermediate_size": 9216}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--engine", default="llama.cpp")
    parser.add_argument("--format", default="gguf-f16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    options = {key: value for key, value in vars(arguments).items() if key not in ("scale", "json")}
    config = BenchConfig.model_validate(options)
    with tempfile.TemporaryDirectory() as place:
        folders = [make(Path(place) / name, arguments.scale, **changes) for name, changes in shapes().items()]
        rows = compare([str(folder) for folder in folders], config, Runtime(), Path(place), Console())
    for row, (name, changes) in zip(rows, shapes().items(), strict=True):
        row["parameters"] = Shape.from_config(settings(arguments.scale, **changes), LLAMA, name).parameters
    show_speeds(rows, Console())
    if arguments.json:
        facts = {"hardware": hardware(), "threads": os.environ.get("OMP_NUM_THREADS", "all"), "scale": arguments.scale}
        arguments.json.write_text(json.dumps({**facts, **config.model_dump(), "models": rows}, indent=2) + "\n")


def shapes() -> dict[str, dict[str, Any]]:
    return {"teacher": {}, **STUDENTS}


def settings(scale: int, **changes: Any) -> dict[str, Any]:
    sizes = {**TEACHER, **changes}
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": sizes["num_hidden_layers"],
        "hidden_size": sizes["hidden_size"] // scale,
        "intermediate_size": sizes["intermediate_size"] // scale,
        "num_attention_heads": max(1, 32 // scale),
        "num_key_value_heads": max(1, 8 // scale),
        "head_dim": 128,
        "vocab_size": 128256 // scale,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "dtype": "float16",
    }


def make(folder: Path, scale: int, **changes: Any) -> Path:
    folder.mkdir()
    draw_model(settings(scale, **changes), folder, seed=0)
    letters = {c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE({**letters, "th": 256}, [("t", "h")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


if __name__ == "__main__":
    main()
