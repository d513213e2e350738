"""The student's config.json: the teacher's, with what the cut changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.errors import ShapeError
from prunus.models.shape import Shape

_THETAS = ("rope_theta", "rope_local_base_freq")


def student_config(config: Mapping[str, Any], teacher: Shape, target: Shape, layers: list[int]) -> dict[str, Any]:
    """The student's config.json: dimensions written out, per-layer lists cut, rotary speeds kept.

    Args:
        config: The teacher's config.json.
        teacher: Its shape.
        target: The student's shape.
        layers: The layers of the teacher that the student has, in its order.

    Raises:
        ShapeError: Head dimensions are cut, and the config leaves theta to its class's default.
    """
    result = {**config, **target.config_values(config)}
    for key in dict.fromkeys([*target.family.lists, "layer_types"]):
        values = config.get(key)
        rule = target.family.lists.get(key)
        if values is None and rule and layers != list(range(teacher.num_hidden_layers)):
            # a rule by the layer's number: with other numbers it would give other values
            values = [rule(layer, config) for layer in range(teacher.num_hidden_layers)]
        if values is not None:
            result[key] = [values[layer] for layer in layers]
    if teacher.head_dim != target.head_dim:
        if not _names_theta(config):
            raise ShapeError("prune.head_dim: the teacher's config.json names no rope_theta; write it there first")
        result = _with_speeds_kept(result, target.head_dim / teacher.head_dim)
    return result


def _with_speeds_kept(config: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A config with every theta in it, at whatever depth, as theta^share.

    Pair i of a head turns by theta^(-2i / head_dim); with fewer dimensions it then turns as it did.
    """
    result = dict(config)
    for key, value in config.items():
        if isinstance(value, Mapping):
            result[key] = _with_speeds_kept(value, share)
        elif key in _THETAS:
            result[key] = value**share
    return result


def _names_theta(config: Mapping[str, Any]) -> bool:
    inner = (value for value in config.values() if isinstance(value, Mapping))
    return any(key in config for key in _THETAS) or any(_names_theta(value) for value in inner)
