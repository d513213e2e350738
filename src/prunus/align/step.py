"""The `align` step: one stage, from a model and what it is to learn from to the aligned model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prunus import processes
from prunus.align.answers import Answers
from prunus.align.config import LIKELIHOOD, AlignConfig
from prunus.align.objective import Preference, Reward
from prunus.align.reference import reference_of
from prunus.console import Console
from prunus.data.judged import Judged
from prunus.data.tokens import Tokens
from prunus.errors import RecipeError
from prunus.models.folder import ModelFolder, copy_along
from prunus.models.lineage import copy_lineage
from prunus.models.load import device_of, dtype_named, load_model
from prunus.models.rewarding import load_reward_model, save_reward_model
from prunus.runtime import Runtime
from prunus.training.loop import fit, loading_device, place, save_trained
from prunus.training.objectives import CrossEntropy, Objective
from prunus.training.packed import Packed
from prunus.training.sequences import Items

PARALLEL = True


@dataclass(frozen=True)
class Inputs:
    """The model, the stream that it learns from, and, where they are asked for, a reference and a chat template."""

    model: Path
    tokens: Path
    reference: Path | None = None
    template: str | None = None


def run(config: AlignConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Align `inputs.model`, and write the result to `out` in its own type.

    Writes the model with the chat template that it was trained by, and `reference.npy` of methods that refer to one.

    Returns:
        The last loss, tokens and tokens per second, and `reload_difference`.

    Raises:
        DataError: There is less to learn from than one step takes.
        RecipeError: A reward model is to be shared out over processes.
        TrainingError: The loss is not finite.
    """
    torch.manual_seed(config.seed)
    tokens = Tokens.open(inputs.tokens)
    if config.method in LIKELIHOOD:
        objective: Objective = CrossEntropy(load_model(inputs.model, loading_device(runtime), torch.float32))
        items: Items = packed(config, tokens, inputs.tokens)
        place(objective, runtime)
    else:
        objective, items = _preference(config, inputs, tokens, out, runtime, console)
    metrics = fit(objective, items, config, out, runtime, console, config.method)
    difference = _save(config, objective, inputs, out)
    return {**metrics, "reload_difference": difference}


def _preference(
    config: AlignConfig, inputs: Inputs, tokens: Tokens, out: Path, runtime: Runtime, console: Console
) -> tuple[Objective, Answers]:
    """What learns from two answers, where it works, and what the reference says of them."""
    items = Answers(tokens, Judged.open(inputs.tokens), config)
    if config.method == "reward":
        if processes.share_weights(runtime.shard):
            raise RecipeError("runtime.shard: a reward model cannot be shared out; without shard")
        judge = Reward(load_reward_model(inputs.model, device_of(runtime), torch.float32, new=True))
        place(judge, runtime)
        return judge, items
    objective = Preference(load_model(inputs.model, loading_device(runtime), torch.float32), config)
    place(objective, runtime)
    if config.refers:
        items.reference = _reference(config, inputs, objective, items, out, runtime, console)
    return objective, items


def _save(config: AlignConfig, objective: Objective, inputs: Inputs, out: Path) -> float:
    """Write what was trained, with what goes along; see `save_trained`."""
    if config.method != "reward":
        difference = save_trained(objective, inputs.model, out)
    elif processes.rank() == 0:
        difference = save_reward_model(objective.model, out, dtype_named(ModelFolder(inputs.model).config))
        copy_along(inputs.model, out)
    if processes.rank():
        return 0.0
    copy_lineage(inputs.model, out)
    if inputs.template is not None:
        (out / "chat_template.jinja").write_text(inputs.template, encoding="utf-8")
    return difference


def packed(config: AlignConfig, tokens: Tokens, folder: Path) -> Packed:
    """What likelihood methods train on: every document, or of each question the best."""
    best = Judged.open(folder).best() if config.method == "best_of_n" else None
    options = (config.sequence_length, config.batch_size, config.epochs, config.warmup, config.seed, config.pack)
    return Packed(tokens, *options, documents=best)


def _reference(
    config: AlignConfig, inputs: Inputs, objective: Preference, items: Answers, out: Path, runtime: Runtime,
    console: Console,
) -> np.ndarray:  # fmt: skip
    """The reference's log-probabilities: of the model as it starts, or of one that is loaded for that alone."""
    if inputs.reference is None:
        return reference_of(objective, items, out, runtime, console)
    other = Preference(
        load_model(inputs.reference, loading_device(runtime), torch.float32).requires_grad_(False), config
    )
    place(other, runtime)
    return reference_of(other, items, out, runtime, console)
