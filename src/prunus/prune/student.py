"""The student's config.json: the teacher's, with what the cut changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.models.shape import Shape

_ROPES = ("rope_parameters", "rope_scaling")


def student_config(config: Mapping[str, Any], teacher: Shape, target: Shape, layers: list[int]) -> dict[str, Any]:
    """The student's config.json: dimensions written out, per-layer lists cut, rotary speeds kept.

    Args:
        config: The teacher's config.json.
        teacher: Its shape.
        target: The student's shape.
        layers: The layers of the teacher that the student has.
    """
    result = {**config, **target.config_values(config)}
    for key, default in target.family.lists.items():
        if key in config or teacher.num_hidden_layers != target.num_hidden_layers:
            values = config.get(key) or [default(layer, config) for layer in range(teacher.num_hidden_layers)]
            result[key] = [values[layer] for layer in layers]
    for key in ("layer_types",):
        if isinstance(config.get(key), list) and key not in target.family.lists:
            result[key] = [config[key][layer] for layer in layers]
    if teacher.head_dim != target.head_dim:
        _keep_speeds(result, target.head_dim / teacher.head_dim)
    return result


def _keep_speeds(config: dict[str, Any], share: float) -> None:
    """Change every theta to theta^share, so that pair i of fewer turns as it did, by theta^(-2i / head_dim)."""
    if "rope_theta" in config:
        config["rope_theta"] = config["rope_theta"] ** share
    for key in _ROPES:
        if config.get(key):
            config[key] = _with_theta(config[key], share)


def _with_theta(parameters: Mapping[str, Any], share: float) -> dict[str, Any]:
    return {
        key: _with_theta(value, share) if isinstance(value, Mapping) else value**share if key == "rope_theta" else value
        for key, value in parameters.items()
    }
