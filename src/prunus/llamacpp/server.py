"""llama.cpp's server, as the `xllamacpp` wheel brings it: OpenAI's interface, in this process and behind a gate."""

from __future__ import annotations

import importlib.util
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, RecipeError
from prunus.llamacpp import ggml
from prunus.llamacpp.gate import LOOPBACK, Gate
from prunus.llamacpp.header import read_header


@dataclass(frozen=True)
class Server:
    """llama.cpp's server of one file; it serves until it is let go of.

    Attributes:
        native: xllamacpp's server: `handle_chat_completions` and `handle_completions` ask it from this process.
        secret: The key that it asks for on its port, which it cannot be started without.
    """

    native: Any
    secret: str

    def serve(self, gate: Gate) -> None:
        """Answer whoever asks at a gate."""
        gate.open(self.native.listening_address, self.secret)


def start_server(file: Path, context: int) -> Server:
    """Start a server of one GGUF file.

    Args:
        file: The file.
        context: The longest conversation, in tokens; 0 for what the model was made for.

    Raises:
        RecipeError: The wheel is not installed, or there is no such file.
        ModelError: It is no GGUF file, or llama.cpp does not load it.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise RecipeError("xllamacpp, which runs GGUF files, is not installed; `pip install 'prunus[gguf]'` brings it")
    if file.is_dir():
        raise RecipeError(
            f"{file}: a folder; `prunus export {file} --formats gguf-f16` makes a file of a model's folder"
        )
    if not file.is_file():
        raise RecipeError(f"{file}: there is no such file")
    read_header(file)
    import xllamacpp

    secret = secrets.token_urlsafe(32)

    options = xllamacpp.CommonParams()
    options.model.path = str(file)
    options.hostnames, options.port, options.api_keys = [LOOPBACK], 0, [secret]
    options.n_ctx, options.n_parallel, options.verbosity, options.warmup = context, 1, 0, False
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = ggml.workers()
    options.endpoint_metrics = True
    try:
        native = xllamacpp.Server(options)
    except Exception as error:  # it says no more than that it failed
        raise ModelError(f"{file}: llama.cpp does not load it: {error}") from None
    native.handle_metrics()  # its loop answers: closed before that has started, the server would wait for it for ever
    return Server(native, secret)
