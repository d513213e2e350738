"""Locating models: a local folder, or a snapshot from the hub at a pinned commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from prunus.errors import HubError, ModelError, among
from prunus.fingerprint import digest
from prunus.models.folder import ModelFolder

PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md"]
BUILTINS = ("builtin:sapling",)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Located:
    """A model on this machine.

    Attributes:
        folder: Its folder.
        source: Its id and commit, if it came from the hub.
    """

    folder: ModelFolder
    source: str = ""

    def fingerprint(self) -> str:
        """A digest of its content; for a model from the hub, of its commit, even if only a part is downloaded."""
        return digest(self.source) if self.source else self.folder.fingerprint()

    def tokenizer_fingerprint(self) -> str:
        """A digest of its tokenizer."""
        return digest([self.source, "tokenizer"]) if self.source else self.folder.tokenizer_fingerprint()


def locate_model(path: str, revision: str | None, where: str, weights: bool = True) -> Located:
    """Locate a model; one on the hub is downloaded if necessary.

    Args:
        path: A local folder, a model's id on the hub, or `builtin:sapling`, the teacher included in Prunus.
        revision: The commit on the hub; the newest if None.
        where: The name of the option, such as `teacher.path`, for messages.
        weights: If false, download only config and tokenizer, which suffice for a plan.

    Raises:
        ModelError: There is no such local folder or built-in model.
        HubError: It cannot be fetched from the hub.
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

    patterns = [pattern for pattern in PATTERNS if weights or pattern != "*.safetensors"]
    try:
        snapshot = Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except Exception as error:  # no network, no such model, no access: the client's message says which
        raise HubError(f"{where}: {path} is not a local folder and cannot be fetched from the hub: {error}") from None
    return Located(ModelFolder(snapshot), f"{path}@{snapshot.name}")


def locate_runnable(path: str, where: str) -> Path:
    """A GGUF file, or the folder of a model; see `locate_model`.

    Raises:
        ModelError: It does not exist.
        HubError: It cannot be fetched from the hub.
    """
    if not path.endswith(".gguf"):
        return locate_model(path, None, where).folder.path
    file = Path(path).expanduser()
    if not file.is_file():
        raise ModelError(f"{where}: there is no file {path}")
    return file


def _builtin(path: str, where: str) -> Path:
    """The folder of a model included in the package."""
    if path not in BUILTINS:
        raise ModelError(f"{where}: unknown {path!r}{among(path, BUILTINS)}")
    return Path(str(files("prunus.world").joinpath(path.removeprefix("builtin:"))))
