"""llama.cpp's server from the `xllamacpp` wheel: an OpenAI-compatible API, in this process and behind a gate."""

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
    """llama.cpp's server of one file; it serves until it is deleted.

    Attributes:
        native: xllamacpp's server; this process calls its `handle_chat_completions` and `handle_completions`.
        secret: The key that its port requires; it cannot be started without a port.
    """

    native: Any
    secret: str

    def serve(self, gate: Gate) -> None:
        """Serve the requests of a gate."""
        gate.open(self.native.listening_address, self.secret)


def start_server(file: Path, context: int, draft: Path | None = None, length: int = 0) -> Server:
    """Start a server of one GGUF file.

    Args:
        file: The file.
        context: The longest conversation, in tokens; 0 for the model's maximum.
        draft: A smaller model with the same tokens, which drafts for it (speculative decoding).
        length: Tokens that the draft proposes at a time, at most.

    Raises:
        RecipeError: The wheel is not installed, or the file does not exist.
        ModelError: It is not a GGUF file, or llama.cpp does not load it.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise RecipeError("xllamacpp, which runs GGUF files, is not installed; `pip install 'prunus[gguf]'`")
    if file.is_dir():
        raise RecipeError(
            f"{file}: a folder, expected a GGUF file; `prunus export {file} --formats gguf-f16` converts a model folder"
        )
    if not file.is_file():
        raise RecipeError(f"{file}: file not found")
    read_header(file)
    import xllamacpp

    secret = secrets.token_urlsafe(32)

    options = xllamacpp.CommonParams()
    options.model.path = str(file)
    options.hostnames, options.port, options.api_keys = [LOOPBACK], 0, [secret]
    options.n_ctx, options.n_parallel, options.verbosity, options.warmup = context, 1, 0, False
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = ggml.workers()
    options.endpoint_metrics = True
    if draft is not None:
        options.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        small = options.speculative.draft
        small.mparams.path, small.n_max, small.n_min, small.p_min = str(draft), length, 0, 0.0
        small.cpuparams.n_threads = small.cpuparams_batch.n_threads = ggml.workers()
    try:
        native = xllamacpp.Server(options)
    except Exception as error:  # its message has no details
        raise ModelError(f"{file}: llama.cpp does not load it: {error}") from None
    native.handle_metrics()  # waits until its loop runs: closing the server before that would hang
    return Server(native, secret)
