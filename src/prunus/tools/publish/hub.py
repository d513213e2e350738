"""Uploading a model folder to the hub, in one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.errors import HubError, RecipeError
from prunus.keys import hide
from prunus.licences import front_matter, licence_named
from prunus.tools.publish.files import Choice, choose_files
from prunus.tools.publish.look import ScannedFile

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd  # takes half a second

_IN_MEMORY = 10 << 20  # files up to this many bytes may be sent to the hub directly, larger ones by digest
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Upload:
    """A folder prepared for upload: its repository, and its files."""

    folder: Path
    repository: str
    choice: Choice

    @property
    def nbytes(self) -> int:
        """The size of the files in bytes."""
        return sum(file.size for file in self.choice.uploaded)


def prepare_upload(folder: Path, repository: str) -> Upload:
    """Select the files, and refuse a folder that should not be published.

    Args:
        folder: The model folder.
        repository: Its name on the hub, such as `me/my-model`.

    Raises:
        RecipeError: The message lists all reasons.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise RecipeError(f"--to: {repository!r} is not a name on the hub; expected the form you/your-model")
    if not folder.is_dir():
        what = "is a file; put it into a folder with its README.md" if folder.is_file() else "there is no such folder"
        raise RecipeError(f"{folder}: {what}")
    try:
        choice = choose_files(folder)
    except OSError as error:
        raise RecipeError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from None
    faults = [*choice.faults, *_faults_of_card(folder, repository)]
    if not any(file.path.suffix in (".safetensors", ".gguf", ".onnx") for file in choice.uploaded):
        faults.append(f"{folder}: holds no model: no .safetensors, .gguf or .onnx")
    if faults:
        raise RecipeError(f"{folder} cannot be published:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Upload(folder, repository, choice)


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
            "README.md: its YAML names no license; add `license: ...`: the teacher's, or your choice if the teacher is "
            "yours"
        ]
    licence = licence_named(facts)
    name = repository.partition("/")[2]
    if not name.startswith(licence.prefix):
        return [f"--to: {name!r}: the {licence.title} requires a name that begins with {licence.prefix!r}"]
    return []


def send(upload: Upload, public: bool, message: str) -> str:
    """Create the repository if necessary, and upload the files in one commit.

    Args:
        upload: The prepared upload.
        public: Whether a new repository is public.
        message: The commit message.

    Returns:
        The URL of the commit.

    Raises:
        RecipeError: A file has changed since it was scanned.
        HubError: The hub refuses the upload, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="prunus")
    files = [_operation(file, upload.folder) for file in upload.choice.uploaded]
    try:
        api.create_repo(upload.repository, private=not public, exist_ok=True)
        return str(api.create_commit(upload.repository, files, commit_message=message).commit_url)
    except Exception as error:  # no network, no token, no access: the client's message says which
        raise HubError(f"{upload.repository}: the hub refuses the upload: {hide(str(error))}") from None


def _operation(file: ScannedFile, folder: Path) -> CommitOperationAdd:
    """The upload of a file, after a check that its digest is still that of the scan.

    A small file is sent from memory. The hub accepts a large one only with the digest that is compared here.
    """
    from huggingface_hub import CommitOperationAdd

    try:
        content = file.path.read_bytes() if file.size <= _IN_MEMORY else str(file.path)
        operation = CommitOperationAdd(str(file.path.relative_to(folder)), content)
    except OSError as error:
        raise RecipeError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    if operation.upload_info.sha256.hex() != file.sha256:
        raise RecipeError(f"{file.path}: has changed since it was scanned; nothing was sent")
    return operation
