"""One step of distillation beside its floor and its peers: CPU seconds and peak memory, as ratios.

    python benchmarks/distill.py [--vocab 32000 128256] [--losses] [--json FILE]

Teacher and student are Llamas of random weights with heads of their own. The floor is what nobody can avoid: the
teacher's forward pass, the student's forward and backward pass, and four products with the LM heads (both logits, and
the gradients by hidden states and by the head), with no loss at all. Steps are taken in turn, a round at a time; a
ratio is that of the medians. Memory is the peak of a process of its own over what it holds when models and gradients
are there. Each way is first held against the plain loop's gradient. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import distributions, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.distill.config import DistillConfig
from prunus.distill.objective import make_objective
from prunus.pipeline.machine import hardware, versions
from prunus.runtime import Runtime
from prunus.training.loop import train

TEACHER = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}
STUDENT = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6}
BATCH, LENGTH, CHUNK = 8, 256, 256
LOSSES = {
    "reverse KL": {"loss": "reverse_kl"},
    "Jensen-Shannon": {"loss": "jensen_shannon"},
    "total variation": {"loss": "total_variation"},
    "top 64": {"top_k": 64},
    "KL at temperature 2": {"temperature": 2.0},
    "KL and cross-entropy": {"cross_entropy_weight": 1.0},
}
WANTED = {"time": {32000: 1.2, 128256: 1.15}, "memory by full logits'": {128256: 0.2}}
PEER = {"time": 0.5, "memory": 0.2}
EXACT = 1e-5  # how far gradients may be off the plain loop's

Step = Callable[[], float]
"""Forward and backward; returns the loss and leaves gradients."""


class Setting:
    """Two models and a batch."""

    def __init__(self, vocab: int) -> None:
        torch.manual_seed(0)
        common = {"vocab_size": vocab, "max_position_embeddings": 512, "tie_word_embeddings": False}
        self.teacher = LlamaForCausalLM(LlamaConfig(**TEACHER, **common)).eval().requires_grad_(False)
        self.student = LlamaForCausalLM(LlamaConfig(**STUDENT, **common)).train()
        self.ids = torch.randint(0, vocab, (BATCH, LENGTH))

    def hidden(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The last hidden states of student and teacher."""
        with torch.no_grad():
            theirs = self.teacher.base_model(input_ids=self.ids, use_cache=False).last_hidden_state
        return self.student.base_model(input_ids=self.ids, use_cache=False).last_hidden_state, theirs

    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All logits of student and teacher."""
        with torch.no_grad():
            theirs = self.teacher(input_ids=self.ids, use_cache=False).logits
        return self.student(input_ids=self.ids, use_cache=False).logits, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[32000, 128256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--losses", action="store_true", help="the other losses too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(peak_memory(options.memory_of, options.vocab[0]))
        return
    results = {vocab: compare(vocab, options.rounds, options.losses) for vocab in options.vocab}
    if options.json:
        facts = {"hardware": hardware(), "versions": versions() | peers(), "threads": 1, "batch": [BATCH, LENGTH]}
        facts |= {"rounds": options.rounds}
        facts |= {"teacher": TEACHER, "student": STUDENT, "seed": 0, "results": results}
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


def peers() -> dict[str, str]:
    """The versions of the peers that are installed."""
    names = ("trl", "liger-kernel", "nvidia-modelopt")
    return {name: version(name) for name in names if any(distributions(name=name))}


def compare(vocab: int, rounds: int, losses: bool) -> dict[str, Any]:
    """All ways at one vocabulary, printed as they come."""
    print(f"\n{hardware()}, 1 thread, {BATCH} x {LENGTH} tokens, vocabulary {vocab:,}")
    setting = Setting(vocab)
    steps = {name: made for name, way in ways(losses).items() if (made := build(way, setting)) is not None}
    errors = {name: error_of(step, setting, steps["full logits"]) for name, step in steps.items() if name != "floor"}
    wrong = {name: error for name, error in errors.items() if name not in LOSSES and error > EXACT}
    if wrong:
        raise SystemExit(f"not the plain loop's gradient: {wrong}")
    seconds = timed(steps, setting, rounds)
    memory = {name: measured_memory(name, vocab) for name in steps if name not in LOSSES}
    found: dict[str, Any] = {}
    for name, value in seconds.items():
        row = {"seconds": value, "by_floor": value / seconds["floor"], "error": errors.get(name)}
        found[name] = {**row, "megabytes": memory.get(name)}
        size = f"{memory[name]:8.0f} MB" if name in memory else " " * 11
        error = f"   gradient off by {errors[name]:.1e}" if name in errors and name not in LOSSES else ""
        print(f"{name:24}{value:8.3f} s{row['by_floor']:8.3f} x the floor{size}{error}")
    found["Trainer, by a bare step"] = trainer_overhead(setting, steps["prunus"])
    print(f"{'through the Trainer':24}{found['Trainer, by a bare step']:19.3f} x a bare step with its optimizer")
    judge(found, vocab)
    return found


def judge(found: dict[str, Any], vocab: int) -> None:
    """Say which of the wanted ratios are met."""
    ours, peer = found["prunus"], found.get("TRL")
    ratios = {
        "time": ours["by_floor"],
        "memory by full logits'": ours["megabytes"] / found["full logits"]["megabytes"],
    }
    checks = [(name, ratio, WANTED[name][vocab]) for name, ratio in ratios.items() if vocab in WANTED[name]]
    if peer is not None:
        checks.append(("time by TRL's", ours["seconds"] / peer["seconds"], PEER["time"]))
        checks.append(("memory by TRL's", ours["megabytes"] / peer["megabytes"], PEER["memory"]))
    for name, ratio, wanted in checks:
        print(f"  {name:24}{ratio:8.3f}, at most {wanted} wanted: {'met' if ratio <= wanted else 'missed'}")


def timed(steps: dict[str, Step], setting: Setting, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taken in turn; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            setting.student.zero_grad(set_to_none=True)
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    return {name: median(times[1:]) for name, times in seconds.items()}


def error_of(step: Step, setting: Setting, plain: Step) -> float:
    """Relative error of the gradient by the LM head to that of the plain loop."""
    gradients = []
    for one in (step, plain):
        setting.student.zero_grad(set_to_none=True)
        one()
        gradients.append(setting.student.lm_head.weight.grad.clone())
    return float((gradients[0] - gradients[1]).norm() / gradients[1].norm())


def measured_memory(name: str, vocab: int) -> float:
    command = [sys.executable, __file__, "--memory-of", name, "--vocab", str(vocab)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def peak_memory(name: str, vocab: int) -> float:
    """Megabytes that a step needs over models and gradients."""
    setting = Setting(vocab)
    step = build(ways(False)[name], setting)
    assert step is not None
    for parameter in setting.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    step()
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    """A line of the kernel's record of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def trainer_overhead(setting: Setting, step: Step) -> float:
    """A step in transformers' Trainer by a bare one, both with AdamW: the ratio of medians of CPU seconds."""
    count = 6
    optimizer = torch.optim.AdamW(setting.student.parameters(), lr=1e-6, fused=True)  # as the Trainer's is
    bare = []
    for _ in range(count):
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        step()
        torch.nn.utils.clip_grad_norm_(setting.student.parameters(), 1.0)
        optimizer.step()
        bare.append(time.process_time() - start)
    clock = _Clock()
    config = distill_config(
        tokens=count * BATCH * LENGTH, sequence_length=LENGTH, batch_size=BATCH, warmup_steps=1, optimizer="adamw",
        learning_rate=1e-6, min_learning_rate=0,
    )  # fmt: skip
    objective = make_objective(config, setting.student, setting.teacher, None)
    ids = np.tile(setting.ids.numpy().astype(np.uint32).reshape(-1), 2)
    ends = np.array([len(ids)])
    tokens = Tokens(ids, ends, ends * 4, np.zeros_like(ends))
    with tempfile.TemporaryDirectory() as out:
        runtime, quiet = Runtime(device="cpu", device_batch_size=BATCH), Console(quiet=True)
        train(objective, tokens, config, Path(out), runtime, quiet, "benchmark", watchers=[clock])
    return median(np.diff(clock.seconds)) / median(bare[1:])


class _Clock(TrainerCallback):
    """CPU seconds at the end of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time())


def ways(losses: bool) -> dict[str, Callable[[Setting], Step]]:
    """Every way of taking a step, by name."""
    others = {name: prunus_with(**options) for name, options in LOSSES.items()} if losses else {}
    return {
        "floor": floor, "prunus": prunus_with(), **others, "full logits": full_logits,
        "TRL": trl, "ModelOpt": modelopt, "Liger": liger,
    }  # fmt: skip


def build(way: Callable[[Setting], Step], setting: Setting) -> Step | None:
    """The step of a way, or None where what it needs is not installed."""
    try:
        return way(setting)
    except ImportError as error:
        print(f"left out: {error}")
        return None


def floor(setting: Setting) -> Step:
    student, teacher = setting.student.lm_head.weight, setting.teacher.lm_head.weight
    ours, theirs = torch.empty(CHUNK, len(student)), torch.empty(CHUNK, len(student))

    def step() -> float:
        hidden, known = (state.flatten(0, 1) for state in setting.hidden())
        gradient, by_head = torch.empty_like(hidden), torch.zeros_like(student)
        with torch.no_grad():
            for i in range(0, len(hidden), CHUNK):
                torch.mm(hidden[i : i + CHUNK], student.T, out=ours)
                torch.mm(known[i : i + CHUNK], teacher.T, out=theirs)
                torch.mm(ours, student, out=gradient[i : i + CHUNK])
                by_head.addmm_(ours.T, hidden[i : i + CHUNK])
        hidden.backward(gradient)
        student.grad = by_head
        return 0.0

    return step


def distill_config(**options: Any) -> DistillConfig:
    return DistillConfig.model_validate({"tokens": 0, "states": "none", **options})


def prunus_with(**options: Any) -> Callable[[Setting], Step]:
    def way(setting: Setting) -> Step:
        objective = make_objective(distill_config(**options), setting.student, setting.teacher, None)
        return stepping(lambda: objective(setting.ids))

    return way


def stepping(loss_of: Callable[[], torch.Tensor]) -> Step:
    """The step of a loss that autograd goes back from."""

    def step() -> float:
        loss = loss_of()
        loss.backward()
        return loss.item()

    return step


def full_logits(setting: Setting) -> Step:
    def loss() -> torch.Tensor:
        ours, theirs = (F.log_softmax(logits.flatten(0, 1), dim=-1) for logits in setting.logits())
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

    return stepping(loss)


def trl(setting: Setting) -> Step:
    """The loss of TRL's GKDTrainer around the same models, as its compute_loss calls it off-policy."""
    try:
        from trl.experimental.gkd import GKDTrainer
    except ImportError:
        from trl import GKDTrainer

    def loss() -> torch.Tensor:
        ours, theirs = (logits.flatten(0, 1) for logits in setting.logits())  # it divides by the first dimension
        return GKDTrainer.generalized_jsd_loss(ours, theirs, beta=0.0, temperature=1.0)

    return stepping(loss)


def modelopt(setting: Setting) -> Step:
    """NVIDIA's `mtd.convert` with its loss of logits."""
    import modelopt.torch.distill as mtd

    class Logits(mtd.LogitsDistillationLoss):
        def forward(self, ours: Any, theirs: Any) -> torch.Tensor:
            return super().forward(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1))

    student = deepcopy(setting.student)  # converting changes the model that it is given
    student.zero_grad(set_to_none=True)
    options = {"teacher_model": setting.teacher, "criterion": Logits(temperature=1.0, reduction="batchmean")}
    both = mtd.convert(student, mode=[("kd_loss", options)])

    def step() -> float:
        both.zero_grad(set_to_none=True)
        both(input_ids=setting.ids, use_cache=False)
        loss = both.compute_kd_loss()
        loss.backward()
        setting.student.lm_head.weight.grad = both.lm_head.weight.grad
        return loss.item()

    return step


def liger(setting: Setting) -> Step:
    """Liger's chunked linear layer and JSD as one, at its end that is forward KL."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    fused = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False)
    labels = setting.ids.flatten()

    def loss() -> torch.Tensor:
        hidden, known = (state.flatten(0, 1) for state in setting.hidden())
        heads = setting.student.lm_head.weight, setting.teacher.lm_head.weight
        return fused(hidden, heads[0], known, heads[1], labels)

    return stepping(loss)


if __name__ == "__main__":
    main()
