"""The student's config.json: the teacher's, with the changes of pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunus.models.positions import with_rope_resolved
from prunus.models.shape import Shape


def student_config(config: Mapping[str, Any], teacher: Shape, target: Shape, layers: list[int]) -> dict[str, Any]:
    """The student's config.json: new dimensions, per-layer lists cut, rotary frequencies kept.

    Args:
        config: The teacher's config.json.
        teacher: Its shape.
        target: The student's shape.
        layers: The layers of the teacher that the student has, in its order.
    """
    rotary = target.family.rotary
    if rotary is not None and teacher.head_dim != target.head_dim:
        # pair i of a head has the frequency theta^(-2i / head_dim); the new theta keeps it with fewer dimensions
        config = with_rope_resolved(config, rotary, kept=target.head_dim / teacher.head_dim)
    result = {**config, **target.config_values(config)}
    result |= {key: value for key, value in target.family.resets.items() if key in config}
    changed = layers != list(range(teacher.num_hidden_layers))
    if changed:
        result |= {key: None for key in target.family.pattern_sources if key in config}
    for key in dict.fromkeys([*target.family.lists, "layer_types"]):
        values = config.get(key)
        rule = target.family.lists.get(key)
        if values is None and rule and changed:
            # the default depends on the layer's number, which changes: write the list explicitly
            values = [rule(layer, config) for layer in range(teacher.num_hidden_layers)]
        if values is not None:
            result[key] = [values[layer] for layer in layers]
    return result
