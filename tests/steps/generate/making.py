"""What the tests of generation share: a stream, a teacher that can chat, and the step in one call."""

import json
import shutil
from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.runtime import Runtime
from prunus.steps.generate.config import GenerateConfig
from prunus.steps.generate.step import Inputs, run

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "<s>{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
QUIET = Console(quiet=True)


def make_stream(tokenizer: Path, text: Path, out: Path) -> Path:
    out.mkdir(parents=True)
    tokenise(TokensConfig(), DataInputs((Source(path=str(text)),), tokenizer), out, Runtime(), QUIET)
    return out


def with_template(teacher: Path, out: Path) -> Path:
    folder = shutil.copytree(teacher, out)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def generate(model: Path, out: Path, stream: Path | None = None, batch: int = 3, **options: Any) -> list[dict]:
    """Run the step and return the lines of what it wrote."""
    out.mkdir(parents=True, exist_ok=True)
    config = GenerateConfig(**{"samples": 8, "prompt_tokens": 6, "max_new_tokens": 10, "temperature": 0, **options})
    run(config, Inputs(model, stream, config.prompts), out, Runtime(device_batch_size=batch), QUIET)
    return lines(out)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "generated.jsonl").read_text(encoding="utf-8").splitlines()]


def write_rows(file: Path, *values: Any, column: str = "messages") -> Path:
    file.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    return file
