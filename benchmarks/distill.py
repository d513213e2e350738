"""One step of distillation compared with its lower bound and with other implementations: CPU seconds, peak memory.

    python benchmarks/distill.py [--vocab 32000 128256] [--losses] [--json FILE]

Teacher and student are Llamas of random weights with untied LM heads. The lower bound is the work that no
implementation can avoid: the teacher's forward pass, the student's forward and backward pass, and four products with
the LM heads (both logits, and the gradients with respect to hidden states and head), without any loss. No
implementation includes its optimizer. They alternate, and the best of all rounds counts, since disturbances only add
time. Memory is the peak of resident memory of a separate process, minus what it holds once models and gradients
exist. First, each implementation of the same loss is checked against the loss and the head's gradient of the plain
loop with full logits. A peer that is not installed is left out. Prunus compiles its loss, as it does by default from
160,000 tokens of a vocabulary of 128k on. Other losses, and transformers' Trainer around our step, are measured with
the first vocabulary only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, TrainingArguments

from prunus.console import Console
from prunus.data.tokens import Tokens
from prunus.pipeline.machine import hardware, versions
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.objective import make_objective
from prunus.training.loop import train
from prunus.training.record import Watcher

TEACHER = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}
STUDENT = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6}
BATCH, LENGTH, CHUNK = 8, 256, 256
SAME = 1e-4  # relative error that float32 explains
LOSSES = {
    "reverse KL": {"loss": "reverse_kl"},
    "Jensen-Shannon": {"loss": "jensen_shannon"},
    "total variation": {"loss": "total_variation"},
    "top 64": {"top_k": 64},
    "KL at temperature 2": {"temperature": 2.0},
    "KL and cross-entropy": {"cross_entropy_weight": 1.0},
    "cross-entropy": {"loss": "cross_entropy"},
}
WANTED = [  # of prunus by another way: at most, by vocabulary
    ("seconds", "floor", {32000: 1.2, 128256: 1.15}),
    ("seconds", "TRL", {32000: 0.5, 128256: 0.5}),
    ("megabytes", "TRL", {32000: 0.2, 128256: 0.2}),
    ("megabytes", "full logits", {128256: 0.2}),
]


class Step:
    """Forward and backward; returns the loss and leaves gradients.

    Args:
        run: Does it.
        student: Whose gradients are left: those of the setting's student, or of a copy that a peer may change.
    """

    def __init__(self, run: Callable[[], float], student: PreTrainedModel) -> None:
        self.run, self.student = run, student

    def __call__(self) -> float:
        """Take it, onto no gradients."""
        self.student.zero_grad(set_to_none=True)
        return self.run()

    def head_gradient(self) -> torch.Tensor:
        """The gradient by the LM head that the last step left."""
        return self.student.lm_head.weight.grad


class Setting:
    """Two models and a batch."""

    def __init__(self, vocab: int) -> None:
        torch.manual_seed(0)
        common = {"vocab_size": vocab, "max_position_embeddings": 512, "tie_word_embeddings": False}
        self.teacher = LlamaForCausalLM(LlamaConfig(**TEACHER, **common)).eval().requires_grad_(False)
        self.student = LlamaForCausalLM(LlamaConfig(**STUDENT, **common)).train()
        self.longer = torch.randint(0, vocab, (BATCH, LENGTH + 1))  # for trainers that drop the last position
        self.ids = self.longer[:, :LENGTH].contiguous()

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
    parser.add_argument("--losses", action="store_true", help="measure the other losses too, with the first vocabulary")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(peak_memory(options.memory_of, options.vocab[0]))
        return
    facts: dict[str, Any] = {"hardware": hardware(), "versions": versions() | peers(), "threads": 1, "seed": 0}
    facts |= {"batch": [BATCH, LENGTH], "rounds": options.rounds, "teacher": TEACHER, "student": STUDENT, "results": {}}
    for vocab in options.vocab:
        facts["results"][vocab] = compare(vocab, options.rounds, options.losses, vocab == options.vocab[0])
        if options.json:
            options.json.write_text(json.dumps(facts, indent=2) + "\n")


def peers() -> dict[str, str]:
    """Versions of the peers that are installed."""
    found = {}
    for name in ("trl", "nvidia-modelopt", "liger-kernel"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def compare(vocab: int, rounds: int, losses: bool, first: bool) -> dict[str, Any]:
    """All ways at one vocabulary, printed as they come."""
    print(f"\n{hardware()}, 1 thread, {BATCH} x {LENGTH} tokens, vocabulary {vocab:,}")
    setting, absent = Setting(vocab), {}
    steps: dict[str, Step] = {}
    for name, way in ways(losses and first).items():
        try:
            steps[name] = way(setting)
        except ImportError as error:
            absent[name] = f"not installed: {error}"
            print(f"{name:24}{absent[name]}", flush=True)
    errors = check(steps)
    seconds = timed(steps, rounds)
    memory = {name: measured_memory(name, vocab) for name in steps if name not in LOSSES}
    found: dict[str, Any] = {"not installed": absent}
    for name, value in seconds.items():
        off = dict(zip(("loss_error", "gradient_error"), errors.get(name, ()), strict=False))
        found[name] = {"seconds": value, "by_floor": value / seconds["floor"], "megabytes": memory.get(name), **off}
        size = f"{memory[name]:8.0f} MB" if name in memory else " " * 11
        error = "   off by {:.0e} in loss, {:.0e} in gradient".format(*errors[name]) if name in errors else ""
        print(f"{name:24}{value:8.3f} s{found[name]['by_floor']:8.3f} x the floor{size}{error}", flush=True)
    if first:
        found["in Trainer, by a bare step"] = trainer_overhead(setting, steps["prunus"])
        print(f"{'prunus in its Trainer':24}{found['in Trainer, by a bare step']:18.3f} x a bare step, AdamW in both")
    found["wanted"] = judge(found, vocab)
    return found


def judge(found: dict[str, Any], vocab: int) -> list[dict[str, Any]]:
    """Say which of the wanted ratios are met."""
    rows = []
    for measure, other, limits in WANTED:
        if vocab not in limits or other not in found:
            continue
        ratio, limit = found["prunus"][measure] / found[other][measure], limits[vocab]
        rows.append({"measure": measure, "by": other, "ratio": ratio, "at_most": limit, "met": ratio <= limit})
        verdict = "met" if ratio <= limit else "missed"
        print(f"  {measure} by {other + ':':14}{ratio:8.3f}, at most {limit} wanted: {verdict}", flush=True)
    return rows


def timed(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The least CPU seconds of each, taken in turn; `check` has warmed them up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
            step.student.zero_grad(set_to_none=True)
    return {name: min(times) for name, times in seconds.items()}


def check(steps: dict[str, Step]) -> dict[str, tuple[float, float]]:
    """Relative errors of loss and head gradient to the plain loop's, of every way of its loss; all run once.

    Raises:
        SystemExit: A way computes something else.
    """
    wanted = steps["full logits"]()
    gradient = steps["full logits"].head_gradient().clone()
    errors = {}
    for name, step in steps.items():
        loss = step()
        if name != "floor" and name not in LOSSES:
            off = float((step.head_gradient() - gradient).norm() / gradient.norm())
            errors[name] = (abs(loss - wanted) / abs(wanted), off)
        step.student.zero_grad(set_to_none=True)
    strange = {name: error for name, error in errors.items() if max(error) > SAME}
    if strange:
        raise SystemExit(f"not the plain loop's loss and gradient: {strange}")
    return errors


def measured_memory(name: str, vocab: int) -> float:
    command = [sys.executable, __file__, "--memory-of", name, "--vocab", str(vocab)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def peak_memory(name: str, vocab: int) -> float:
    """Megabytes that a step needs over models and gradients."""
    setting = Setting(vocab)
    step = ways(False)[name](setting)
    for parameter in step.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    step.run()  # onto the gradients that are there
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    """A line of the kernel's record of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def trainer_overhead(setting: Setting, step: Step) -> float:
    """A step in transformers' Trainer by a bare one, both with AdamW: the ratio of the best CPU seconds."""
    count = 6
    optimizer = torch.optim.AdamW(setting.student.parameters(), lr=1e-6, fused=True)  # as the Trainer has it
    bare = []
    for _ in range(count):
        start = time.process_time()
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
    tokens = Tokens(ids, ends, ends * 4)
    with tempfile.TemporaryDirectory() as out:
        runtime, quiet = Runtime(device="cpu", device_batch_size=BATCH, compile=True), Console(quiet=True)
        train(objective, tokens, config, Path(out), runtime, quiet, "benchmark", watchers=[clock])
    return float(min(np.diff(clock.seconds)) / min(bare[1:]))


class _Clock(Watcher):
    """CPU seconds at the end of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time())


def ways(losses: bool) -> dict[str, Callable[[Setting], Step]]:
    """Every way of taking a step, by name."""
    others = {name: prunus_with(**options) for name, options in LOSSES.items()} if losses else {}
    return {
        "floor": floor, "prunus": prunus_with(), "prunus, not compiled": prunus_with(compiled=False), **others,
        "full logits": full_logits, "TRL": trl, "ModelOpt": modelopt, "ModelOpt's KDTrainer": modelopt_trainer,
        "Liger": liger,
    }  # fmt: skip


def floor(setting: Setting) -> Step:
    student, teacher = setting.student.lm_head.weight, setting.teacher.lm_head.weight
    ours, theirs = torch.empty(CHUNK, len(student)), torch.empty(CHUNK, len(student))

    def run() -> float:
        hidden, known = (state.flatten(0, 1) for state in setting.hidden())
        gradient, by_head = torch.empty_like(hidden), torch.zeros_like(student)
        with torch.no_grad():
            for i in range(0, len(hidden), CHUNK):
                torch.mm(hidden[i : i + CHUNK], student.T, out=ours)
                torch.mm(known[i : i + CHUNK], teacher.T, out=theirs)
                torch.mm(ours, student, out=gradient[i : i + CHUNK])
                by_head.addmm_(ours.T, hidden[i : i + CHUNK])
        hidden.backward(gradient)
        student.grad = by_head if student.grad is None else student.grad.add_(by_head)
        return 0.0

    return Step(run, setting.student)


def distill_config(**options: Any) -> DistillConfig:
    return DistillConfig.model_validate({"tokens": 0, "states": "none", **options})


def prunus_with(compiled: bool = True, **options: Any) -> Callable[[Setting], Step]:
    def way(setting: Setting) -> Step:
        config = distill_config(**options)
        objective = make_objective(config, setting.student, setting.teacher if config.has_teacher else None, None)
        objective.compile_loss(BATCH * LENGTH, Runtime(device="cpu", compile=compiled), Console(quiet=True))
        return stepping(lambda: objective(setting.ids), setting.student)

    return way


def stepping(loss_of: Callable[[], torch.Tensor], student: PreTrainedModel) -> Step:
    """The step of a loss that autograd goes back from."""

    def run() -> float:
        loss = loss_of()
        loss.backward()
        return loss.item()

    return Step(run, student)


def full_logits(setting: Setting) -> Step:
    def loss() -> torch.Tensor:
        ours, theirs = (F.log_softmax(logits.flatten(0, 1), dim=-1) for logits in setting.logits())
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

    return stepping(loss, setting.student)


def trl(setting: Setting) -> Step:
    """TRL's GKDTrainer, off-policy with forward KL: its compute_loss, and backward."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    options = {"lmbda": 0.0, "beta": 0.0, "temperature": 1.0, "bf16": False, "gradient_checkpointing": False}
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))  # it asks for a tokenizer, and never uses it
    student = deepcopy(setting.student)  # a trainer changes the model that it is given
    with tempfile.TemporaryDirectory() as folder:
        trainer = GKDTrainer(
            model=student,
            teacher_model=setting.teacher,
            args=GKDConfig(output_dir=folder, use_cpu=True, report_to="none", **options),
            data_collator=lambda items: items,
            train_dataset=Dataset.from_dict({"input_ids": [[0]]}),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="a", eos_token="b"),
        )
    return stepping(lambda: trainer.compute_loss(student, inputs(setting)), student)


def inputs(setting: Setting) -> dict[str, torch.Tensor]:
    """A batch as trainers take it; its last tokens are labels alone, so that as many positions count as elsewhere."""
    ids = setting.longer
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def modelopt(setting: Setting) -> Step:
    """NVIDIA's `mtd.convert` with its loss of logits."""
    import modelopt.torch.distill as mtd

    class Logits(mtd.LogitsDistillationLoss):
        def forward(self, ours: Any, theirs: Any) -> torch.Tensor:
            return super().forward(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1))

    options = {"teacher_model": setting.teacher, "criterion": Logits(temperature=1.0, reduction="batchmean")}
    both = mtd.convert(deepcopy(setting.student), mode=[("kd_loss", options)])

    def loss() -> torch.Tensor:
        both(input_ids=setting.ids, use_cache=False)
        return both.compute_kd_loss()

    return stepping(loss, both)


def modelopt_trainer(setting: Setting) -> Step:
    """NVIDIA's KDTrainer: its compute_loss, and backward."""
    from modelopt.torch.distill.plugins.huggingface import KDTrainer

    student = deepcopy(setting.student)
    with tempfile.TemporaryDirectory() as folder:
        trainer = KDTrainer(
            model=student,
            args=TrainingArguments(output_dir=folder, use_cpu=True, report_to="none"),
            distill_args={"teacher_model": setting.teacher},
        )
    return stepping(lambda: trainer.compute_loss(student, inputs(setting)), student)


def liger(setting: Setting) -> Step:
    """Liger's chunked linear layer and JSD as one, at its end that is forward KL."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    fused = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False)
    labels = setting.ids.flatten()

    def loss() -> torch.Tensor:
        hidden, known = (state.flatten(0, 1) for state in setting.hidden())
        heads = setting.student.lm_head.weight, setting.teacher.lm_head.weight
        return fused(hidden, heads[0], known, heads[1], labels)

    return stepping(loss, setting.student)


if __name__ == "__main__":
    main()
