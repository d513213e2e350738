"""Where a model is: a local folder, or a snapshot of the hub at a pinned commit."""

from __future__ import annotations

import re
from pathlib import Path

from prunus.errors import ModelError

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "USE_POLICY*"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate_model(path: str, revision: str | None, where: str, weights: bool = True) -> Path:
    """The folder of a model, downloaded first if it is on the hub and not yet here.

    Args:
        path: A local folder, or a model's id on the hub.
        revision: The commit on the hub; the newest if None.
        where: The name of the option, such as `teacher.path`, for messages.
        weights: False fetches config, tokenizer and index alone: enough to plan.

    Raises:
        ModelError: It is neither here nor on the hub.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"{where}: there is no folder {path}")
    from huggingface_hub import snapshot_download

    patterns = [pattern for pattern in WANTED if weights or pattern != "*.safetensors"]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:  # no network, no such model, no right to it: the hub's client says which
        raise ModelError(f"{where}: {path} is no local folder, and the hub does not give it: {error}") from None
