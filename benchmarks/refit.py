"""The cost of a refit: CPU seconds, and the work of both models' layers in forward passes; two versions in turn.

    python benchmarks/refit.py TEACHER --corpus FILE --held-out FILE [--scores FOLDER] [--before SRC] [--json FILE]

One student is cut and refitted by each version of the source (`--before` is the `src` folder of the other one), each
in a separate process, in turn. A pass is counted from the multiplications of the layers' linear modules: running half
of a layer counts as half. The plain forward pass over the same tokens, without LM head, is timed in the same process.
KL to the teacher is measured on held-out text, which no refit has read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.config import parse
from prunus.console import Console
from prunus.data.blocks import calibration_set
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.models.load import load_model
from prunus.pipeline.machine import hardware, versions
from prunus.runtime import Runtime
from prunus.steps.prune import heal_checkpoint
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.damage import divergence
from prunus.steps.prune.step import Inputs
from prunus.steps.prune.step import run as prune
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as score

HALF = {"hidden_size": 480, "intermediate_size": 832, "num_attention_heads": 6}
KL_LENGTH = 256  # tokens of each sequence for the KL
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--scores", type=Path, help="made from 12k tokens of the corpus if there are none")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--prune", type=json.loads, default=HALF)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--kl-samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        print(json.dumps(measure(options, options.one)))
        return
    versions_of = {"before": options.before, "now": Path(__file__).parents[1] / "src"}
    sources = {name: path for name, path in versions_of.items() if path}
    with TemporaryDirectory() as folder:
        prepare(options, Path(folder))
        rounds = [{name: in_process(src, Path(folder)) for name, src in sources.items()} for _ in range(options.rounds)]
    rows = {name: {key: median(one[name][key] for one in rounds) for key in rounds[0][name]} for name in sources}
    show(rows, options)
    if options.json:
        facts = {
            "hardware": hardware(),
            "versions": versions(),
            "teacher": options.teacher.name,
            "prune": options.prune,
        }
        facts |= {
            key: getattr(options, key) for key in ("samples", "sequence_length", "kl_samples", "rounds", "threads")
        }
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Tokenise the texts and score the teacher, unless its scores are given."""
    quiet = Console(quiet=True)
    for name, text in (("tokens", options.corpus), ("held-out", options.held_out)):
        (folder / name).mkdir()
        config = TokensConfig(max_tokens=1_000_000)
        tokenise(
            config, DataInputs((parse(Source, str(text), name),), options.teacher), folder / name, Runtime(), quiet
        )
    if options.scores:
        (folder / "scores").symlink_to(options.scores.resolve())
        return
    (folder / "scores").mkdir()
    config = ScoreConfig(samples=24, sequence_length=512, collect=("mean", "covariance", "gradient_covariance"))
    score(config, ScoreInputs(options.teacher, folder / "tokens"), folder / "scores", Runtime(), quiet)


def in_process(source: Path, folder: Path) -> Row:
    """What `measure` returns in a new process that imports that source."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(options: argparse.Namespace, folder: Path) -> Row:
    """Cut and refit once."""
    row: Row = {}
    inner = heal_checkpoint.heal

    def timed(teacher: Any, student: Any, bridge: Any, ids: torch.Tensor, *rest: Any) -> None:
        row["forward_seconds"] = forward_seconds(teacher.model, ids, teacher.micro_batch)
        work = {"teacher": Work(teacher.model), "student": Work(student.model)}
        begin = time.process_time()
        inner(teacher, student, bridge, ids, *rest)
        row["seconds"] = time.process_time() - begin
        row.update({f"{name}_passes": one.end() / (one.weights * ids.numel()) for name, one in work.items()})

    heal_checkpoint.heal = timed
    heal = {"norms": True, "refit": "all", "samples": options.samples, "sequence_length": options.sequence_length}
    config = PruneConfig.model_validate({**options.prune, "heal": heal, "check_samples": 0})
    with TemporaryDirectory() as out:
        inputs = Inputs(options.teacher, folder / "scores", folder / "tokens")
        prune(config, inputs, Path(out), Runtime(), Console(quiet=True))
        models = [load_model(path, torch.device("cpu"), torch.float32) for path in (options.teacher, Path(out))]
    held_out = calibration_set(Tokens.open(folder / "held-out"), options.kl_samples, KL_LENGTH, 0)
    return {**row, "kl": divergence(models[0], models[1], torch.from_numpy(held_out))}


class Work:
    """Counts the multiplications by weights of a model's layers, until `end`."""

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
        self.weights, self.done = sum(module.weight.numel() for module in linear), Counter[str]()
        self.handles = [module.register_forward_hook(self._count) for module in linear]

    def _count(self, module: nn.Module, args: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        self.done["products"] += args[0].numel() // args[0].shape[-1] * module.weight.numel()

    def end(self) -> int:
        """The multiplications since the object was made."""
        for handle in self.handles:
            handle.remove()
        return self.done["products"]


@torch.no_grad()
def forward_seconds(model: PreTrainedModel, ids: torch.Tensor, micro_batch: int) -> float:
    begin = time.process_time()
    for part in ids.split(micro_batch):
        model.base_model(input_ids=part, use_cache=False)
    return time.process_time() - begin


def show(rows: dict[str, Row], options: argparse.Namespace) -> None:
    tokens = options.samples * options.sequence_length
    print(f"{hardware()}, {options.threads} threads, {tokens} tokens, {json.dumps(options.prune)}")
    print(
        f"{'version':10}{'CPU s':>8}{'forward s':>11}{'ratio':>8}{'teacher passes':>16}{'student passes':>16}{'KL':>9}"
    )
    for name, row in rows.items():
        ratio = row["seconds"] / row["forward_seconds"]
        print(
            f"{name:10}{row['seconds']:8.1f}{row['forward_seconds']:11.1f}{ratio:8.2f}{row['teacher_passes']:16.2f}"
            f"{row['student_passes']:16.2f}{row['kl']:9.4f}"
        )


if __name__ == "__main__":
    main()
