"""Commands for what becomes of a student: files for a device, speeds, talk, a server, and the hub."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.bench.config import BenchConfig
from prunus.chat.config import ChatConfig
from prunus.console import Console
from prunus.errors import RecipeError
from prunus.export.config import ExportConfig
from prunus.export.plan import check_export
from prunus.graph.integrity import check_artifact
from prunus.graph.steps import Given, Step, given_model
from prunus.pipeline.checks import check_runtime
from prunus.pipeline.machine import hardware
from prunus.pipeline.unpacking import gguf_file, unpacking
from prunus.runtime import Runtime
from prunus.show import show_parcel, show_speeds
from prunus.single import Flat, Single, Text, located
from prunus.unpack.config import UnpackConfig


@dataclass(kw_only=True)
class Export(Single):
    """Write a model as files that run on a device, and hold each against it: GGUF for llama.cpp."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model's folder, its id on the hub, or a GGUF file."""
    corpus: tuple[str, ...] = ()
    """Held-out text to measure the files on; without it they are held against the model on made-up tokens."""
    column: str = "text"
    """The column that holds the text."""
    config: Annotated[ExportConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        if not self.config.formats:
            raise RecipeError("--formats: names none; such as --formats gguf-q4_k_m")
        model = located(self.model)
        check_export(self.config, model.folder.path, {"--formats": model.folder.shape})
        inputs: dict[str, Step | Given] = {"model": given_model(model)}
        if self.corpus:
            inputs["tokens"] = Text(corpus=self.corpus, column=self.column).stream(model, "held_out", self.out)
        self.do(self.config, inputs, console)


@dataclass(kw_only=True)
class Convert(Single):
    """Make a plain Hugging Face folder out of a GGUF file, and hold the folder against the file in llama.cpp."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """The GGUF file; of a split one the first part."""
    config: Annotated[UnpackConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Do it."""
        check_runtime(self.runtime, [])
        self.do_all([unpacking(gguf_file(self.file, "FILE"), self.config, Path(self.out))], console)


@dataclass(kw_only=True)
class Publish:
    """Show what of a model's folder would go to the hub; with --upload, send it there in one commit."""

    folder: Annotated[Positional[str], arg(metavar="FOLDER")]
    """A model's folder with its card, such as the last one of a student."""
    to: str
    """The repository on the hub, such as `me/my-model`."""
    upload: bool = False
    """Send it. Without this nothing leaves the machine."""
    public: bool = False
    """Where the repository is made, make it public."""
    message: str = "Upload by Prunus"
    """The message of the commit."""

    def __call__(self, console: Console) -> None:
        """Choose, show, and send if asked to."""
        from prunus.publish.hub import make_parcel, send

        _check([self.folder], console)
        parcel = make_parcel(Path(self.folder), self.to)
        show_parcel(parcel, console)
        if self.upload:
            console.say(f"published: {send(parcel, self.public, self.message)}")
        else:
            console.say("nothing was sent; --upload sends it")


@dataclass(kw_only=True)
class Bench:
    """Time models side by side: how fast they read and write, the memory that they take, and ratios to the first."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="FOLDER_OR_GGUF...")]
    """Models' folders and GGUF files: the teacher first, then its students."""
    json: str | None = None
    """A file to write the figures to."""
    config: Annotated[BenchConfig, Flat]
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, console: Console) -> None:
        """Measure and show."""
        from prunus.bench.compare import compare

        if not self.models:
            raise RecipeError("which models? usage: prunus bench FOLDER_OR_GGUF...")
        _check(self.models, console)
        with tempfile.TemporaryDirectory() as place:
            rows = compare(self.models, self.config, self.runtime, Path(place), console)
        show_speeds(rows, console)
        if self.json is not None:
            facts = {"hardware": hardware(), **self.config.model_dump(), "models": rows}
            Path(self.json).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@dataclass(kw_only=True)
class Chat:
    """Talk to a model in the terminal, or to two that are asked the same, side by side."""

    model: Annotated[Positional[str], arg(metavar="FOLDER_OR_GGUF")]
    """A model's folder, which transformers runs, or a GGUF file, which llama.cpp runs."""
    second: Annotated[Positional[str | None], arg(metavar="SECOND")] = None
    """Another one, such as the teacher."""
    config: Annotated[ChatConfig, Flat]
    runtime: Runtime = field(default_factory=Runtime)

    def __call__(self, console: Console) -> None:
        """Talk until an empty line."""
        from prunus.chat.talk import HELP, talk
        from prunus.chat.voices import voice_of

        paths = [self.model, *([self.second] if self.second else [])]
        _check(paths, console)
        _look(paths, console)
        voices = [voice_of(path, self.config, self.runtime) for path in paths]
        console.say(HELP)
        talk(voices, self.config, _typed(), console)


@dataclass(kw_only=True)
class Serve:
    """Serve a GGUF file by llama.cpp's server, with OpenAI's interface, to this machine alone (loopback)."""

    file: Annotated[Positional[str], arg(metavar="GGUF")]
    """The file."""
    port: int = 8080
    """The port; 0 for any that is free."""
    context: int = 0
    """The longest conversation, in tokens; 0 for what the model was made for."""
    api_key: str | None = None
    """A key that programs must send (`Authorization: Bearer KEY`). PRUNUS_SERVE_KEY in the environment gives it too,
    out of sight of other users' process lists."""

    def __call__(self, console: Console) -> None:
        """Serve until it is interrupted."""
        from prunus.llamacpp.gate import Gate
        from prunus.llamacpp.server import start_server

        if not 0 <= self.port < 65536:
            raise RecipeError(f"--port: {self.port}; expected 0 to 65535")
        if self.context < 0:
            raise RecipeError(f"--context: {self.context}; expected 0 or more")
        key = self.api_key if self.api_key is not None else os.environ.get("PRUNUS_SERVE_KEY")
        if key is not None and not key.strip():
            raise RecipeError("--api-key or PRUNUS_SERVE_KEY: the key is empty")
        _check([self.file], console)
        gate = Gate(self.port, key)
        server = start_server(Path(self.file).expanduser(), self.context)
        _look([self.file], console)
        server.serve(gate)
        with_key = "with the key" if key is not None else "to any program of this machine"
        console.say(
            f"serving {self.file} at {gate.address} (OpenAI's interface: /v1), {with_key}, and to no web page of "
            "another site; Ctrl-C ends it"
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _check(paths: Sequence[str], console: Console) -> None:
    """Compare the files of finished results, and of those that GGUF files lie in, with their checksums.

    Raises:
        ArtifactError: One is damaged, or missing.
    """
    for path in (Path(path).expanduser() for path in paths):
        folder = path if path.is_dir() else path.parent
        if path.exists():
            check_artifact(folder, console)


def _look(paths: Sequence[str], console: Console) -> None:
    """Tell what can be known of the GGUF files among them, as `export` does of those that it writes."""
    from prunus.llamacpp.look import look_at

    for file in (Path(path).expanduser() for path in paths):
        if file.is_file():
            for line in look_at(file):
                console.warn(line)


def _typed() -> Iterator[str]:
    """What is typed, a line at a time, until there is no more."""
    while True:
        try:
            yield input("> ")
        except EOFError:
            return
