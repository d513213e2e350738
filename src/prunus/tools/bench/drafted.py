"""A GGUF file in llama.cpp with a draft model, timed in a child process: speculative decoding, greedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunus.errors import ModelError
from prunus.llamacpp.server import start_server
from prunus.tools.bench.written import Written
from prunus.worker import Child, serve


class Drafted(Child):
    """A GGUF file and its draft in llama.cpp's server, in a child process, while the context is open.

    Args:
        file: The model.
        draft: The draft; None for the model alone.
        length: Tokens that the draft proposes at a time, at most.
        context: The longest text, in tokens.
    """

    def __init__(self, file: Path, draft: Path | None, length: int, context: int) -> None:
        super().__init__("prunus.tools.bench.drafted", file.name, file, draft, length, context)


class TimedServer:
    """The server in the child process."""

    def __init__(self, file: Path, draft: Path | None, length: int, context: int) -> None:
        self.name = file.name
        self.server = start_server(file, context, draft, length).native

    def write(self, prompt: Sequence[int], count: int) -> Written:
        """Greedy decoding of `count` tokens after a prompt, which is not part of the time."""
        answer = self.server.handle_completions({
            "prompt": list(prompt), "n_predict": count, "temperature": 0, "ignore_eos": True, "cache_prompt": False,
        })  # fmt: skip
        if "error" in answer:
            raise ModelError(
                f"{self.name}: llama.cpp does not answer: {answer['error'].get('message', answer['error'])}"
            )
        times = answer["timings"]
        tokens, accepted = times["predicted_n"], times.get("draft_n_accepted", 0)
        text = answer["choices"][0]["text"]
        return Written(text, tokens, times["predicted_ms"] / 1000, tokens - accepted, times.get("draft_n", 0))


if __name__ == "__main__":
    serve(TimedServer)
