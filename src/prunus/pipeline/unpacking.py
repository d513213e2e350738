"""GGUF files in place of model folders: unpacked once into a cache, as a model of the hub is downloaded once."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from prunus import distributed
from prunus.console import Console
from prunus.errors import ModelError
from prunus.files import cache_folder, read_cache, read_object, write_cache
from prunus.fingerprint import digest
from prunus.graph.steps import Given, Step
from prunus.llamacpp.reading import read_gguf
from prunus.models.folder import ModelFolder
from prunus.models.locate import Located, locate_model
from prunus.pipeline.extracting import text_of
from prunus.pipeline.run import execute
from prunus.runtime import Runtime
from prunus.steps.unpack.config import UnpackConfig
from prunus.steps.unpack.origin import ORIGIN
from prunus.steps.unpack.step import content_of

ENDING = ".gguf"
_CACHE = "known.json"
_FRESH_NS = 100_000_000  # a file may change again within one tick of the file system's clock
_NAME = 60  # characters of the file's name in the folder's name


def find_model(path: str, revision: str | None, where: str, weights: bool = True) -> Located:
    """Find a model by `locate_model`, extract the text model of one of several parts, or unpack a GGUF file.

    Args:
        path: As in `locate_model`; or a file that ends in `.gguf`.
        revision: The commit on the hub; a file has none.
        where: The name of the option, such as `teacher.path`, for messages.
        weights: False unpacks only config and tokenizer of a file, which is enough to plan.

    Raises:
        ModelError: It does not exist, or cannot be used.
        HubError: It is not local, and the hub does not provide it.
        RecipeError: The `gguf` package is not installed.
    """
    if not path.endswith(ENDING):
        return text_of(locate_model(path, revision, where, weights), where, weights)
    file = gguf_file(path, where)
    if revision is not None:
        raise ModelError(f"{where}: {path} is a file, so revision {revision!r:.40} does not apply; remove it")
    whole = unpacking(file, UnpackConfig(check=False))
    source = f"{file.name}@{whole.fingerprint}"
    if whole.artifact.record is not None and whole.artifact.is_done():
        return Located(ModelFolder(whole.value), source)
    step = whole if weights else unpacking(file, UnpackConfig(check=False, weights=False))
    console = Console(quiet=not weights or distributed.rank() > 0)
    console.say(f"{where}: unpacking {file.name} (once), into {whole.value}")
    return Located(ModelFolder(execute(step, Runtime(), console)), source)


def origin_in(path: str | None) -> dict[str, Any]:
    """Metadata and digest of the GGUF file that a model comes from; empty if it comes from none."""
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
    return Step("gguf", name, config, {"file": Given(file, cached_digest(file))}, cache_folder(), out)


def cached_digest(path: Path) -> str:
    """A digest of a file's content, computed again only if its size, times or inode have changed.

    Raises:
        ModelError: It is not a GGUF file.
    """
    file = read_gguf(path)
    stamps = [_stamp(part) for part in file.files]
    cache_file = cache_folder() / "gguf" / _CACHE
    known = read_cache(cache_file)
    name = digest(str(path.resolve()))[:16]
    entry = known.get(name)
    if isinstance(entry, list) and len(entry) == 2 and entry[1] == stamps and isinstance(entry[0], str):
        return entry[0]
    read_at, content = time.time_ns(), content_of(file)
    if all(max(stamp[1:3]) < read_at - _FRESH_NS for stamp in stamps):
        write_cache(cache_file, {**known, name: [content, stamps]})
    return content


def _stamp(file: Path) -> list[int]:
    """Size, modification time and inode change time (both in ns), and inode number."""
    facts = file.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
