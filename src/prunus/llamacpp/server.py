"""llama.cpp's server, as the `xllamacpp` wheel brings it: OpenAI's interface on loopback, and in this process."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

from prunus.errors import ModelError, RecipeError
from prunus.llamacpp import ggml
from prunus.llamacpp.header import read_header

LOOPBACK = "127.0.0.1"


def start_server(file: Path, context: int, port: int = 0) -> Any:
    """Start a server of one GGUF file; it serves until the object is let go of.

    Args:
        file: The file.
        context: The longest conversation, in tokens; 0 for what the model was made for.
        port: On loopback; 0 for any that is free.

    Returns:
        The server: `listening_address`, `handle_chat_completions`, `handle_completions`.

    Raises:
        RecipeError: The wheel is not installed, there is no such file, or the port is taken.
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
    if port:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((LOOPBACK, port))
            except OSError as error:
                raise RecipeError(f"--port: {port} cannot be had: {error.strerror}") from None
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = str(file)
    options.hostnames, options.port = [LOOPBACK], port
    options.n_ctx, options.n_parallel, options.verbosity, options.warmup = context, 1, 0, False
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = ggml.workers()
    try:
        return xllamacpp.Server(options)
    except Exception as error:  # it says no more than that it failed
        raise ModelError(f"{file}: llama.cpp does not load it: {error}") from None
