"""One step of SFT and of DPO compared with TRL's trainers on the same conversations: CPU seconds and peak memory.

    python benchmarks/align.py [--vocab 32000 128256] [--json FILE]

The model is a Llama of random weights with an untied LM head. The data are 16 conversations, or 8 pairs, of random
tokens with lengths typical of chat data (prompts of 20 to 120 tokens, answers of 30 to 200). Every trainer gets the
same ones, in its layout for training: ours packed in sequences of 512, or padded; TRL's by its collator. A step is
forward and backward, without the optimizer. For DPO the reference's log-probabilities are given, since both trainers
store them; TRL without them is measured too. Trainers alternate, and the best of all rounds counts, since
disturbances only add time. First, each is checked against the loss and the head's gradient of full logits. Memory is
the peak of resident memory of a separate process, minus what it holds once model and gradients exist. A peer that is
not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from distill import BATCH, SAME, STUDENT, Step, peers, status, stepping, timed
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prunus.data.tokens import Tokens
from prunus.pipeline.machine import hardware, versions
from prunus.steps.align.answers import sequences
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.objective import Preference
from prunus.training.objectives import CrossEntropy
from prunus.training.packed import Packed

LENGTH, BETA = 512, 0.1
TASKS = {"sft": 2 * BATCH, "dpo": BATCH}
WANTED = [("seconds", 1.0), ("megabytes", 1.0)]  # of prunus by TRL, at most


class Setting:
    """A model, and conversations: prompts [P] of ids, and two answers to each of the first half."""

    def __init__(self, vocab: int) -> None:
        torch.manual_seed(0)
        common = {"vocab_size": vocab, "max_position_embeddings": LENGTH, "tie_word_embeddings": False}
        self.model = LlamaForCausalLM(LlamaConfig(**STUDENT, **common)).train()
        draw = np.random.default_rng(0)

        def some(low: int, high: int) -> list[int]:
            return draw.integers(2, vocab, draw.integers(low, high)).tolist()

        self.prompts = [some(20, 120) for _ in range(2 * BATCH)]
        self.answers = [some(30, 200) for _ in range(2 * BATCH)]
        self.rejected = [some(30, 200) for _ in range(BATCH)]

    @property
    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """Prompt and answer of every sequence of DPO, the chosen ones first."""
        return [*zip(self.prompts[:BATCH], self.answers[:BATCH], strict=True),
                *zip(self.prompts[:BATCH], self.rejected, strict=True)]  # fmt: skip

    def reference(self) -> torch.Tensor:
        """What a reference might say of them: near enough to what the model does."""
        return torch.tensor([-10.4 * len(answer) for _, answer in self.pairs])

    def stream(self) -> Tokens:
        """The conversations of SFT as a stream."""
        whole = [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]
        ends = np.cumsum([len(ids) for ids in whole])
        answers = np.stack([ends - [len(answer) for answer in self.answers], ends], axis=1)
        return Tokens(np.concatenate(whole).astype(np.uint32), ends, ends * 4, answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[32000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", nargs=2, metavar=("TASK", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(peak_memory(*options.memory_of, options.vocab[0]))
        return
    facts: dict[str, Any] = {"hardware": hardware(), "versions": versions() | peers(), "threads": 1, "seed": 0}
    facts |= {"rounds": options.rounds, "model": STUDENT, "items": TASKS, "results": {}}
    for vocab in options.vocab:
        facts["results"][vocab] = {task: compare(task, vocab, options.rounds) for task in TASKS}
        if options.json:
            options.json.write_text(json.dumps(facts, indent=2) + "\n")


def compare(task: str, vocab: int, rounds: int) -> dict[str, Any]:
    """All ways of one task, printed as they come."""
    print(f"\n{task}: {hardware()}, 1 thread, {TASKS[task]} items, vocabulary {vocab:,}")
    setting, steps, found = Setting(vocab), {}, {}
    for name, way in WAYS[task].items():
        try:
            steps[name] = way(setting)
        except ImportError as error:
            print(f"{name:24}not installed: {error}", flush=True)
    errors = check(steps)
    for name, seconds in timed(steps, rounds).items():
        memory = measured_memory(task, name, vocab)
        found[name] = {"seconds": seconds, "megabytes": memory, "loss_error": errors[name][0],
                       "gradient_error": errors[name][1]}  # fmt: skip
        off = "off by {:.0e} in loss, {:.0e} in gradient".format(*errors[name])
        print(f"{name:24}{seconds:8.3f} s{memory:8.0f} MB   {off}", flush=True)
    if "TRL" in found:
        found["wanted"] = []
        for measure, limit in WANTED:
            ratio = found["prunus"][measure] / found["TRL"][measure]
            found["wanted"].append({"measure": measure, "by": "TRL", "ratio": ratio, "met": ratio < limit})
            print(
                f"  {measure} by TRL's: {ratio:.3f}, less than {limit} wanted: {'met' if ratio < limit else 'missed'}"
            )
    return found


def check(steps: dict[str, Step]) -> dict[str, tuple[float, float]]:
    """Relative errors of loss and head gradient to those of whole logits; all run once.

    Raises:
        SystemExit: A way computes something else.
    """
    wanted, gradient = steps["whole logits"](), steps["whole logits"].head_gradient().clone()
    errors = {}
    for name, step in steps.items():
        loss = step()
        off = float((step.head_gradient() - gradient).norm() / gradient.norm())
        errors[name] = (abs(loss - wanted) / abs(wanted), off)
        step.student.zero_grad(set_to_none=True)
    strange = {name: error for name, error in errors.items() if max(error) > SAME}
    if strange:
        raise SystemExit(f"not the loss and gradient of whole logits: {strange}")
    return errors


def measured_memory(task: str, name: str, vocab: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", task, name, "--vocab", str(vocab)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout.split()[-1])


def peak_memory(task: str, name: str, vocab: int) -> float:
    """Megabytes that a step needs over model and gradients."""
    step = WAYS[task][name](Setting(vocab))
    for parameter in step.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    step.run()  # onto the gradients that are there
    return (status("VmHWM") - before) / 1024


def sft(pack: bool) -> Callable[[Setting], Step]:
    """Ours: conversations side by side, or padded."""

    def way(setting: Setting) -> Step:
        stream = setting.stream()
        groups = len(Packed(stream, LENGTH, 1, 1.0, 0.0, 0, pack).groups)
        items = Packed(stream, LENGTH, groups, 1.0, 0.0, 0, pack)
        batch = items.collate([items[i] for i in range(groups)])
        batch.pop("numbers")
        objective = CrossEntropy(setting.model)
        return stepping(lambda: objective(**batch), setting.model)

    return way


def sft_whole_logits(setting: Setting) -> Step:
    """Padded, and labels that count for nothing in prompts."""
    whole = [prompt + answer for prompt, answer in zip(setting.prompts, setting.answers, strict=True)]
    counts = [
        [0] * len(prompt) + [1] * len(answer) for prompt, answer in zip(setting.prompts, setting.answers, strict=True)
    ]
    length = max(map(len, whole))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in whole])
    said = torch.tensor([row + [0] * (length - len(row)) for row in counts])
    labels = torch.where(said[:, 1:] > 0, ids[:, 1:], -100)

    def loss() -> torch.Tensor:
        logits = setting.model(input_ids=ids, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

    return stepping(loss, setting.model)


def trl_arguments(kind: Any, folder: str, **more: Any) -> Any:
    return kind(output_dir=folder, use_cpu=True, report_to="none", bf16=False, gradient_checkpointing=False,
                max_length=LENGTH, disable_tqdm=True, **more)  # fmt: skip


def words() -> PreTrainedTokenizerFast:
    """A tokenizer, which trainers ask for; the batches are made of ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="a", eos_token="b")


def sft_trl(setting: Setting) -> Step:
    """TRL's SFTTrainer: its collator, its compute_loss, and backward."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = deepcopy(setting.model)  # a trainer changes the model that it is given
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=trl_arguments(SFTConfig, folder),
            train_dataset=Dataset.from_list([{"prompt": "a b", "completion": " a"}]),
            processing_class=words(),
        )
    rows = zip(setting.prompts, setting.answers, strict=True)
    batch = trainer.data_collator(
        [{"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer} for prompt, answer in rows]
    )
    return stepping(lambda: trainer.compute_loss(model, dict(batch)), model)


def dpo(setting: Setting) -> Step:
    """Ours."""
    rows = [np.asarray(prompt + answer) for prompt, answer in setting.pairs]
    counts = [np.asarray([0] * (len(prompt) - 1) + [1] * len(answer) + [0]) > 0 for prompt, answer in setting.pairs]
    batch = sequences(rows, counts)
    rewards, reference = torch.tensor([1.0] * BATCH + [0.0] * BATCH), setting.reference()
    objective = Preference(setting.model, AlignConfig(method="dpo", beta=BETA))
    return stepping(lambda: objective(**batch, rewards=rewards, reference=reference), setting.model)


def dpo_whole_logits(setting: Setting) -> Step:
    """Padded, with log-softmaxes of all."""
    rows = [prompt + answer for prompt, answer in setting.pairs]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    said = torch.tensor([[0] * len(p) + [1] * len(a) + [0] * (length - len(p) - len(a)) for p, a in setting.pairs])
    reference = setting.reference()

    def loss() -> torch.Tensor:
        logs = F.log_softmax(setting.model(input_ids=ids, use_cache=False).logits[:, :-1].float(), dim=-1)
        found = (logs.gather(-1, ids[:, 1:, None]).squeeze(-1) * said[:, 1:]).sum(dim=1) - reference
        chosen, rejected = found.chunk(2)
        return -F.logsigmoid(BETA * (chosen - rejected)).mean()

    return stepping(loss, setting.model)


def dpo_trl(known: bool) -> Callable[[Setting], Step]:
    """TRL's DPOTrainer: its collator, its compute_loss, and backward; the reference asked before, or at each step."""

    def way(setting: Setting) -> Step:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        model = deepcopy(setting.model)
        with tempfile.TemporaryDirectory() as folder:
            trainer = DPOTrainer(
                model=model,
                args=trl_arguments(DPOConfig, folder, beta=BETA, precompute_ref_log_probs=True),
                train_dataset=Dataset.from_list([{"prompt": "a b", "chosen": " a", "rejected": " b"}]),
                processing_class=words(),
            )
        said = setting.reference().tolist()
        batch = trainer.data_collator([
            {"prompt_ids": setting.prompts[i], "chosen_ids": setting.answers[i], "rejected_ids": setting.rejected[i],
             "ref_chosen_logps": said[i], "ref_rejected_logps": said[BATCH + i]}
            for i in range(BATCH)
        ])  # fmt: skip

        def loss() -> torch.Tensor:
            if not known:  # by the model itself, which costs what a copy of it does
                with torch.no_grad():
                    trainer.compute_ref_log_probs(model, dict(batch))
            return trainer.compute_loss(model, dict(batch))

        return stepping(loss, model)

    return way


WAYS: dict[str, dict[str, Callable[[Setting], Step]]] = {
    "sft": {"prunus": sft(True), "prunus, padded": sft(False), "whole logits": sft_whole_logits, "TRL": sft_trl},
    "dpo": {
        "prunus": dpo,
        "whole logits": dpo_whole_logits,
        "TRL": dpo_trl(True),
        "TRL, asking each step": dpo_trl(False),
    },
}

if __name__ == "__main__":
    main()
