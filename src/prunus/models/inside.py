"""The text model inside a model of several parts: its config, its weights, its shape; only headers are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.models.checkpoint import DTYPES, TensorInfo, same_bytes
from prunus.models.families.nested import EMBEDDING, HEAD, text_config, text_names
from prunus.models.families.table import family_of
from prunus.models.folder import ModelFolder, check_weights
from prunus.models.foreign import check_plain
from prunus.models.shape import Shape


@dataclass(frozen=True)
class Inside:
    """The text model inside a model of several parts.

    Attributes:
        whole: The folder of the whole model.
        config: The config.json of the text model.
        tensors: Its weights by their names in a checkpoint of text alone, without a copy of a tied head.
        others: The tensors of the other parts.
        shape: Its dimensions.
    """

    whole: ModelFolder
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    others: list[TensorInfo]
    shape: Shape


def text_inside(folder: Path) -> Inside:
    """Read config and headers of the text model in `folder`.

    Raises:
        ModelError: The text model is not known, or weights are quantised, missing, unknown or of another shape.
    """
    whole = ModelFolder(folder)
    check_plain(whole.config, str(folder))
    config = text_config(folder, whole.config)
    names = text_names(whole.tensors)
    tensors = {new: whole.tensors[name] for name, new in names.items()}
    config["tie_word_embeddings"] = _is_tied(tensors)
    shape = Shape.from_config(config, family_of(config, str(folder)), str(folder))
    dropped = (*shape.family.buffers, *((HEAD,) if config["tie_word_embeddings"] else ()))
    tensors = {name: info for name, info in tensors.items() if not name.endswith(dropped)}
    check_weights(tensors, shape, folder)
    config["dtype"] = next(dtype for dtype, stored in DTYPES.items() if stored == tensors[EMBEDDING].dtype)
    others = [info for name, info in whole.tensors.items() if name not in names]
    return Inside(whole, config, tensors, others, shape)


def _is_tied(tensors: dict[str, TensorInfo]) -> bool:
    """Whether there is no head, or it is a copy of the embedding."""
    head, embedding = tensors.get(HEAD), tensors.get(EMBEDDING)
    return head is None or (embedding is not None and same_bytes(head, embedding))
