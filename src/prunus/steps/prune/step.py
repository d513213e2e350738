"""The `prune` step: a student of the wanted shape, cut from the teacher's bytes, or drawn anew as a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from prunus.console import Console
from prunus.errors import ArtifactError, DataError
from prunus.models.checkpoint import read_bytes, write_tensors
from prunus.models.draw import draw_model
from prunus.models.folder import ModelFolder, copy_along, write_config
from prunus.models.lineage import composed, read_lineage, write_lineage
from prunus.models.shape import Shape
from prunus.models.student import student_config
from prunus.models.texts import read_optional_json
from prunus.models.values import to_float
from prunus.runtime import Runtime
from prunus.steps.prune.choose import Keep, choose
from prunus.steps.prune.config import ImportanceConfig, PruneConfig
from prunus.steps.prune.cut import cut
from prunus.steps.prune.ids import named_ids, renumber
from prunus.steps.prune.rank import Scores, statistic
from prunus.steps.prune.rotate import Rotation, balanced, make_rotation, stored_vectors
from prunus.steps.prune.vocabulary import choose_tokens, read_tokenizer, write_tokenizer

_CHECK_LENGTH = 256  # tokens of a sequence that student and teacher are compared on

SCORED = ("num_hidden_layers", "intermediate_size", "hidden_size")


@dataclass(frozen=True)
class Inputs:
    """What is cut, and by what.

    Attributes:
        model: The teacher's folder.
        scores: Its scores, which chance alone does without.
        tokens: The corpus, by which the vocabulary is cut, and by which a cut is healed.
        base: What the model itself was cut from, where this is the second cut of two: the student's descent is told of
            it, since it is the teacher.
    """

    model: Path
    scores: Path | None = None
    tokens: Path | None = None
    base: Path | None = None


def run(config: PruneConfig, inputs: Inputs, out: Path, runtime: Runtime, console: Console) -> dict[str, float]:
    """Write the student to `out`, and beside it `kept.json`: what of the teacher it is made of.

    Returns:
        Its parameters, total and non-embedding; of a rotated cut the share of the normalised residual stream's energy
        that it keeps; whether it was refitted, where that was left to what is measured.

    Raises:
        ShapeError: The shape cannot be cut from this teacher.
        ModelError: The teacher's folder is not what its config says, or holds values that are not finite.
        ArtifactError: There are no scores, or they are another model's.
    """
    teacher = ModelFolder(inputs.model)
    teacher.check()
    target = config.target(teacher.shape, "prune")
    config = config.with_defaults(target.size())
    vocabulary = _vocabulary(teacher, target, inputs)
    if config.init == "random":  # which of the teacher's members stay says nothing then
        config = config.model_copy(update={"importance": ImportanceConfig.model_validate("random")})
    if config.refits_blocks and target.num_hidden_layers < teacher.shape.num_hidden_layers:
        config = config.model_copy(
            update={"drop_layers": _block(config, teacher, target, inputs, out, runtime, console)}
        )
    scores = _scores(inputs, config, teacher.shape, target)
    keep = choose(scores, teacher.shape, target, config, vocabulary)
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
        plans = cut(teacher.tensors, teacher.shape, target, keep, scores, rotation, config.head_residual)
        with console.progress("prune", sum(plan.nbytes for plan in plans), "bytes") as progress:
            write_tensors(out, plans, on_progress=progress.update)
        write_config(out, settings)
        write_lineage(out, *_descent(inputs, _kept(keep), rotation))
        if config.heal.asked and inputs.tokens is None:
            raise ArtifactError("prune: heal fits weights to a corpus; there is none")
        if inputs.tokens is not None and config.heals(teacher.shape, target):
            from prunus.steps.prune.healing import Made, heal_student

            healed, made = True, Made(keep, rotation, scores)
            _damage(config, inputs, out, vocabulary, healed, runtime, Console(quiet=True))  # a fit would hide a fault
            figures |= heal_student(config, inputs.model, out, inputs.tokens, made, runtime, console)
    student = ModelFolder(out)
    student.check()
    if rotation is not None:
        figures["kept_energy"] = 1.0 - rotation.lost
    return {
        "parameters": student.shape.parameters,
        "non_embedding_parameters": student.shape.non_embedding_parameters,
        **figures,
        **_damage(config, inputs, out, vocabulary, healed, runtime, console),
    }


def _descent(
    inputs: Inputs, kept: dict[str, Any], rotation: Rotation | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """What the student is made of, of the model that is cut or of what that was cut from."""
    basis = rotation.basis if rotation else None
    if inputs.base is None:
        return kept, basis
    base = ModelFolder(inputs.base).shape
    return composed(read_lineage(inputs.model, base.hidden_size, base.num_hidden_layers), kept, basis)


def _vocabulary(teacher: ModelFolder, target: Shape, inputs: Inputs) -> np.ndarray | None:
    """The tokens that stay, or None where all do."""
    if target.vocab_size == teacher.shape.vocab_size:
        return None
    if inputs.tokens is None:
        raise ArtifactError("prune: vocab_size is cut by how often the corpus has each token; there is no corpus")
    from prunus.data.tokens import Tokens

    counts = np.bincount(Tokens.open(inputs.tokens).ids, minlength=teacher.shape.vocab_size)
    if len(counts) > teacher.shape.vocab_size:
        raise DataError(
            f"prune.vocab_size: {inputs.tokens} holds the token {len(counts) - 1}, and the embedding of {teacher.path} "
            f"has {teacher.shape.vocab_size} rows"
        )
    generation = read_optional_json(teacher.path / "generation_config.json")
    always = named_ids(teacher.config) | named_ids(generation)
    return choose_tokens(read_tokenizer(teacher.path), counts, always, target.vocab_size)


def _scores(inputs: Inputs, config: PruneConfig, teacher: Shape, target: Shape) -> Scores:
    if not config.statistics(teacher, target):
        return {}
    if inputs.scores is None or not (inputs.scores / "scores.safetensors").is_file():
        raise ArtifactError(
            f"prune: {inputs.scores or 'no folder'} holds no scores.safetensors; `prunus score` makes it"
        )
    from safetensors.numpy import load_file

    scores = load_file(inputs.scores / "scores.safetensors")
    (final,) = teacher.family.norms[1]
    found = (len(scores["cosines"]) - 1, scores["reader_norms"].shape[-1], len(scores[f"energy.{final}"]))
    wanted = tuple(getattr(teacher, size) for size in SCORED)
    if found != wanted:
        raise ArtifactError(f"prune: {inputs.scores} scores another model: {SCORED} are {found} there, {wanted} here")
    return scores


def _rotation(teacher: ModelFolder, target: Shape, config: PruneConfig, scores: Scores) -> Rotation | None:
    """The change of basis that a rotated cut of channels asks for."""
    if not config.rotates(teacher.shape, target):
        return None
    places = {name: teacher.family.place(name) for name in teacher.tensors}
    named = {
        teacher.family.name_of(place.key, place.layer, place.expert): teacher.tensors[name]
        for name, place in places.items()
        if place is not None
    }
    vector = stored_vectors(lambda name: to_float(read_bytes(named[name]), named[name].dtype), teacher.family)
    covariance = wanted = statistic(scores, "covariance")
    if config.gradient_weight:
        wanted = balanced(covariance, statistic(scores, "gradient_covariance"), config.gradient_weight)
    return make_rotation(covariance, wanted, teacher.shape, target.hidden_size, vector)


def _block(
    config: PruneConfig, teacher: ModelFolder, target: Shape, inputs: Inputs, out: Path, runtime: Runtime,
    console: Console,
) -> tuple[int, ...]:  # fmt: skip
    """The layers that go, of which a refit of what stays makes up for most."""
    from prunus.steps.prune.calibration import calibration
    from prunus.steps.prune.refitted import refit_losses

    length = teacher.shape.num_hidden_layers - target.num_hidden_layers
    blocks = [tuple(range(first, first + length)) for first in range(target.num_hidden_layers + 1)]
    assert inputs.tokens is not None  # the plan gives them where the cut reads text
    ids = calibration(config.heal, inputs.tokens, config.seed)
    with console.progress("refit", len(blocks), "blocks") as progress, TemporaryDirectory(dir=out) as scratch:
        losses = refit_losses(teacher, blocks, ids, config.heal, runtime, Path(scratch), progress.update)
    best = min(blocks, key=lambda block: losses[block])
    console.say(f"layers {best[0]} to {best[-1]} go: KL {losses[best]:.4g} once refitted")
    return best


def _damage(
    config: PruneConfig,
    inputs: Inputs,
    out: Path,
    vocabulary: np.ndarray | None,
    healed: bool,
    runtime: Runtime,
    console: Console,
) -> dict[str, float]:
    """Compare the student in `out` with its teacher, and show the figures; nothing where there is no text.

    Raises:
        ModelError: The student is destroyed; see `Damage.check`.
    """
    if inputs.tokens is None or not config.takes_text or not config.check_samples:
        return {}
    from prunus.data.blocks import calibration_set
    from prunus.data.tokens import Tokens
    from prunus.steps.prune.calibration import fitted_and_judged
    from prunus.steps.prune.damage import has_room, measure_damage

    tokens = Tokens.open(inputs.tokens)
    length = min(_CHECK_LENGTH, ModelFolder(out).context)
    if len(tokens.ids) < length:
        return {}
    if not has_room((inputs.model, out), runtime):
        console.warn("not compared with the teacher: there is too little free memory for both models")
        return {}
    ids = calibration_set(tokens, config.check_samples, length, config.seed)
    if healed:  # it is near its teacher on what it was fitted on
        others = fitted_and_judged(config, inputs.tokens)[1][: config.check_samples, :length]
        ids = others if len(others) else ids
    damage = measure_damage(inputs.model, out, ids, tokens.ids, vocabulary, runtime)
    if damage is None:
        console.say("not compared with the teacher: every sequence has a token that the student drops")
        return {}
    sizes = [ModelFolder(folder).shape.non_embedding_parameters for folder in (out, inputs.model)]
    if warning := damage.check(sizes[0] / sizes[1], "prune"):
        console.warn(warning)
    console.say(f"before training: KL {damage.kl:.4g}, NLL {damage.nll:.4g} (teacher {damage.teacher_nll:.4g})")
    return {"kl": damage.kl, "nll": damage.nll, "teacher_nll": damage.teacher_nll}


def _kept(keep: Keep) -> dict[str, Any]:
    """What stayed, in JSON's own types."""

    def plain(value: Any) -> list[Any]:
        return [plain(row) for row in value] if isinstance(value, list) else np.asarray(value).tolist()

    shared = {axis: plain(members) for axis, members in keep.shared.items() if axis != "positions"}
    per_layer = [{axis: plain(rows[layer]) for axis, rows in keep.layered.items()} for layer in keep.layers]
    return {"layers": keep.layers, **shared, "per_layer": per_layer}
