"""Where a model is: a local folder, or a snapshot of the hub at a pinned commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prunus.errors import HubError, ModelError, nearest
from prunus.fingerprint import digest
from prunus.models.folder import ModelFolder

WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md"]
BUILTINS = ("builtin:sapling",)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Located:
    """A model that is here.

    Attributes:
        folder: Where.
        source: Its id and commit, if it came from the hub.
    """

    folder: ModelFolder
    source: str = ""

    def fingerprint(self) -> str:
        """A digest of what it holds; what came from the hub is told by its commit, whether all of it is here or not."""
        return digest(self.source) if self.source else self.folder.fingerprint()

    def tokenizer_fingerprint(self) -> str:
        """The same of its tokenizer."""
        return digest([self.source, "tokenizer"]) if self.source else self.folder.tokenizer_fingerprint()


def locate_model(path: str, revision: str | None, where: str, weights: bool = True) -> Located:
    """Find a model, downloading it first if it is on the hub and not yet here.

    Args:
        path: A local folder, a model's id on the hub, or `builtin:sapling`, the teacher that Prunus brings along.
        revision: The commit on the hub; the newest if None.
        where: The name of the option, such as `teacher.path`, for messages.
        weights: False fetches config and tokenizer alone: enough to plan.

    Raises:
        ModelError: It is named as a local folder or as built in, and there is none.
        HubError: It is not here, and the hub does not give it.
    """
    if path.startswith("builtin:"):
        return Located(ModelFolder(_builtin(path, where)))
    folder = Path(path).expanduser()
    if folder.is_dir():
        return Located(ModelFolder(folder))
    if folder.is_file():
        raise ModelError(
            f"{where}: {path} is a file; a model is a folder with config.json and safetensors, or a "
            "file that ends in .gguf"
        )
    if path.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"{where}: there is no folder {path}")
    from huggingface_hub import snapshot_download

    patterns = [pattern for pattern in WANTED if weights or pattern != "*.safetensors"]
    try:
        snapshot = Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:  # no network, no such model, no right to it: the hub's client says which
        raise HubError(f"{where}: {path} is no local folder, and the hub does not give it: {error}") from None
    return Located(ModelFolder(snapshot), f"{path}@{snapshot.name}")


def locate_runnable(path: str, where: str) -> Path:
    """A GGUF file, or the folder of a model, from wherever `locate_model` finds it.

    Raises:
        ModelError: There is none.
        HubError: It is not here, and the hub does not give it.
    """
    if not path.endswith(".gguf"):
        return locate_model(path, None, where).folder.path
    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"{where}: there is no file {path}")
    return file


def _builtin(path: str, where: str) -> Path:
    """The folder of a model that is part of the package."""
    if path not in BUILTINS:
        raise ModelError(f"{where}: unknown {path!r}{nearest(path, BUILTINS)}; there is: {', '.join(BUILTINS)}")
    return Path(str(files("prunus.world").joinpath(path.removeprefix("builtin:"))))
