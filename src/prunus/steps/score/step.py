"""The `score` step: passes over a calibration set, and from them what the importance of all axes is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from prunus import distributed
from prunus.checkpoints import remove_checkpoints
from prunus.console import Console
from prunus.data.blocks import calibration_set
from prunus.data.questions import read_questions
from prunus.data.tokens import Tokens
from prunus.files import replace_json
from prunus.models.finite import finite_logits, not_finite
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model, load_tokenizer
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.score.checkpoint import Checkpoint
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.faults import check_written, faulty_batch, first_fault
from prunus.steps.score.importance import block_influence
from prunus.steps.score.removal import Measure, blocks, lm_loss, logit_errors, one_by_one, without
from prunus.steps.score.statistics import Statistics
from prunus.steps.score.task import question, right
from prunus.training.objectives import CrossEntropy

PARALLEL = True
REMOVALS = ("lm_loss", "accuracy", "logit_nmse")


@dataclass(frozen=True)
class Inputs:
    """The model to score, the stream to draw the calibration set from, and the questions where a task decides."""

    model: Path
    tokens: Path
    task: Path | None = None


def run(config: ScoreConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Score `inputs.model`, together with the other processes if there are any.

    Writes `scores.safetensors`: the sums of `Statistics` by name (`cosines` and energies as means over tokens),
    `reader_norms` [L, mlp] or [L, E, mlp] (the L2 norm of what each neuron is multiplied by on its way out), and for
    each criterion of layers `layers.<criterion>.<block length>` and, for single ones by their logits,
    `layers.logit_nmse.order`. Beside it `scores.json`, the same as a person reads it.

    Returns:
        Sequences and tokens of the calibration set.

    Raises:
        DataError: The stream does not fill one sequence, or the questions cannot be read.
        ModelError: The model gives NaN or infinity; names the statistic, the sequence, and where it begins.
    """
    config = config.with_defaults(ModelFolder(inputs.model).shape.size())
    drawn = calibration_set(Tokens.open(inputs.tokens), config.samples, config.sequence_length, config.seed)
    if len(drawn) < config.samples:
        console.warn(f"score.samples: {config.samples} wanted, and the corpus fills {len(drawn)}: all are used")
    device = device_of(runtime)
    model = load_model(inputs.model, device, inference_dtype(runtime, device)).requires_grad_(False)
    statistics = Statistics(ModelFolder(inputs.model).shape, config.collect, device)
    checkpoint = Checkpoint(out, runtime.checkpoint_minutes)
    state = checkpoint.load()

    def mine(count: int) -> list[torch.Tensor]:
        """This process's share of the first sequences, in portions."""
        share = torch.from_numpy(drawn[:count][distributed.rank() :: distributed.count()])
        return [portion for portion in share.split(runtime.device_batch_size) if len(portion)]

    batches = mine(len(drawn))
    _collect(model, statistics, batches, state, checkpoint, console)
    statistics.sums = {
        name: total.clone() for name, total in statistics.sums.items()
    }  # the checkpoint keeps each share
    distributed.all_reduce(statistics.sums.values())
    layers: dict[str, torch.Tensor] = {}
    if any(criterion in config.collect for criterion in REMOVALS):
        few = mine(config.layer_samples)
        layers = _remove_layers(model, statistics.shape, few, config, inputs, state, checkpoint, console)
    if distributed.rank() == 0:
        scores = {**_closed(statistics.sums), "reader_norms": reader_norms(model, statistics.shape), **layers}
        check_written(model, scores)
        _write(scores, out)
    distributed.wait()
    remove_checkpoints(out)
    counts = statistics.sums["counts"].tolist()
    return {"samples": int(counts[0]), "tokens": int(counts[1])}


def _collect(
    model: PreTrainedModel,
    statistics: Statistics,
    batches: list[torch.Tensor],
    state: dict[str, torch.Tensor],
    checkpoint: Checkpoint,
    console: Console,
) -> None:
    """The pass over the calibration set, from where `state` left it."""
    done = int(state["batches"]) if "batches" in state else 0
    for name, total in statistics.sums.items():
        if done:
            total.copy_(state[f"sums.{name}"])
    total_tokens = sum(batch.numel() for batch in batches)
    seen = sum(batch.numel() for batch in batches[:done])
    loss = CrossEntropy(model) if statistics.backward else None  # which tries the head: before anything is watched
    with statistics.watching(model), console.progress("score", total_tokens, "tokens") as progress:
        for number, batch in enumerate(batches[done:], start=done + 1):
            ids = batch.to(statistics.device)
            if loss is not None:
                forward_and_backward(loss, ids)
            else:
                with torch.no_grad():
                    model.base_model(input_ids=ids, use_cache=False)
            statistics.end_batch()
            if first_fault(statistics.sums) is not None:
                break
            seen += batch.numel()
            progress.update(seen)
            state.update({f"sums.{name}": total for name, total in statistics.sums.items()})
            state["batches"] = torch.tensor(number)
            checkpoint.save(state)
        else:
            return
    raise faulty_batch(model, statistics.sums, ids, number)  # when nothing is watched any more


def forward_and_backward(loss: CrossEntropy, ids: torch.Tensor) -> None:
    """The gradients of the loss, summed over tokens, by every activation and by no weight."""
    embedded = loss.model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_())
    try:
        (loss(ids) * ids[:, 1:].numel()).backward()
    finally:
        embedded.remove()


def _remove_layers(
    model: PreTrainedModel,
    shape: Shape,
    batches: list[torch.Tensor],
    config: ScoreConfig,
    inputs: Inputs,
    state: dict[str, torch.Tensor],
    checkpoint: Checkpoint,
    console: Console,
) -> dict[str, torch.Tensor]:
    """What is lost without each block of layers, by every criterion that is collected."""
    found: dict[str, torch.Tensor] = {}
    layers = shape.num_hidden_layers
    with console.progress("layers", 1, "of all") as progress:
        for criterion in (criterion for criterion in REMOVALS if criterion in config.collect):
            measure = _kept(_measure(criterion, model, shape, batches, config, inputs), criterion, state, checkpoint)
            for length in sorted({length for length in config.blocks if length < layers}):
                found[f"layers.{criterion}.{length}"] = torch.tensor(blocks(measure, layers, length)).double()
            if criterion == "logit_nmse":
                found["layers.logit_nmse.order"] = torch.tensor(one_by_one(measure, layers))
        progress.update(1)
    return found


def _measure(
    criterion: str,
    model: PreTrainedModel,
    shape: Shape,
    batches: list[torch.Tensor],
    config: ScoreConfig,
    inputs: Inputs,
) -> Measure:
    """What a criterion makes of leaving layers out, over all processes' data; less is better."""
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches]
    questions = []
    if criterion == "accuracy":
        assert inputs.task is not None  # the config asks for it
        tokenizer = load_tokenizer(inputs.model)
        lines = read_questions(inputs.task, config.task_items)[distributed.rank() :: distributed.count()]
        questions = [question(line, tokenizer) for line in lines]

    def measure(gone: frozenset[int]) -> float:
        if criterion == "logit_nmse":
            parts = logit_errors(model, shape.family, gone, batches)
        else:
            with without(model, shape.family, gone):
                if criterion == "lm_loss":
                    parts = lm_loss(model, batches)
                else:
                    with finite_logits(model, "the questions of score.task"):
                        wrong = [not right(model, asked, shape.max_position_embeddings) for asked in questions]
                    parts = torch.tensor([sum(wrong), len(wrong)], dtype=torch.float64, device=device)
        distributed.all_reduce([parts])
        value = float(parts[0] / parts[1])
        if not math.isfinite(value):
            raise not_finite(model, f"its `{criterion}` without layers {sorted(gone)}")
        return value

    return measure


def _kept(measure: Measure, criterion: str, state: dict[str, torch.Tensor], checkpoint: Checkpoint) -> Measure:
    """`measure`, with what it gave before looked up, in this session or in the one that was killed."""

    def remembered(gone: frozenset[int]) -> float:
        key = f"{criterion}.{'-'.join(map(str, sorted(gone)))}"
        known = torch.tensor(float(key in state))
        distributed.all_reduce([known])
        if known < distributed.count():  # checkpoints are written by each process's own clock
            state[key] = torch.tensor(measure(gone), dtype=torch.float64)
            checkpoint.save(state)
        return float(state[key])

    return remembered


def reader_norms(model: PreTrainedModel, shape: Shape) -> torch.Tensor:
    """The L2 norm of the column that each neuron is read by: [L, mlp], or [L, E, mlp] in a mixture of experts."""
    rows, experts = [], shape.family.experts
    for i in range(shape.num_hidden_layers):
        layer = model.get_submodule(shape.family.layer_name(i))
        if experts is not None:
            down = layer.get_parameter(f"{experts.module}.{experts.stacked}.{experts.down}")
            rows.append(down.float().norm(dim=1))
        else:
            (name,) = shape.family.readers("mlp")
            weight = layer.get_parameter(f"{name}.weight")
            rows.append(weight.float().norm(dim=1 if shape.family.conv1d else 0))
    return torch.stack(rows).double()


def _closed(sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The sums as they are written: what is asked for per token, divided by the tokens."""
    tokens = sums["counts"][1]
    return {
        name: total / tokens if name == "cosines" or name.startswith("energy.") else total
        for name, total in sums.items()
    }


def _write(scores: dict[str, torch.Tensor], out: Path) -> None:
    save_file({name: value.cpu().contiguous() for name, value in scores.items()}, out / "scores.safetensors")
    layers = len(scores["cosines"]) - 1
    summary: dict[str, Any] = {
        "layers": {"block_influence": [block_influence(scores["cosines"], i, 1) for i in range(layers)]}
    }
    for name, value in scores.items():
        axis, _, how = name.partition(".")
        if axis == "layers":
            summary["layers"][how] = value.tolist()
        elif axis in ("neurons", "heads", "channels", "experts") and how in ("mean", "squares"):
            rows = (value[1] if how == "mean" else value).sqrt()  # the paper's choice: L2 over the batch
            summary[axis] = rows.tolist() if axis != "channels" else rows.sum(dim=0).tolist()
    replace_json(out / "scores.json", summary)
