"""The command `serve`: serve a GGUF file on this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.checks import check_recorded, warn_about_files
from prunus.console import Console
from prunus.errors import RecipeError


@dataclass(kw_only=True)
class Serve:
    """Serve a GGUF file with llama.cpp's server and an OpenAI-compatible API, on localhost only."""

    file: Annotated[Positional[str], arg(metavar="GGUF")]
    """GGUF file."""
    port: int = 8080
    """Port. 0: any free one."""
    context: int = 0
    """Context length, in tokens. 0: the model's maximum."""
    api_key: str | None = None
    """API key that clients must send (`Authorization: Bearer KEY`). Can also be set as PRUNUS_SERVE_KEY in the
    environment, which keeps it out of process lists."""

    def __call__(self, console: Console) -> None:
        """Serve until interrupted."""
        from prunus.llamacpp.gate import Gate
        from prunus.llamacpp.server import start_server

        if not 0 <= self.port < 65536:
            raise RecipeError(f"--port: {self.port}; expected 0 to 65535")
        if self.context < 0:
            raise RecipeError(f"--context: {self.context}; expected 0 or more")
        key = self.api_key if self.api_key is not None else os.environ.get("PRUNUS_SERVE_KEY")
        if key is not None and not key.strip():
            raise RecipeError("--api-key or PRUNUS_SERVE_KEY: the key is empty")
        check_recorded([self.file], console)
        gate = Gate(self.port, key)
        server = start_server(Path(self.file).expanduser(), self.context)
        warn_about_files([self.file], console)
        server.serve(gate)
        clients = "clients need the key" if key is not None else "any program on this machine may connect"
        console.say(
            f"serving {self.file} at {gate.address} (OpenAI's interface: /v1); {clients}, web pages of other sites "
            "may not; press Ctrl-C to stop"
        )
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
