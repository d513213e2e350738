"""Commands in processes of their own, forked from a server that has loaded torch and transformers once.

A fresh interpreter takes seconds to load them. A test starts one itself where that is what it tests: what is imported,
the locale, a launcher such as torchrun.
"""

import gc
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from multiprocessing import connection
from pathlib import Path
from subprocess import CompletedProcess

from prunus.cli.main import entry

SECONDS = 300.0
"""The longest that a command may take."""

_GRACE_SECONDS = 20.0  # for the other processes, once one has failed
_LOADED = ("prunus.pipeline.run", "prunus.pipeline.search.step", "prunus.training.loop", "prunus.steps.evaluate.step")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(_LOADED))


class Command:
    """A command of Prunus at work, in one process or in several that meet as under torchrun.

    Args:
        words: What follows `prunus` on the command line.
        count: How many processes.
    """

    def __init__(self, words: list[str], count: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        self.words = words
        port = str(_free_port())
        self.processes = []
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
            meeting = {**own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if count > 1 else {}
            arguments = (words, {**os.environ, **meeting, "OMP_NUM_THREADS": "1"}, Path.cwd(), self._outputs)
            self.processes.append(_CONTEXT.Process(target=_enter, args=arguments, daemon=True))
            self.processes[-1].start()

    def output(self) -> tuple[str, str]:
        """What has been written to stdout and to stderr until now, by all processes."""
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in self._outputs)
        return out, err

    def wait(self) -> "CompletedProcess[str]":
        """Wait for the end. The exit code is that of the first process with one that is not 0."""
        try:
            self._join()
        finally:
            for process in self.processes:
                process.kill()
                process.join()
        codes = [process.exitcode for process in self.processes]
        done = CompletedProcess(self.words, next((code for code in codes if code), 0), *self.output())
        self._folder.cleanup()
        return done

    def _join(self) -> None:
        until = time.monotonic() + SECONDS
        pending = {process.sentinel: process for process in self.processes}
        while pending:
            ended = connection.wait(list(pending), timeout=until - time.monotonic())
            assert ended, f"prunus {' '.join(self.words)}: no end after {SECONDS:.0f} s\n{self.output()[1][-3000:]}"
            for sentinel in ended:
                pending.pop(sentinel).join()
            if any(process.exitcode for process in self.processes):
                until = min(until, time.monotonic() + _GRACE_SECONDS)
                if pending and not connection.wait(list(pending), timeout=until - time.monotonic()):
                    return


def prunus(*words: object) -> "CompletedProcess[str]":
    """Run a command to its end, whatever its exit code."""
    return Command([str(word) for word in words]).wait()


def together(words: list[str], count: int = 2) -> None:
    """Run a command by several processes that share its work, and expect exit code 0."""
    done = Command(words, count).wait()
    assert done.returncode == 0, done.stderr[-4000:]


def _enter(words: list[str], environment: dict[str, str], folder: Path, outputs: list[Path]) -> None:
    gc.freeze()  # what the server has loaded is never garbage
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(outputs, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["prunus", *words]
    entry()


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]
