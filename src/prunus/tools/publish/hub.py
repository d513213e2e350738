"""A model's folder on the hub, in one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.errors import HubError, RecipeError
from prunus.keys import hide
from prunus.licences import front_matter, licence_named
from prunus.tools.publish.files import Choice, choose_files
from prunus.tools.publish.look import Looked

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd  # takes half a second

_IN_MEMORY = 10 << 20  # bytes of a file that the hub may take as it is, and not by its digest
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Parcel:
    """A folder made ready: where it goes, and what of it."""

    folder: Path
    repository: str
    choice: Choice

    @property
    def nbytes(self) -> int:
        """The size of what goes."""
        return sum(file.size for file in self.choice.going)


def make_parcel(folder: Path, repository: str) -> Parcel:
    """Choose the files, and refuse what should not be published as it is.

    Args:
        folder: The model's.
        repository: Such as `me/my-model`.

    Raises:
        RecipeError: Says everything that is in the way.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--to: {repository!r} is no name on the hub; it is of the form you/your-model")
    if not folder.is_dir():
        what = "is a file; put it into a folder with its README.md" if folder.is_file() else "there is no such folder"
        raise RecipeError(f"{folder}: {what}")
    try:
        choice = choose_files(folder)
    except OSError as error:
        raise RecipeError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    faults = [*choice.faults, *_faults_of_card(folder, repository)]
    if not any(file.path.suffix in (".safetensors", ".gguf", ".onnx") for file in choice.going):
        faults.append(f"{folder}: holds no model: no .safetensors, .gguf or .onnx")
    if faults:
        raise RecipeError(f"{folder} does not go to the hub as it is:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Parcel(folder, repository, choice)


def _faults_of_card(folder: Path, repository: str) -> list[str]:
    card = folder / "README.md"
    if not card.is_file():
        return ["README.md: missing; `prunus report RUN` writes the card of every student of a run"]
    try:
        facts = front_matter(card)
    except RecipeError as error:
        return [str(error)]
    if not facts.get("license"):
        return [
            "README.md: its YAML names no license; write `license: ...` there: the teacher's, or one of your own where "
            "the teacher is yours"
        ]
    licence = licence_named(facts)
    name = repository.partition("/")[2]
    if not name.startswith(licence.prefix):
        return [f"--to: {name!r}: the {licence.title} asks that its name begin with {licence.prefix!r}"]
    return []


def send(parcel: Parcel, public: bool, message: str) -> str:
    """Make the repository where there is none, and put the files into it in one commit.

    Args:
        parcel: What goes.
        public: Whether a repository that is made is public.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        RecipeError: A file is not any more what was looked through.
        HubError: The hub does not take them, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="prunus")
    files = [_operation(file, parcel.folder) for file in parcel.choice.going]
    try:
        api.create_repo(parcel.repository, private=not public, exist_ok=True)
        return str(api.create_commit(parcel.repository, files, commit_message=message).commit_url)
    except Exception as error:  # no network, no token, no right to it: the hub's client says which
        raise HubError(f"{parcel.repository}: the hub does not take it: {hide(str(error))}") from None


def _operation(file: Looked, folder: Path) -> CommitOperationAdd:
    """A file as the hub's client sends it, with the digest that it had when it was looked through.

    A small file is sent from memory. The hub takes a large one only by the digest that is compared here.
    """
    from huggingface_hub import CommitOperationAdd

    try:
        content = file.path.read_bytes() if file.size <= _IN_MEMORY else str(file.path)
        operation = CommitOperationAdd(str(file.path.relative_to(folder)), content)
    except OSError as error:
        raise RecipeError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    if operation.upload_info.sha256.hex() != file.sha256:
        raise RecipeError(f"{file.path}: has changed since it was looked through; nothing was sent")
    return operation
