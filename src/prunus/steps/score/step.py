"""The `score` step: collect statistics over a calibration set, from which `prune` ranks the units of every axis."""

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
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.models.pretrained import load_tokenizer
from prunus.models.shape import Shape
from prunus.runtime import Runtime
from prunus.steps.score.checkpoint import Checkpoint
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.faults import batch_error, check_finite, first_not_finite
from prunus.steps.score.importance import block_influence
from prunus.steps.score.removal import Measure, block_removals, greedy_removal, lm_loss, logit_errors, skip_layers
from prunus.steps.score.statistics import Statistics
from prunus.steps.score.task import encode_question, is_correct
from prunus.training.objectives import CrossEntropy

PARALLEL = True
REMOVALS = ("lm_loss", "accuracy", "logit_nmse")


@dataclass(frozen=True)
class Inputs:
    """The inputs of the step.

    Attributes:
        model: The folder of the model to score.
        tokens: The token stream from which the calibration set is drawn.
        task: The file of questions, if layers are scored by accuracy.
    """

    model: Path
    tokens: Path
    task: Path | None = None


def run(config: ScoreConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Score `inputs.model`, together with the other processes if there are any.

    Writes `scores.safetensors`: the sums of `Statistics` by name (`cosines` and energies as means over tokens), the
    results of `reader_norms`, and for each criterion of layers `layers.<criterion>.<block length>`; for `logit_nmse`
    also `layers.logit_nmse.order`, a removal order of single layers. Also writes `scores.json`, a readable summary.

    Returns:
        Numbers of sequences and tokens of the calibration set.

    Raises:
        DataError: The stream is shorter than one sequence, or the questions cannot be read.
        ModelError: The model gives NaN or infinity; names the statistic, the sequence, and the first module.
    """
    config = config.with_defaults(ModelFolder(inputs.model).shape.size())
    drawn = calibration_set(Tokens.open(inputs.tokens), config.samples, config.sequence_length, config.seed)
    if len(drawn) < config.samples:
        console.warn(f"score.samples: {config.samples} requested, but the corpus has only {len(drawn)}; using these")
    device = device_of(runtime)
    model = load_model(inputs.model, device, inference_dtype(runtime, device)).requires_grad_(False)
    statistics = Statistics(ModelFolder(inputs.model).shape, config.collect, device)
    checkpoint = Checkpoint(out, runtime.checkpoint_minutes)
    state = checkpoint.load()

    def local_batches(count: int) -> list[torch.Tensor]:
        """This process's share of the first `count` sequences, in micro-batches."""
        share = torch.from_numpy(drawn[:count][distributed.rank() :: distributed.count()])
        return [batch for batch in share.split(runtime.device_batch_size) if len(batch)]

    batches = local_batches(len(drawn))
    _collect(model, statistics, batches, state, checkpoint, console)
    statistics.sums = {
        name: total.clone() for name, total in statistics.sums.items()
    }  # the checkpoint keeps each share
    distributed.all_reduce(statistics.sums.values())
    layers: dict[str, torch.Tensor] = {}
    if any(criterion in config.collect for criterion in REMOVALS):
        few = local_batches(config.layer_samples)
        layers = _remove_layers(model, statistics.shape, few, config, inputs, state, checkpoint, console)
    if distributed.rank() == 0:
        scores = {**_averaged(statistics.sums), **reader_norms(model, statistics.shape), **layers}
        check_finite(model, scores)
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
    """Run the pass over the calibration set, from the point that `state` records."""
    done = int(state["batches"]) if "batches" in state else 0
    for name, total in statistics.sums.items():
        if done:
            total.copy_(state[f"sums.{name}"])
    total_tokens = sum(batch.numel() for batch in batches)
    seen = sum(batch.numel() for batch in batches[:done])
    loss = CrossEntropy(model) if statistics.backward else None  # before the hooks: it runs the LM head to check it
    with statistics.hooked(model), console.progress("score", total_tokens, "tokens") as progress:
        for number, batch in enumerate(batches[done:], start=done + 1):
            ids = batch.to(statistics.device)
            if loss is not None:
                forward_and_backward(loss, ids)
            else:
                with torch.no_grad():
                    model.base_model(input_ids=ids, use_cache=False)
            statistics.end_batch()
            if first_not_finite(statistics.sums) is not None:
                break
            seen += batch.numel()
            progress.update(seen)
            state.update({f"sums.{name}": total for name, total in statistics.sums.items()})
            state["batches"] = torch.tensor(number)
            checkpoint.save(state)
        else:
            return
    raise batch_error(model, statistics.sums, ids, number)  # after the hooks are removed


def forward_and_backward(loss: CrossEntropy, ids: torch.Tensor) -> None:
    """Compute the gradients of the loss, summed over tokens, by every activation but not by the weights."""
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
    """Measure the model without each block of layers, by every criterion that is collected."""
    scores: dict[str, torch.Tensor] = {}
    layers = shape.num_hidden_layers
    with console.progress("layers", 1, "of all") as progress:
        for criterion in (criterion for criterion in REMOVALS if criterion in config.collect):
            measure = _cached(_measure(criterion, model, shape, batches, config, inputs), criterion, state, checkpoint)
            for length in sorted({length for length in config.blocks if length < layers}):
                scores[f"layers.{criterion}.{length}"] = torch.tensor(block_removals(measure, layers, length)).double()
            if criterion == "logit_nmse":
                scores["layers.logit_nmse.order"] = torch.tensor(greedy_removal(measure, layers))
        progress.update(1)
    return scores


def _measure(
    criterion: str,
    model: PreTrainedModel,
    shape: Shape,
    batches: list[torch.Tensor],
    config: ScoreConfig,
    inputs: Inputs,
) -> Measure:
    """The function that measures the model without given layers by one criterion, over the data of all processes."""
    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches]
    questions = []
    if criterion == "accuracy":
        assert inputs.task is not None  # checked by the config
        tokenizer = load_tokenizer(inputs.model)
        lines = read_questions(inputs.task, config.task_items)[distributed.rank() :: distributed.count()]
        questions = [encode_question(line, tokenizer) for line in lines]

    def measure(removed: frozenset[int]) -> float:
        if criterion == "logit_nmse":
            parts = logit_errors(model, shape.family, removed, batches)
        else:
            with skip_layers(model, shape.family, removed):
                if criterion == "lm_loss":
                    parts = lm_loss(model, batches)
                else:
                    with finite_logits(model, "the questions of score.task"):
                        context = shape.max_position_embeddings
                        wrong = [not is_correct(model, question, context) for question in questions]
                    parts = torch.tensor([sum(wrong), len(wrong)], dtype=torch.float64, device=device)
        distributed.all_reduce([parts])
        value = float(parts[0] / parts[1])
        if not math.isfinite(value):
            raise not_finite(model, f"its `{criterion}` without layers {sorted(removed)}")
        return value

    return measure


def _cached(measure: Measure, criterion: str, state: dict[str, torch.Tensor], checkpoint: Checkpoint) -> Measure:
    """`measure` with a cache of its results, which the checkpoint saves."""

    def cached(removed: frozenset[int]) -> float:
        key = f"{criterion}.{'-'.join(map(str, sorted(removed)))}"
        known = torch.tensor(float(key in state))
        distributed.all_reduce([known])
        if known < distributed.count():  # processes save at different times, so their caches can differ
            state[key] = torch.tensor(measure(removed), dtype=torch.float64)
            checkpoint.save(state)
        return float(state[key])

    return cached


def reader_norms(model: PreTrainedModel, shape: Shape) -> dict[str, torch.Tensor]:
    """The L2 norm of the weights that read each neuron.

    Returns:
        `reader_norms` [L, mlp], or [L, E, mlp] in a mixture of experts; there also `reader_norms.shared` [L, shared]
        and `reader_norms.dense` [L, dense]; of short convolutions `reader_norms.conv` [L, conv]. Layers that have no
        such neurons have zeros.
    """
    family, names, sizes = shape.family, shape.family.experts, shape.sizes()
    experts = () if names is None else (shape.num_experts,)
    wanted = {"reader_norms": "mlp"} | {
        f"reader_norms.{axis}": axis for axis in ("shared", "dense", "conv") if sizes[axis]
    }
    result = {
        name: torch.zeros(shape.num_hidden_layers, *(experts if axis == "mlp" else ()), sizes[axis]).double()
        for name, axis in wanted.items()
    }
    for i in range(shape.num_hidden_layers):
        layer, kinds = model.get_submodule(family.layer_name(i)), shape.kinds[i]
        for name, axis in wanted.items():
            if names is not None and axis == "mlp":
                if shape.has_units("experts", i):
                    stacked = layer.get_submodule(f"{names.module}.{names.stacked}")
                    down = stacked.get_parameter(names.down).float()
                    result[name][i] = down.norm(dim=2 if stacked.is_transposed else 1)
                continue
            for module in family.readers(axis, kinds):
                weight = layer.get_parameter(f"{module}.weight").float()
                result[name][i] = weight.norm(dim=1 if family.conv1d else 0)
    return result


def _averaged(sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The sums with cosines and energies divided by the number of tokens."""
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
    if "experts.frequency" in scores:  # the share of tokens that each expert gets
        summary["expert_frequency"] = (scores["experts.frequency"] / scores["counts"][1]).tolist()
    replace_json(out / "scores.json", summary)
