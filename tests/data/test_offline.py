"""Local files are read without a word to anybody outside, also where Prunus is a library."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.recipes import tiny_recipe

pytestmark = pytest.mark.processes

SCRIPT = """
import json, socket, sys
from pathlib import Path

calls = []

def refuse(*args, **options):
    calls.append(repr(args))
    raise OSError("no network in this test")

socket.getaddrinfo = socket.create_connection = socket.gethostbyname = refuse
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse

from prunus import Console, Recipe, Runtime, make_plan
from prunus.data.step import Inputs, run

recipe, out, chats = Recipe.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
plan = make_plan(recipe, out)
step = plan.steps[0]
(out / "data").mkdir(parents=True)
inputs = Inputs(step.inputs["sources"].value, Path(recipe.teacher.path))
run(step.config, inputs, out / "data", Runtime(), Console(quiet=True))
from prunus.data.chat import conversations
from prunus.data.config import ChatSource
assert len(list(conversations(ChatSource(path=chats), "x"))) == 1
import time; time.sleep(0.2)  # whoever counts loads does so in a thread
print(json.dumps(calls))
"""


def test_a_plan_and_a_data_step_on_local_files_look_up_no_host(
    teacher: Path, corpus: Path, held_out: Path, tmp_path: Path
) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    recipe = json.dumps(tiny_recipe(teacher, corpus, held_out))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, recipe, str(tmp_path / "run"), str(chats)],
        capture_output=True, text=True, env={**environment, "HF_HOME": str(tmp_path / "home")}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
