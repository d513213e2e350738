"""A GGUF file wherever a model may be named: unpacked once into a cache, as a model of the hub is fetched once."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.console import Console
from prunus.errors import ArtifactError, ModelError
from prunus.files import read_object, replace_json
from prunus.fingerprint import digest
from prunus.graph.steps import Given, Step
from prunus.llamacpp.reading import read_gguf
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located, locate_model
from prunus.pipeline.run import execute
from prunus.runtime import Runtime
from prunus.steps.unpack.config import UnpackConfig
from prunus.steps.unpack.origin import ORIGIN
from prunus.steps.unpack.step import content_of

ENDING = ".gguf"
_MEMORY = "known.json"
_FRESH_NS = 100_000_000  # a file may change again within one tick of the file system's clock
_NAME = 60  # characters of a file's name that a folder's has


def find_model(path: str, revision: str | None, where: str, weights: bool = True) -> Located:
    """Find a model as `locate_model` does, or in a GGUF file.

    Args:
        path: As of `locate_model`; or a file that ends in `.gguf`.
        revision: The commit on the hub; a file has none.
        where: The name of the option, such as `teacher.path`, for messages.
        weights: False takes config and tokenizer alone out of a file: enough to plan.

    Raises:
        ModelError: It is not there, or cannot be used.
        HubError: It is not here, and the hub does not give it.
        RecipeError: The `gguf` package is not installed.
    """
    if not path.endswith(ENDING):
        return locate_model(path, revision, where, weights)
    file = gguf_file(path, where)
    if revision is not None:
        raise ModelError(f"{where}: {path} is a file, and has no revision {revision!r:.40}; leave it out")
    whole = unpacking(file, UnpackConfig(check=False))
    source = f"{file.name}@{whole.fingerprint}"
    if whole.artifact.record is not None and whole.artifact.is_done():
        return Located(ModelFolder(whole.value), source)
    step = whole if weights else unpacking(file, UnpackConfig(check=False, weights=False))
    console = Console(quiet=not weights or distributed.rank() > 0)
    console.say(f"{where}: {file.name} is unpacked once, into {whole.value}")
    return Located(ModelFolder(execute(step, Runtime(), console)), source)


def origin_in(path: str | None) -> dict[str, Any]:
    """What a GGUF file says of itself, its digest too, where a model was found in one; else nothing."""
    if path is None or not path.endswith(ENDING):
        return {}
    return read_object(find_model(path, None, "teacher.path", weights=False).folder.path / ORIGIN, ModelError)


def gguf_file(path: str, where: str) -> Path:
    """The file that a path names.

    Raises:
        ModelError: There is none.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise ModelError(f"{where}: {path} is a folder; expected a GGUF file")
    if not file.is_file():
        raise ModelError(f"{where}: there is no file {path}")
    return file


def unpacking(file: Path, config: UnpackConfig, out: Path | None = None) -> Step:
    """The step that unpacks a file: into a folder, or into the cache."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.name.removesuffix(ENDING))[:_NAME].strip("-.") or "model"
    return Step("gguf", name, config, {"file": Given(file, known_content(file))}, cache(), out)


def cache() -> Path:
    """Where results lie that any run may use: `prunus` in `XDG_CACHE_HOME`, which is `~/.cache` if not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunus"


def known_content(path: Path) -> str:
    """A digest of a file's content, read anew only when its size, its times or its place on the disk have changed.

    Raises:
        ModelError: It is no GGUF file.
    """
    file = read_gguf(path)
    stamps = [_stamp(part) for part in file.files]
    memory = cache() / "gguf" / _MEMORY
    known: dict[str, Any] = {}
    with suppress(ArtifactError):  # a memory that is damaged is none
        known = read_object(memory, ArtifactError) if memory.is_file() else {}
    name = digest(str(path.resolve()))[:16]
    found = known.get(name)
    if isinstance(found, list) and len(found) == 2 and found[1] == stamps and isinstance(found[0], str):
        return found[0]
    read_at, content = time.time_ns(), content_of(file)
    if all(max(stamp[1:3]) < read_at - _FRESH_NS for stamp in stamps):
        with suppress(OSError):  # where nothing can be written, nothing is remembered
            memory.parent.mkdir(parents=True, exist_ok=True)
            replace_json(memory, {**known, name: [content, stamps]})
    return content


def _stamp(file: Path) -> list[int]:
    """Size, time of the content, time of the inode (both in ns) and number of the inode."""
    facts = file.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
