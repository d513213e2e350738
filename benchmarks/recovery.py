"""How many tokens students need to recover, by pruning method: the same teacher, shape, data and distillation.

    python benchmarks/recovery.py TEACHER --corpus FILE... --held-out FILE... --prune '{"hidden_size": 48, ...}'

For each kind of student, and each share of the tokens (`--shares`, whose schedules end there), the first seed is
trained at every learning rate of the grid. The best rate on one half of the held-out text is used for the other
seeds, and the other half gives the figures: KL to the teacher and NLL, in nats per token, during training. The last
column is the number of tokens that a kind needs, on its curve, to reach the final KL of `minitron` on all tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus.config import parse
from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.data.windows import first_windows
from prunus.inference.heldout import FIGURES, Predictor, batches, measure, padded
from prunus.models.folder import ModelFolder
from prunus.models.lineage import read_lineage
from prunus.models.load import load_model
from prunus.pipeline.machine import hardware, versions
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as prune
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as score
from prunus.training.loop import train
from prunus.training.record import Watcher

PAPER = {"optimizer": "adamw", "states": "none"}
CHANNELS = {"method": "minitron"}
BETTER = {"neurons": {"criterion": "activation_norm", "batch": "l2", "sequence": "l2"}}
ROTATED = {"method": "rotate", "importance": BETTER, "gradient_weight": 0.0}
BY_GRADIENTS = {**ROTATED, "gradient_weight": 1.0}
HEALED = {"heal": {"norms": True, "refit": "all"}}
BY_LOGITS = {"drop_layers": "single", "importance": {"layers": "logit_nmse"}}
BY_REFIT = {**CHANNELS, "importance": {"layers": "refit"}, "heal": {}}  # which says on how much text
MUON = {"optimizer": "muon", "states": "none"}
STATES = {"optimizer": "muon", "states": {"normalize": False}}  # as when the tables of docs/recovery.md were measured
FEW_STEPS = {
    "optimizer": "muon", "muon_momentum": 0.9, "weight_decay": 0.0, "states": {"weight": 3.0, "normalize": True},
}  # fmt: skip
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random init": ({"init": "random"}, PAPER),
    "random cut": ({"importance": "random"}, PAPER),
    "minitron": (CHANNELS, PAPER),
    "minitron, better neurons": ({**CHANNELS, "importance": BETTER}, PAPER),
    "minitron, muon": (CHANNELS, MUON),
    "minitron, muon, states": (CHANNELS, STATES),
    "rotated": (ROTATED, PAPER),
    "rotated, refitted": ({**ROTATED, **HEALED}, PAPER),
    "rotated, muon": (ROTATED, MUON),
    "rotated, muon, states": (ROTATED, STATES),
    "rotated, refitted, muon, states": ({**ROTATED, **HEALED}, STATES),
    "rotated by gradients": (BY_GRADIENTS, PAPER),
    "rotated by gradients, muon, states": (BY_GRADIENTS, STATES),
    "rotated by gradients, refitted, muon, states": ({**BY_GRADIENTS, **HEALED}, STATES),
    "rotated by gradients, few steps": (BY_GRADIENTS, FEW_STEPS),
    "rotated by gradients, refitted, few steps": ({**BY_GRADIENTS, **HEALED}, FEW_STEPS),
    "minitron, few steps": (CHANNELS, FEW_STEPS),
    "rotated, few steps": (ROTATED, FEW_STEPS),
    "block by refit, few steps": (BY_REFIT, FEW_STEPS),
    "layers by logits": (BY_LOGITS, PAPER),
    "layers by logits, folded": ({**BY_LOGITS, "heal": {"depth": "linear"}}, PAPER),
    "layers by logits, muon, states": (BY_LOGITS, STATES),
    "layers by logits, folded, muon, states": ({**BY_LOGITS, "heal": {"depth": "linear"}}, STATES),
}
"""What is asked of the cut and of distillation, beside the shape and the tokens that all share."""
POINTS = 8  # of a curve


class Bench:
    """The teacher, its scores and the text, made ready once.

    Args:
        options: The command line's.
        folder: For what is made on the way.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.console = Console(quiet=True)
        self.runtime = Runtime(device_batch_size=options.batch_size, device=options.device)
        self.corpus = self._tokens("corpus", options.corpus)
        held_out = self._tokens("held_out", options.held_out)
        windows = first_windows(Tokens.open(held_out), options.sequence_length, 2 * options.eval_tokens)
        self.windows = {"tune": windows[::2], "test": windows[1::2]}
        self.teacher = load_model(options.teacher, torch.device(options.device), torch.float32).requires_grad_(False)
        self.shape = ModelFolder(options.teacher).shape

    def _tokens(self, name: str, files: list[str]) -> Path:
        out = self.folder / name
        out.mkdir()
        sources = tuple(Source(path=file) for file in files)
        config = TokensConfig(append_eos=self.options.append_eos)
        tokenise(config, DataInputs(sources, self.options.teacher), out, self.runtime, self.console)
        return out

    def scored(self, collect: tuple[str, ...], blocks: tuple[int, ...]) -> Path:
        """Score the teacher once, with all that any kind reads."""
        out = self.folder / "scores"
        out.mkdir()
        config = ScoreConfig.model_validate(
            {
                "samples": self.options.calibration_samples,
                "sequence_length": self.options.sequence_length,
                "collect": collect,
                "blocks": blocks,
                "seed": 0,
            }
        )
        score(config, ScoreInputs(self.options.teacher, self.corpus), out, self.runtime, self.console)
        return out

    def cut(self, kind: str, scores: Path, seed: int) -> Path:
        """Make a student; where chance decides nothing, every seed has the same."""
        out = self.folder / f"{kind}-{seed}"
        if not out.exists():
            out.mkdir()
            config = self.prune_config(kind, seed)
            prune(config, PruneInputs(self.options.teacher, scores, self.corpus), out, self.runtime, self.console)
        return out

    def prune_config(self, kind: str, seed: int) -> PruneConfig:
        """The options of a kind's cut."""
        asked = {**KINDS[kind][0], **self.options.prune, "seed": seed}
        text = {"samples": self.options.calibration_samples, "sequence_length": self.options.sequence_length}
        asked["heal"] = {"refit": "none", **text, **asked.get("heal", {})}
        return parse(PruneConfig, asked, kind)

    def measured(self, model: PreTrainedModel, part: str) -> tuple[float, float]:
        """KL to the teacher and NLL on a part of the held-out text."""
        sums = np.zeros(FIGURES)
        windows = self.windows[part]
        predictors = Predictor.of(model), Predictor.of(self.teacher)
        for numbers in batches(windows, 32):
            ids, predicted = padded([windows[i] for i in numbers])
            rows = measure(*predictors, ids.to(model.device), predicted.to(model.device))
            sums += rows.sum(dim=0).cpu().numpy()
        tokens = sum(window.predicted for window in windows)
        return sums[2] / tokens, sums[0] / tokens

    def trained(self, kind: str, student: Path, rate: float, tokens: int, seed: int) -> dict[str, Any]:
        """Distil, measuring along the way: lists of `tokens`, `kl` and `nll`, and `tuning_kl` on the other half."""
        options = self.options
        steps = tokens // (options.batch_size * options.sequence_length)
        config = parse(
            DistillConfig,
            {
                "tokens": tokens,
                "sequence_length": options.sequence_length,
                "batch_size": options.batch_size,
                "learning_rate": rate,
                "min_learning_rate": rate * 0.05,
                "warmup_steps": max(1, round(steps * options.warmup)),
                "seed": seed,
                **KINDS[kind][1],
            },
            kind,
        )
        torch.manual_seed(seed)
        model = load_model(student, torch.device(options.device), torch.float32)
        lineage = read_lineage(student, self.shape.hidden_size) if config.reads_lineage else None
        watcher = _Watcher(self, model, steps)
        with TemporaryDirectory() as out:
            train(
                make_objective(config, model, self.teacher, lineage),
                Tokens.open(self.corpus),
                config,
                Path(out),
                self.runtime,
                self.console,
                kind,
                watchers=[watcher],
            )
        facts = {"kind": kind, "learning_rate": rate, "seed": seed, "share": tokens / options.tokens}
        return {**facts, "tuning_kl": self.measured(model, "tune")[0], **watcher.curve}


class _Watcher(Watcher):
    """Measures a model at the start, at points spread evenly in the logarithm of the steps, and at the end."""

    def __init__(self, bench: Bench, model: PreTrainedModel, steps: int) -> None:
        super().__init__()
        self.bench, self.model = bench, model
        first = max(1, steps // 32)
        self.points = {round(first * (steps / first) ** (i / (POINTS - 1))) for i in range(POINTS)} | {steps}
        self.curve: dict[str, list[float]] = {"tokens": [], "kl": [], "nll": []}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._measure(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.points:
            self._measure(state.global_step)

    def _measure(self, step: int) -> None:
        options = self.bench.options
        self.model.eval()
        kl, nll = self.bench.measured(self.model, "test")
        self.model.train()
        for name, value in (("tokens", step * options.batch_size * options.sequence_length), ("kl", kl), ("nll", nll)):
            self.curve[name].append(value)


def tokens_to(curve: dict[str, Any], kl: float) -> float:
    """The tokens at which a curve first falls to `kl`, by the logarithms of the points about it; inf if never."""
    points = list(zip(curve["tokens"], curve["kl"], strict=True))
    for (t0, k0), (t1, k1) in pairwise(points):
        if k1 <= kl < k0:
            share = (math.log(k0) - math.log(kl)) / (math.log(k0) - math.log(k1))
            return t0 + (t1 - t0) * share if not t0 else t0 * (t1 / t0) ** share
    return 0.0 if points[0][1] <= kl else math.inf


def runs(
    bench: Bench, scores: Path, found: list[dict[str, Any]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Every run, as it is done: each rate with the first seed, then the other seeds at the rate that was best.

    What `found` holds already is not done again; it is to grow by what is given.
    """

    def done(*asked: Any) -> bool:
        return any((run["kind"], run["learning_rate"], run["seed"], run["share"]) == asked for run in found)

    for kind, share in product(options.kinds, options.shares):
        tokens = int(options.tokens * share)
        for rate in options.rates:
            if not done(kind, rate, 0, share):
                yield bench.trained(kind, bench.cut(kind, scores, 0), rate, tokens, 0)
        best = best_rate(found, kind, share, options.rates)
        for seed in range(options.seeds):
            if not done(kind, best, seed, share):
                yield bench.trained(kind, bench.cut(kind, scores, seed), best, tokens, seed)


def best_rate(found: list[dict[str, Any]], kind: str, share: float, rates: list[float]) -> float:
    """The rate of the grid at which the first seed's student ended nearest on the half that is tuned on."""
    first = [run for run in found if (run["kind"], run["seed"], run["share"]) == (kind, 0, share)]
    tried = [run for run in first if run["learning_rate"] in rates]
    return float(min(tried, key=lambda run: run["tuning_kl"])["learning_rate"])


def chosen(found: list[dict[str, Any]], kind: str, share: float, rates: list[float]) -> list[dict[str, Any]]:
    """The runs of a kind on a share of the tokens at its best rate, one for each seed."""
    best = best_rate(found, kind, share, rates)
    return [run for run in found if (run["kind"], run["share"], run["learning_rate"]) == (kind, share, best)]


def rows(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """The kinds that were trained, each with the share of the tokens."""
    return list(dict.fromkeys((run["kind"], run["share"]) for run in found))


def named(options: argparse.Namespace) -> dict[str, Any]:
    """The options as they are kept: files by name, since where they lie is nobody's matter."""
    asked = {key: value for key, value in vars(options).items() if key != "json"}
    asked |= {key: [Path(value).name for value in asked[key]] for key in ("corpus", "held_out")}
    return {**asked, "teacher": options.teacher.name}


def earlier(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that an earlier call kept, if it was asked for the same but for kinds, rates, shares and seeds."""
    if options.json is None or not options.json.is_file():
        return []
    kept = json.loads(options.json.read_text())
    for key, value in named(options).items():
        if key not in ("kinds", "rates", "shares", "seeds") and kept["options"][key] != value:
            raise SystemExit(f"{options.json}: holds runs with {key} = {kept['options'][key]!r}, not {value!r}")
    return list(kept["runs"])


def show(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table."""
    trained = rows(found)
    reference = ("minitron", 1.0) if ("minitron", 1.0) in trained else trained[0]
    goal = float(np.mean([run["kl"][-1] for run in chosen(found, *reference, options.rates)]))
    print(
        f"\n| kind | tokens | seeds | learning rate | KL: start | 25 % | 50 % | end | NLL | tokens to {goal:.3f} |"
        "\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for kind, share in trained:
        mine = chosen(found, kind, share, options.rates)
        total = options.tokens * share
        at = [np.mean([np.interp(total * s, run["tokens"], run["kl"]) for run in mine]) for s in (0, 0.25, 0.5)]
        ends = [run["kl"][-1] for run in mine]
        mean = {"tokens": mine[0]["tokens"], "kl": np.mean([run["kl"] for run in mine], axis=0).tolist()}
        reach = tokens_to(mean, goal + 1e-9)
        figures = " | ".join(f"{value:.3f}" for value in at)
        nll = np.mean([run["nll"][-1] for run in mine])
        reached = f"{reach / 1e3:.0f}k = {reach / options.tokens:.2f}" if math.isfinite(reach) else "not reached"
        print(
            f"| {kind} | {total / 1e3:.0f}k | {len(mine)} | {mine[0]['learning_rate']:g} | {figures} "
            f"| {np.mean(ends):.3f} ± {np.std(ends):.3f} | {nll:.3f} | {reached} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--held-out", nargs="+", required=True)
    parser.add_argument("--append-eos", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--prune", type=json.loads, required=True, help="the shape, as JSON of the options of `prune`")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS)[:13])
    parser.add_argument("--tokens", type=int, default=1_228_800)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warmup", type=float, default=0.05, help="share of the steps over which the rate rises")
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-3, 6e-3, 1.2e-2])
    parser.add_argument("--shares", nargs="+", type=float, default=[1.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calibration-samples", type=int, default=512)
    parser.add_argument("--eval-tokens", type=int, default=25_000, help="tokens of each half of the held-out text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, found = time.monotonic(), earlier(options)
    with TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        cuts = [bench.prune_config(kind, 0) for kind in options.kinds]
        targets = [cut.target(bench.shape, "prune") for cut in cuts]
        read = {name for cut, target in zip(cuts, targets, strict=True) for name in cut.statistics(bench.shape, target)}
        blocks = {bench.shape.num_hidden_layers - target.num_hidden_layers for target in targets} - {0}
        scores = bench.scored(tuple(sorted({"mean", *read} - {"cosines", "energies"})), tuple({1, *blocks}))
        print(
            f"{bench.shape.parameters:,} parameters, students {sorted({t.parameters for t in targets})}, {hardware()}"
        )
        for run in runs(bench, scores, found, options):
            found.append(run)
            print(
                f"{run['kind']:32}{run['learning_rate']:8.0e} seed {run['seed']} "
                f"share {run['share']:.2f}  KL {run['kl'][0]:.4f} -> {run['kl'][-1]:.4f}  "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
            if options.json:
                facts = {"hardware": hardware(), "versions": versions(), "seconds": round(time.monotonic() - start)}
                kept = {**facts, "options": named(options), "runs": found}
                options.json.write_text(json.dumps(kept, indent=1) + "\n")
    show(found, options)


if __name__ == "__main__":
    main()
