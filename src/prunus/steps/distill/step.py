"""The `distill` step: train the student to predict what the teacher predicts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.data.config import ChatSource
from prunus.data.targets import Targets
from prunus.data.tokens import Tokens
from prunus.errors import RecipeError
from prunus.kd.vocabulary import shared_by
from prunus.models.folder import ModelFolder
from prunus.models.lineage import copy_lineage, read_lineage
from prunus.models.load import device_of, inference_dtype
from prunus.models.nest import is_nest, read_nest
from prunus.models.pretrained import load_tokenizer
from prunus.models.quantized import load_frozen
from prunus.runtime import Runtime
from prunus.steps.distill.config import DistillConfig
from prunus.steps.distill.nest_plan import check_nest
from prunus.steps.distill.nested import NestObjective, make_nested, write_trained
from prunus.steps.distill.objective import make_objective
from prunus.training.loop import load_to_train, loading_device, save_trained, train
from prunus.training.quantised import QuantisedWeights, Quantising, quantised_weights
from prunus.training.record import Watcher
from prunus.validation.data import ValidationData
from prunus.validation.watch import Validation

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """The inputs of the step.

    Attributes:
        student: The student's folder.
        tokens: The token stream that both models read.
        teacher: The teacher's folder, for `targets: online`.
        targets: The folder of the teacher's stored targets for that stream, for `targets: cached`.
        held_out: The held-out stream, for `validation`.
        questions: The conversations of each of its tasks, in the order of its names.
    """

    student: Path
    tokens: Path
    teacher: Path | None = None
    targets: Path | None = None
    held_out: Path | None = None
    questions: tuple[ChatSource, ...] = ()


def run(config: DistillConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Distil the teacher into the student, and write the result to `out` in the student's data type.

    Of a nest, all sizes are trained, and the result is a nest again; figures and validation are its largest size's.

    Returns:
        The last loss (the sum of its terms), tokens and tokens per second, and `reload_difference`.

    Raises:
        DataError: The stream is shorter than one sequence.
        TrainingError: The loss is not finite.
        ModelError: The student has tokens that the teacher lacks, or states are compared and the student was not
            pruned from this teacher.
        RecipeError: `data: student` with weights sharded over processes, `states.layers` names a layer that does not
            exist, or both teacher and targets are missing.
    """
    if config.has_teacher and (inputs.teacher if config.runs_teacher else inputs.targets) is None:
        required = "a teacher" if config.runs_teacher else "the folder that a `targets` step wrote"
        raise RecipeError(f"distill.targets: {config.targets} needs {required} among its inputs")
    above = None if inputs.teacher is None else ModelFolder(inputs.teacher).shape
    config = config.with_defaults(ModelFolder(inputs.student).shape.size(above))
    nest = read_nest(inputs.student) if is_nest(inputs.student) else None
    check_nest(config, [] if nest is None else [size.name for size in nest.sizes], runtime, "distill")
    device = loading_device(runtime)
    if config.data == "student" and distributed.shards_weights(runtime.shard):
        raise RecipeError(
            "distill.data: student: a student with sharded weights cannot generate text; set no runtime.shard"
        )
    lineage = None
    if config.reads_lineage and inputs.teacher is not None:
        shape = ModelFolder(inputs.teacher).shape
        lineage = read_lineage(inputs.student, shape.hidden_size, shape.num_hidden_layers)
    shared = None
    if config.runs_teacher and inputs.teacher is not None:
        shared = shared_by(inputs.student, inputs.teacher)
    torch.manual_seed(config.seed)
    model = load_to_train(inputs.student, config, runtime)
    teacher = None
    if config.runs_teacher and inputs.teacher is not None:
        dtype = inference_dtype(runtime, device_of(runtime))
        teacher = load_frozen(inputs.teacher, device, dtype, config.teacher_bits)
    objective = make_objective(config, model, teacher, lineage, shared)
    if nest is not None:
        objective = make_nested(objective, nest, config, teacher, lineage, shared)
    quantised = None
    if config.quantise is not None:
        quantised = quantised_weights(model, ModelFolder(inputs.student), config.quantise, config.quantise_every)
        objective.add_module("quantised", quantised)  # so that its state is in the checkpoints
    targets = None if inputs.targets is None else Targets.open(inputs.targets).items
    stream = Tokens.open(inputs.tokens)
    watchers: list[Watcher] = [] if quantised is None else [Quantising(quantised)]
    known = teacher if shared is None else None
    watchers += _watchers(config, inputs, model, known, quantised, out, runtime, console)
    metrics = train(objective, stream, config, out, runtime, console, "distill", watchers, targets)
    difference = save_trained(objective, config, inputs.student, out)
    if distributed.rank() == 0:
        copy_lineage(inputs.student, out)
        if nest is not None and isinstance(objective, NestObjective):
            write_trained(objective, nest, out)
    return {**metrics, "reload_difference": difference}


def _watchers(
    config: DistillConfig, inputs: Inputs, student: PreTrainedModel, teacher: PreTrainedModel | None,
    quantised: QuantisedWeights | None, out: Path, runtime: Runtime, console: Console,
) -> list[Watcher]:  # fmt: skip
    """The callback that measures the student during training, if `config.validation` says so."""
    validation = config.validation
    if not validation.times or inputs.held_out is None:
        return []
    tokenizer, shape = load_tokenizer(inputs.student), ModelFolder(inputs.student).shape
    held_out, sources = Tokens.open(inputs.held_out), dict(zip(validation.tasks, inputs.questions, strict=True))
    length = config.sequence_length
    data = ValidationData.read(validation, held_out, sources, tokenizer, length, shape.max_position_embeddings)
    tokens = config.batch_size * length
    shipped = nullcontext if quantised is None else quantised.applied
    return [Validation(validation, data, student, teacher, tokenizer, runtime, out, tokens, console, shipped)]
