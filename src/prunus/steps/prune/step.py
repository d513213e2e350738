"""The `prune` step: a student of a given shape, cut from the teacher, or with random weights as a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.errors import ArtifactError, DataError
from prunus.models.axes import WHOLE
from prunus.models.checkpoint import read_bytes, write_tensors
from prunus.models.draw import draw_model
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.ids import renumber, required_ids
from prunus.models.lineage import composed, read_lineage, write_lineage
from prunus.models.nest import own_norms, read_nest, write_size
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.models.texts import read_optional_json
from prunus.models.values import to_float
from prunus.runtime import Runtime
from prunus.steps.prune.choose import Keep, choose, unranked_experts
from prunus.steps.prune.config import CHECK_LENGTH, ImportanceConfig, PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.merge import Merged
from prunus.steps.prune.nest_basis import nested_rotations
from prunus.steps.prune.nest_cut import nested_cuts, write_cuts
from prunus.steps.prune.nest_order import in_order
from prunus.steps.prune.rank import Scores, statistic
from prunus.steps.prune.rotate import Rotation, balanced, make_rotation, stored_vectors
from prunus.steps.prune.vocabulary import choose_tokens, read_tokenizer, write_tokenizer

SCORED = ("num_hidden_layers", "intermediate_size", "hidden_size")
"""The sizes of the scored model that can be read from its scores."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of the step.

    Attributes:
        model: The folder of the teacher, or of the model to cut the second time.
        scores: The folder of its scores; None if the cut needs none.
        tokens: The token stream of the corpus, for a cut vocabulary, healing and the check.
        base: In the second of two cuts, the folder of the teacher that `model` was cut from; the student's lineage then
            refers to it.
    """

    model: Path
    scores: Path | None = None
    tokens: Path | None = None
    base: Path | None = None


def run(config: PruneConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the student to `out`, with its lineage in `kept.json`: the units of the teacher that it has.

    Returns:
        The student's parameters, total and non-embedding; `kept_energy` of a rotated cut, the share of the normalised
        residual stream's energy that is kept; `refitted` if `heal.refit` is `auto`; and the figures of the check. Of a
        nest, those of its largest size, and `SIZE_kl` of every other one.

    Raises:
        ShapeError: The shape cannot be cut from this teacher.
        ModelError: The teacher's files contradict its config or contain values that are not finite, or the student is
            destroyed (see `Damage.check`).
        ArtifactError: Scores or the corpus are missing, or the scores are those of another model.
        DataError: The corpus contains ids outside the teacher's vocabulary.
    """
    teacher = ModelFolder(inputs.model)
    teacher.check()
    if config.nest:
        return _run_nest(config, inputs, out, runtime, console)
    target = config.target(teacher.shape, "prune")
    if further := teacher.ignored:
        console.say(f"left out, as transformers ignores them: {len(further)} weights such as {further[0]}")
    config = config.with_defaults(target.size())
    vocabulary = _vocabulary(teacher, target, inputs)
    if config.init == "random":  # the choice of units has no effect on random weights, so it needs no scores
        config = config.model_copy(update={"importance": ImportanceConfig.model_validate("random")})
    if config.refits_blocks and target.num_hidden_layers < teacher.shape.num_hidden_layers:
        block = _best_block(config, teacher, target, inputs, out, runtime, console)
        config = config.model_copy(update={"drop_layers": block})
    scores = _scores(inputs, config, teacher.shape, target)
    keep = choose(scores, teacher.shape, target, config, vocabulary)
    unranked = unranked_experts(keep, scores, teacher.shape)
    if unranked and target.intermediate_size < teacher.shape.intermediate_size:
        console.warn(
            f"no token of the scores reaches {unranked} of the experts that are kept, so their first neurons are kept; "
            "score more tokens (score.samples)"
        )
    target = replace(target, pattern=teacher.shape.of_layers(keep.layers).pattern)  # known now that layers are chosen
    settings = student_config(teacher.config, teacher.shape, target, keep.layers)
    if vocabulary is not None:
        ids = {int(old): new for new, old in enumerate(vocabulary)}
        settings = renumber(settings, ids, f"{teacher.path}: config.json")
    copy_along(inputs.model, out)
    if vocabulary is not None:
        write_tokenizer(inputs.model, out, vocabulary)
    rotation, healed, figures = None, False, dict[str, float]()
    if config.init == "random":
        draw_model(settings, out, config.seed)
    else:
        rotation = _rotation(teacher, target, config, scores)
        merged = _merged(teacher, keep, console)
        plans = cut(teacher.tensors, teacher.shape, target, keep, scores, rotation, config.head_residual, merged)
        with console.progress("prune", sum(plan.nbytes for plan in plans), "bytes") as progress:
            write_tensors(out, plans, on_progress=progress.update)
        write_config(out, settings)
        write_lineage(out, *_lineage(inputs, _kept_units(keep, teacher.shape), rotation))
        _require_text(config, inputs)
        healed = inputs.tokens is not None and config.heals(teacher.shape, target)
        if healed:
            # checked before healing as well: a refit could hide a fault of the cut
            _check_damage(config, inputs, out, vocabulary, healed, runtime, Console(quiet=True))
            figures = _heal(config, inputs, out, keep, rotation, scores, runtime, console)
    student = ModelFolder(out)
    student.check()
    if rotation is not None:
        figures["kept_energy"] = 1.0 - rotation.lost
    return {
        "parameters": student.shape.parameters,
        "non_embedding_parameters": student.shape.non_embedding_parameters,
        **figures,
        **_check_damage(config, inputs, out, vocabulary, healed, runtime, console),
    }


def _merged(teacher: ModelFolder, keep: Keep, console: Console) -> Merged | None:
    """The merged experts, their neurons matched; None if none are merged."""
    if not keep.groups:
        return None
    layers = [layer for layer in keep.layers if layer >= teacher.shape.dense_layers]
    with console.progress("match", len(layers), "layers") as progress:
        return Merged(teacher.tensors, teacher.shape, keep.groups, layers, progress.update)


def _require_text(config: PruneConfig, inputs: Inputs) -> None:
    if config.heal.explicit and inputs.tokens is None:
        raise ArtifactError("prune: heal needs a corpus to fit weights to; there is none")


def _heal(
    config: PruneConfig,
    inputs: Inputs,
    out: Path,
    keep: Keep,
    rotation: Rotation | None,
    scores: Scores,
    runtime: Runtime,
    console: Console,
) -> dict[str, float]:
    """Heal the student in `out`; loads both models."""
    from prunus.steps.prune.heal_checkpoint import CutInfo, heal_checkpoint

    assert inputs.tokens is not None
    info = CutInfo(keep, rotation, scores)
    return heal_checkpoint(config, inputs.model, out, inputs.tokens, info, runtime, console)


def _lineage(
    inputs: Inputs, kept: dict[str, Any], rotation: Rotation | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The units and the basis that the student keeps: of `inputs.base` if there is one, otherwise of `inputs.model`."""
    basis = rotation.basis if rotation else None
    if inputs.base is None:
        return kept, basis
    base = ModelFolder(inputs.base).shape
    return composed(read_lineage(inputs.model, base.hidden_size, base.num_hidden_layers), kept, basis)


def _vocabulary(teacher: ModelFolder, target: Shape, inputs: Inputs) -> np.ndarray | None:
    """The ids of the tokens to keep, [vocab_size] of the student; None if all are kept."""
    if target.vocab_size == teacher.shape.vocab_size:
        return None
    if inputs.tokens is None:
        raise ArtifactError("prune: vocab_size needs a corpus to count tokens in; there is no corpus")
    from prunus.data.tokens import Tokens

    counts = np.bincount(Tokens.open(inputs.tokens).ids, minlength=teacher.shape.vocab_size)
    if len(counts) > teacher.shape.vocab_size:
        raise DataError(
            f"prune.vocab_size: {inputs.tokens} contains token {len(counts) - 1}, but the embedding of {teacher.path} "
            f"has only {teacher.shape.vocab_size} rows"
        )
    generation = read_optional_json(teacher.path / "generation_config.json")
    required = required_ids(teacher.config) | required_ids(generation)
    return choose_tokens(read_tokenizer(teacher.path), counts, required, target.vocab_size)


def _scores(inputs: Inputs, config: PruneConfig, teacher: Shape, target: Shape) -> Scores:
    if not config.statistics(teacher, target):
        return {}
    if inputs.scores is None or not (inputs.scores / "scores.safetensors").is_file():
        raise ArtifactError(
            f"prune: there is no scores.safetensors in {inputs.scores or 'the inputs'}; run `prunus score` to create it"
        )
    from safetensors.numpy import load_file

    scores = load_file(inputs.scores / "scores.safetensors")
    (final,) = teacher.family.norms[1]
    scored = (len(scores["cosines"]) - 1, scores["reader_norms"].shape[-1], len(scores[f"energy.{final}"]))
    expected = tuple(getattr(teacher, size) for size in SCORED)
    if scored != expected:
        raise ArtifactError(
            f"prune: {inputs.scores} contains the scores of another model: {', '.join(SCORED)} are {scored}, expected "
            f"{expected}"
        )
    return scores


def _rotation(teacher: ModelFolder, target: Shape, config: PruneConfig, scores: Scores) -> Rotation | None:
    """The change of basis of a rotated cut; None if the cut does not rotate."""
    if not config.rotates(teacher.shape, target):
        return None
    covariance, criterion, vector = _axes(teacher, config, scores)
    return make_rotation(covariance, criterion, teacher.shape, target.hidden_size, vector)


def _axes(
    teacher: ModelFolder, config: PruneConfig, scores: Scores
) -> tuple[np.ndarray, np.ndarray, Callable[[str, int | None], np.ndarray]]:
    """What a rotation follows from: covariance [d, d], criterion [d, d] and `Rotation.vector`."""
    places = {name: teacher.family.place(name) for name in teacher.tensors}
    named = {
        teacher.family.name_of(place.key, place.layer, place.expert): teacher.tensors[name]
        for name, place in places.items()
        if place is not None
    }
    vector = stored_vectors(lambda name: to_float(read_bytes(named[name]), named[name].dtype), teacher.family)
    covariance = criterion = statistic(scores, "covariance")
    if config.gradient_weight:
        criterion = balanced(covariance, statistic(scores, "gradient_covariance"), config.gradient_weight)
    return covariance, criterion, vector


def _run_nest(config: PruneConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write a nest to `out`: the checkpoint of its largest size, and what the others have of their own.

    Returns:
        As `run` of the largest size, and `SIZE_kl` of every other one.
    """
    _require_text(config, inputs)
    teacher = ModelFolder(inputs.model)
    shapes = config.nested(teacher.shape, "prune")
    least = list(shapes.values())[-1]
    config = config.with_defaults(next(iter(shapes.values())).size())
    scores = _scores(inputs, config, teacher.shape, least)
    rotations: list[Rotation] | None = None
    if config.rotates(teacher.shape, least):
        sizes = [shape.hidden_size for shape in shapes.values()]
        covariance, criterion, vector = _axes(teacher, config, scores)
        rotations = nested_rotations(covariance, criterion, teacher.shape, sizes, vector)
    cuts = nested_cuts(teacher, shapes, config, scores, rotations)
    with console.progress("prune", cuts[0].shape.parameters, "parameters") as progress:
        write_cuts(teacher, cuts, scores, out, progress.update)
    basis = cuts[0].rotation.basis if cuts[0].rotation else None
    write_lineage(out, _kept_units(in_order(cuts[0].keep, cuts[0].order), teacher.shape), basis)
    figures: dict[str, float] = {}
    fitted = config.heals(teacher.shape, least)
    if inputs.tokens is not None and fitted:
        from prunus.steps.prune.nest_fit import fit_sizes

        fit_sizes(config, inputs.model, out, inputs.tokens, cuts, scores, runtime, console)
    nest = read_nest(out)
    for size in nest.smaller:
        with TemporaryDirectory(dir=out) as scratch:
            folder = Path(scratch)
            write_size(nest, size, own_norms(nest, size), folder)
            ModelFolder(folder).check()
            console.say(f"{size.name}:")
            damage = _check_damage(config, inputs, folder, None, fitted, runtime, console)
        figures |= {f"{size.name}_kl": damage["kl"]} if damage else {}
    console.say(f"{nest.largest.name}:")
    if cuts[0].rotation is not None:
        figures["kept_energy"] = 1.0 - cuts[0].rotation.lost
    return {
        "parameters": nest.largest.shape.parameters,
        "non_embedding_parameters": nest.largest.shape.non_embedding_parameters,
        **figures,
        **_check_damage(config, inputs, out, None, fitted, runtime, console),
    }


def _best_block(
    config: PruneConfig, teacher: ModelFolder, target: Shape, inputs: Inputs, out: Path, runtime: Runtime,
    console: Console,
) -> tuple[int, ...]:  # fmt: skip
    """The block of layers to drop: the one with the lowest KL after the remaining weights are refitted."""
    from prunus.steps.prune.block_losses import refit_losses
    from prunus.steps.prune.calibration import calibration

    length = teacher.shape.num_hidden_layers - target.num_hidden_layers
    blocks = teacher.shape.droppable(length)
    assert inputs.tokens is not None  # the plan adds them if the cut reads text
    ids = calibration(config.heal, inputs.tokens, config.seed)
    with console.progress("refit", len(blocks), "blocks") as progress, TemporaryDirectory(dir=out) as scratch:
        losses = refit_losses(teacher, blocks, ids, config.heal, runtime, Path(scratch), progress.update)
    best = min(blocks, key=lambda block: losses[block])
    console.say(f"dropping layers {best[0]} to {best[-1]}: KL to the teacher {losses[best]:.4g} after a refit")
    return best


def _check_damage(
    config: PruneConfig,
    inputs: Inputs,
    out: Path,
    vocabulary: np.ndarray | None,
    healed: bool,
    runtime: Runtime,
    console: Console,
) -> dict[str, float]:
    """Compare the student in `out` with its teacher, and show the figures; does nothing if there is no text.

    Raises:
        ModelError: The student is destroyed; see `Damage.check`.
    """
    if inputs.tokens is None or not config.takes_text or not config.check_samples:
        return {}
    from prunus.data.blocks import calibration_set
    from prunus.data.tokens import Tokens
    from prunus.steps.prune.calibration import calibration_and_validation
    from prunus.steps.prune.damage import fit_in_memory, measure_damage

    tokens = Tokens.open(inputs.tokens)
    length = min(CHECK_LENGTH, ModelFolder(out).context)
    if len(tokens.ids) < length:
        return {}
    if not fit_in_memory((inputs.model, out), runtime):
        console.warn("not compared with the teacher: there is too little free memory for both models")
        return {}
    ids = calibration_set(tokens, config.check_samples, length, config.seed)
    if healed:  # on the sequences that it was fitted on, it is closer to its teacher than elsewhere
        validation = calibration_and_validation(config, inputs.tokens)[1][: config.check_samples, :length]
        ids = validation if len(validation) else ids
    damage = measure_damage(inputs.model, out, ids, tokens.ids, vocabulary, runtime)
    if damage is None:
        console.say("not compared with the teacher: every sequence contains a token that the student lacks")
        return {}
    sizes = [ModelFolder(folder).shape.non_embedding_parameters for folder in (out, inputs.model)]
    if warning := damage.check(sizes[0] / sizes[1], "prune"):
        console.warn(warning)
    console.say(f"before training: KL {damage.kl:.4g}, NLL {damage.nll:.4g} (teacher {damage.teacher_nll:.4g})")
    return {"kl": damage.kl, "nll": damage.nll, "teacher_nll": damage.teacher_nll}


def _kept_units(keep: Keep, teacher: Shape) -> dict[str, Any]:
    """The kept units as JSON types, for `kept.json`; of each layer those that it has."""

    def plain(value: Any) -> list[Any]:
        return [plain(row) for row in value] if isinstance(value, list) else np.asarray(value).tolist()

    shared = {axis: plain(members) for axis, members in keep.shared.items() if axis not in WHOLE}
    per_layer = [
        {axis: plain(rows[layer]) for axis, rows in keep.layered.items() if teacher.has_units(axis, layer)}
        for layer in keep.layers
    ]
    for row, layer in zip(per_layer, keep.layers, strict=True):
        if keep.groups and "experts" in row:
            row["merged_experts"] = [list(group.experts) for group in keep.groups[layer].values()]
    return {"layers": keep.layers, **shared, "per_layer": per_layer}
