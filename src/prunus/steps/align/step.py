"""The `align` step: one stage, from a model and its training data to the aligned model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus import distributed
from prunus.console import Console
from prunus.data.config import ChatSource
from prunus.data.judged import Judged
from prunus.data.tokens import Tokens
from prunus.kd.online import Guided
from prunus.kd.vocabulary import shared_by
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.lineage import copy_lineage
from prunus.models.load import device_of, inference_dtype, load_model, saved_dtype
from prunus.models.rewarding import load_reward_model, save_reward_model
from prunus.runtime import Runtime
from prunus.steps.align.answers import Answers
from prunus.steps.align.config import AlignConfig
from prunus.steps.align.objective import Preference, Reward
from prunus.steps.align.online import train_online
from prunus.steps.align.reference import reference_of
from prunus.training.loop import fit, load_to_train, loading_device, place, save_trained, whole_model
from prunus.training.objectives import CrossEntropy, Objective
from prunus.training.packed import Packed
from prunus.training.sequences import Items

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """The model, the stream that it is trained on, and optionally a reference, a teacher and a template.

    Online methods read `sources` and no stream.
    """

    model: Path
    tokens: Path | None = None
    sources: tuple[ChatSource, ...] = ()
    reference: Path | None = None
    teacher: Path | None = None
    template: str | None = None


def run(config: AlignConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Align `inputs.model`, and write the result to `out` in the model's dtype.

    Writes the model with the chat template of its training; and `reference.npy`, if the method has a reference.

    Returns:
        The last loss, tokens and tokens per second, and `reload_difference`.

    Raises:
        ModelError: The model has tokens that its teacher lacks.
        DataError: There is less data than one step needs.
        TrainingError: The loss is not finite.
    """
    config = config.with_defaults(ModelFolder(inputs.model).shape.size())
    torch.manual_seed(config.seed)
    if config.spec.learns == "online":
        model, metrics = train_online(config, inputs.model, inputs.sources, inputs.template, out, runtime, console)
        difference = _save(config, CrossEntropy(model), inputs, out)
        return {**metrics, "reload_difference": difference}
    assert inputs.tokens is not None  # the plan provides a stream
    if config.spec.learns == "likelihood":
        objective = _likelihood(config, inputs, runtime)
        items: Items = packed(config, inputs.tokens)
        place(objective, runtime)
    else:
        objective, items = _preference(config, inputs, inputs.tokens, out, runtime, console)
    metrics = fit(objective, items, config, out, runtime, console, config.method)
    difference = _save(config, objective, inputs, out)
    return {**metrics, "reload_difference": difference}


def _likelihood(config: AlignConfig, inputs: Inputs, runtime: Runtime) -> Objective:
    """The objective of likelihood methods: cross-entropy, or for `distil` a loss against the teacher."""
    device = loading_device(runtime)
    model = load_to_train(inputs.model, config, runtime)
    if config.method != "distil":
        return CrossEntropy(model)
    assert inputs.teacher is not None  # the plan provides one
    teacher = load_model(inputs.teacher, device, inference_dtype(runtime, device_of(runtime))).requires_grad_(False)
    return Guided(model, teacher, config.guide, shared_by(inputs.model, inputs.teacher))


def _preference(
    config: AlignConfig, inputs: Inputs, stream: Path, out: Path, runtime: Runtime, console: Console
) -> tuple[Objective, Answers]:
    """The objective of preference methods, on its device, and its data with the reference's log-probabilities."""
    items = Answers(Tokens.open(stream), Judged.open(stream), config)
    if config.spec.learns == "reward":
        judge = Reward(load_reward_model(inputs.model, loading_device(runtime), torch.float32, new=True))
        place(judge, runtime)
        return judge, items
    objective = Preference(load_to_train(inputs.model, config, runtime), config)
    place(objective, runtime)
    if config.spec.refers:
        items.reference = _reference(config, inputs, objective, items, out, runtime, console)
    return objective, items


def _save(config: AlignConfig, objective: Objective, inputs: Inputs, out: Path) -> float:
    """Write the trained model with its lineage and chat template; see `save_trained`."""
    if config.spec.learns == "reward":
        difference = _save_reward(objective, inputs.model, out)
    else:
        difference = save_trained(objective, config, inputs.model, out)
    if distributed.rank():
        return 0.0
    copy_lineage(inputs.model, out)
    if inputs.template is not None:
        (out / "chat_template.jinja").write_text(inputs.template, encoding="utf-8")
    return difference


def _save_reward(objective: Objective, source: Path, out: Path) -> float:
    """Write a trained reward model, gathered from all processes if they shard its weights."""

    def begin() -> PreTrainedModel:
        return load_reward_model(source, torch.device("cpu"), torch.float32, new=True)

    model = whole_model(objective, begin)
    if model is None:
        return 0.0
    difference = save_reward_model(model, out, saved_dtype(ModelFolder(source)))
    copy_along(source, out)
    return difference


def packed(config: AlignConfig, folder: Path) -> Packed:
    """Training data of likelihood methods: every document; for `best_of_n` the best answer to each prompt."""
    best = Judged.open(folder).best() if config.method == "best_of_n" else None
    options = (config.sequence_length, config.batch_size, config.epochs, config.warmup, config.seed, config.pack)
    return Packed(Tokens.open(folder), *options, documents=best)


def _reference(
    config: AlignConfig, inputs: Inputs, objective: Preference, items: Answers, out: Path, runtime: Runtime,
    console: Console,
) -> np.ndarray:  # fmt: skip
    """Log-probabilities under the reference: the initial model, or another one that is loaded only for this."""
    if inputs.reference is None:
        return reference_of(objective, items, out, runtime, console)
    other = Preference(
        load_model(inputs.reference, loading_device(runtime), torch.float32).requires_grad_(False), config
    )
    place(other, runtime)
    return reference_of(other, items, out, runtime, console)
