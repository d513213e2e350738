"""Guides: their recipes can be planned, and their commands have the flags that are written."""

import json
import math
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from docs.site.options import sections
from docs.site.outside import ROOT

from prunus.config import parse
from prunus.gguf import writer
from prunus.models.families.table import FAMILIES
from prunus.models.shape import Shape
from prunus.pipeline.plan import make_plan
from prunus.pipeline.planned import Plan
from prunus.pipeline.recipe import Recipe
from tests.conftest import write_documents
from tests.steps.unpack.files import file_of
from tests.tiny import save_tokenizer

GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
FLAGS = json.loads((ROOT / "tests/golden/flags.json").read_text())
OF_RECIPES = {"--out", "--dry-run"} | {
    f"--{section.name}.{option}".replace("_", "-") for section in sections() for option in section.cls.model_fields
}
LLAMA_3B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192,
    "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": True, "dtype": "bfloat16",
}  # fmt: skip
SMOLLM2 = LLAMA_3B | {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 300, "max_position_embeddings": 8192,
}  # fmt: skip


def recipe(guide: str) -> dict:
    (text,) = re.findall(r"```yaml\n(teacher:.*?)```", (ROOT / "docs/guides" / guide).read_text(), re.DOTALL)
    return yaml.safe_load(text)


def planned(guide: str, teacher: dict | str) -> Plan:
    """The plan of a guide's recipe, in the current folder, of a teacher that has the sizes that the guide names."""
    write_documents(Path("text.jsonl"), 200, seed=1)
    row = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}]}
    Path("conversations.jsonl").write_text(f"{json.dumps(row)}\n" * 8)
    raw = {"name": "recipe", **recipe(guide), "teacher": teacher}
    return make_plan(parse(Recipe, raw, guide), Path("runs/recipe"), preview=True)


def from_the_hub(guide: str) -> Plan:
    Path("config.json").write_text(json.dumps(LLAMA_3B))
    return planned(guide, {"path": recipe(guide)["teacher"], "config": "config.json"})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def empty_checkpoint(folder: Path, config: dict) -> Path:
    """A model's folder whose weights are a hole of a file."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_tokenizer(folder, config["vocab_size"])
    header, end = {}, 0
    for name, sizes in Shape.from_config(config, FAMILIES["llama"], "test").tensors():
        nbytes = 2 * math.prod(sizes)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + end)
    return folder


def test_the_guide_to_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    folder = empty_checkpoint(tmp_path / "model", SMOLLM2)
    zeros = lambda tensor, kind, *_: iter([np.zeros(writer.tensor_bytes(tensor, kind), np.uint8)])  # noqa: E731
    monkeypatch.setattr(writer, "_encoded", zeros)
    plan = planned("gguf.md", str(file_of(folder, tmp_path / recipe("gguf.md")["teacher"], "gguf-q4_0")))
    assert plan.teacher.num_hidden_layers == 30
    assert plan.students["depth"].num_hidden_layers == 20
    assert plan.students["width"].hidden_size == 480


def test_the_guide_to_one_gpu_makes_half() -> None:
    plan = from_the_hub("one-gpu.md")
    share = plan.students["half"].non_embedding_parameters / plan.teacher.non_embedding_parameters
    assert share == pytest.approx(0.5, abs=0.02)
    assert "half export" in [step.name for step in plan.steps]


def test_the_guide_to_a_phone_searches() -> None:
    plan = from_the_hub("phone.md")
    assert plan.waiting == ("phone",)
    assert [step.kind for step in plan.steps if step.subject == "search"] == ["search"]


def test_the_guide_to_vision_language_models() -> None:
    text = {
        **SMOLLM2, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 2560,
        "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "sliding_window": 1024, "query_pre_attn_scalar": 256,
    }  # fmt: skip
    Path("config.json").write_text(json.dumps(text))
    guide = "vision-language.md"
    plan = planned(guide, {"path": recipe(guide)["teacher"], "config": "config.json"})
    share = plan.students["half"].non_embedding_parameters / plan.teacher.non_embedding_parameters
    assert share == pytest.approx(0.5, abs=0.05)


PAGES = {page.stem: re.sub(r" \\\n\s*", " ", page.read_text()) for page in GUIDES}
"""The guides, with continued lines as one."""


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_commands_have_the_flags_that_are_written(page: Path) -> None:
    for name, rest in re.findall(r"^(?: {4}|srun ).*?\bprunus ([a-z]+) (.*)$", PAGES[page.stem], flags=re.MULTILINE):
        flags = set(re.findall(r"(?<!\S)--[a-z][a-z0-9.-]*", rest.partition("#")[0]))
        assert flags <= set(FLAGS[name]) | (OF_RECIPES if name in ("run", "plan") else set())


def launches(launcher: str) -> list[list[str]]:
    """The arguments of each line of the guides that starts processes."""
    lines = re.findall(rf"\b{launcher} (.*prunus run.*?)'?$", PAGES["cluster"], flags=re.MULTILINE)
    assert len(lines) >= 2
    return [shlex.split(line) for line in lines]


def test_torchrun_takes_the_flags_that_are_written() -> None:
    from torch.distributed.run import get_args_parser

    for words in launches("torchrun"):
        known = get_args_parser().parse_args([word.replace("$SLURM_NNODES", "4") for word in words])
        assert (known.module, known.training_script) == (True, "prunus")
        assert known.training_script_args[:2] == ["run", "recipe.yaml"]


def test_accelerate_takes_the_flags_that_are_written() -> None:
    from accelerate.commands.launch import launch_command_parser

    for words in launches("accelerate launch"):
        numbers = [re.sub(r"\$\(\(.*\)\)|\$SLURM_\w+", "4", word) for word in words]
        known = launch_command_parser().parse_args(numbers)
        assert (known.module, known.training_script) == (True, "prunus")


@pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts are bash's")
def test_scripts_can_be_parsed() -> None:
    scripts = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/guides/cluster.md").read_text(), re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
