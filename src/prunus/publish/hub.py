"""A model's folder on the hub, in one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prunus.errors import HubError, RecipeError
from prunus.licences import front_matter, licence_named
from prunus.publish.files import Choice, choose_files

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
        return sum(file.stat().st_size for file in self.choice.going)


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
    choice = choose_files(folder)
    faults = [*choice.faults, *_faults_of_card(folder, repository)]
    if not any(file.suffix in (".safetensors", ".gguf", ".onnx") for file in choice.going):
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
        HubError: The hub does not take them, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="prunus")
    files = [CommitOperationAdd(str(file.relative_to(parcel.folder)), str(file)) for file in parcel.choice.going]
    try:
        api.create_repo(parcel.repository, private=not public, exist_ok=True)
        return str(api.create_commit(parcel.repository, files, commit_message=message).commit_url)
    except Exception as error:  # no network, no token, no right to it: the hub's client says which
        raise HubError(f"{parcel.repository}: the hub does not take it: {error}") from None
