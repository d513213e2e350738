"""The `prunus` command. It imports only the module of the given command, and never torch."""

from __future__ import annotations

import importlib
import io
import os
import sys

from prunus.errors import PrunusError, nearest
from prunus.keys import hide

COMMANDS = {
    "run": "carry out a recipe: correct, score, prune, distil, evaluate, report",
    "plan": "check a recipe and show its steps and their cost",
    "inspect": "show a model's shape, parameters, memory and FLOPs from its config and headers",
    "families": "list the families of models, and what works with each",
    "correct": "continue training a teacher on your text (teacher correction)",
    "score": "score the layers, channels, heads and neurons of a model",
    "search": "find the best shape under a budget, ranked after recovery",
    "prune": "prune a model to a student",
    "generate": "generate training text with the teacher",
    "distill": "distil a teacher into a student",
    "cutout": "write one size of a nest as a model folder",
    "align": "align a model: SFT, preference methods (RPO, DPO and others), online RL",
    "merge": "merge models of one shape: means, TIES, DARE, evolution",
    "evaluate": "evaluate a model on held-out text and tasks, paired with its teacher",
    "export": "export to GGUF, ONNX or torchao, and verify each file against the model",
    "convert": "convert a GGUF file to a Hugging Face folder, and verify it against the file",
    "extract": "write the text model inside a vision-language model as a folder of its own",
    "insert": "put a student of a text model back into the vision-language model that it is from",
    "report": "write the report of a run",
    "verify": "check the files of a run, or of one result, against their recorded checksums",
    "bench": "compare models in speed and memory: prompt processing, generation",
    "chat": "chat with a model in the terminal, or with two side by side",
    "serve": "serve a GGUF file on localhost (OpenAI-compatible API)",
    "publish": "show which files of a model would be published on the hub, and upload them",
}

_SPINS = "3000"
"""How often an OpenMP thread looks for the others before it sleeps. The default of 300,000 takes the core from the
thread that it waits for if other programs run, and leaves a tenth of the speed (docs/decisions/0009)."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, 2 for input that cannot be used, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"prunus {version('prunus')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}{nearest(name, COMMANDS)}\n\n{_usage()}", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    return _execute(name, rest)


def _execute(name: str, arguments: list[str]) -> int:
    try:
        importlib.import_module("prunus.cli.execute").execute(name, arguments)
    except PrunusError as error:
        print(f"error: {hide(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:  # such as a folder that is not writable, or a full disk
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished results are kept; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _usage() -> str:
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: prunus COMMAND [OPTIONS]",
            "",
            "Make a small language model out of a large one: prune it, distil it, measure it.",
            "",
            *lines,
            "",
            "prunus COMMAND --help lists its options. Start with: prunus run recipes/quickstart.yaml",
        ]
    )


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without these characters must not stop the command
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
