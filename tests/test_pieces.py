"""Files do not hang on how much of a tensor is read, turned and written at a time."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from safetensors.torch import load_file

from prunus.console import Console
from prunus.fingerprint import checksum
from prunus.llamacpp.reading import read_gguf
from prunus.models.checkpoint import WEIGHTS, TensorInfo, same_bytes
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.expand.config import ExpandConfig
from prunus.steps.expand.step import Inputs as ExpandInputs
from prunus.steps.expand.step import run as run_expand
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as run_prune
from prunus.steps.unpack.settings import settings_of
from prunus.steps.unpack.widened import write_widened
from tests.families import make_teacher
from tests.pieces import in_pieces
from tests.steps.merge.test_step import merge
from tests.steps.prune.test_families import score
from tests.steps.unpack.files import file_of, folder_of, rewritten
from tests.tiny import load, make_model

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

SIZES = {"less than a row": 20, "some rows": 300, "as usual": None}  # which is more than any of these tensors
QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Sources:
    """What files are made from.

    Attributes:
        teacher: A model.
        second: One with other weights.
        scores: The first one's.
        tokens: A corpus.
        file: The first one as a GGUF file.
    """

    teacher: Path
    second: Path
    scores: Path
    tokens: Path
    file: Path


@pytest.fixture(scope="module")
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """All of them for a family; `bfloat16` is a Llama."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "bfloat16":
        teacher = make_model(root / "teacher", dtype=torch.bfloat16)
    else:
        teacher = make_teacher(root / "teacher", request.param)
    second = shutil.copytree(teacher, root / "second")
    model = load(teacher)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.save_pretrained(second)
    return Sources(teacher, second, score(teacher, root), root / "tokens", file_of(teacher, root / "model.gguf"))


def prune(sources: Sources, out: Path, **options: Any) -> None:
    out.mkdir()
    tokens = sources.tokens if "vocab_size" in options else None
    config = PruneConfig(**{"method": "minitron", **options})
    run_prune(config, PruneInputs(sources.teacher, sources.scores, tokens), out, Runtime(), QUIET)


def expand(sources: Sources, out: Path, **options: Any) -> None:
    out.mkdir()
    run_expand(ExpandConfig(**options), ExpandInputs(sources.teacher), out, Runtime(), QUIET)


def widen(sources: Sources, out: Path) -> None:
    out.mkdir()
    write_widened(
        read_gguf(sources.file), out / "wide.gguf", "float16", ModelFolder(sources.teacher).family.gain_offset
    )


def export(sources: Sources, out: Path, format_name: str) -> None:
    out.mkdir()
    file_of(sources.teacher, out / "model.gguf", format_name)


Maker = Callable[[Sources, Path], Any]
MAKERS: dict[str, Maker] = {
    "cut": lambda sources, out: prune(sources, out, hidden_size=24, intermediate_size=14, num_hidden_layers=3),
    "cut of heads": lambda sources, out: prune(sources, out, num_attention_heads=4, head_residual=0.5),
    "cut of head dimensions": lambda sources, out: prune(sources, out, hidden_size=24, head_dim=2),
    "cut of words": lambda sources, out: prune(sources, out, vocab_size=280),
    "rotated cut": lambda sources, out: prune(
        sources, out, method="rotate", hidden_size=24, intermediate_size=14, head_dim=2
    ),
    "larger model": lambda sources, out: expand(sources, out, num_hidden_layers=6, intermediate_size=64),
    "merged model": lambda sources, out: merge(out, [sources.teacher, sources.second], weights=[1, 2]),
    "merged path": lambda sources, out: merge(
        out,
        [sources.teacher, sources.second],
        method="flow",
        flow={"layers": ["0:0-1", "1:1-3"], "scales": [1, 0.5, 1, 0.3, 1]},
    ),
    "float32 file": lambda sources, out: export(sources, out, "gguf-f32"),
    "float16 file": lambda sources, out: export(sources, out, "gguf-f16"),
    "bfloat16 file": lambda sources, out: export(sources, out, "gguf-bf16"),
    "8 bit file": lambda sources, out: export(sources, out, "gguf-q8_0"),
    "folder of a file": lambda sources, out: folder_of(sources.file, out),
    "bfloat16 folder of a file": lambda sources, out: folder_of(sources.file, out, dtype="bfloat16"),
    "widened file": widen,
}


KINDS = ("llama", "bfloat16", "gpt2", "phi3", "gemma3_text", "qwen3_moe")
LACKING = {
    "bfloat16": ("rotated cut",),
    "gpt2": ("rotated cut", "cut of head dimensions"),
    "gemma3_text": ("rotated cut",),
}
"""What a family cannot be made into, or not bit for bit."""


@pytest.mark.parametrize(
    ("sources", "made"),
    [(kind, made) for kind in KINDS for made in MAKERS if made not in LACKING.get(kind, ())],
    indirect=["sources"],
)
def test_a_file_is_the_same_whatever_the_size_of_its_pieces(sources: Sources, made: str, tmp_path: Path) -> None:
    found = {name: weights(folder) for name, folder in in_every_size(MAKERS[made], sources, tmp_path).items()}
    for name in SIZES:
        assert found[name] == found["as usual"], name


@pytest.mark.parametrize("sources", ["bfloat16"], indirect=True)
def test_what_is_rotated_in_float32_is_the_same_to_rounding(sources: Sources, tmp_path: Path) -> None:
    """One row is multiplied by other instructions than several are, and a bfloat16 shows it now and then."""
    folders = in_every_size(MAKERS["rotated cut"], sources, tmp_path)
    usual = load_file(folders["as usual"] / WEIGHTS)
    for name in SIZES:
        for key, tensor in load_file(folders[name] / WEIGHTS).items():
            torch.testing.assert_close(tensor, usual[key], rtol=2**-7, atol=1e-6)


def in_every_size(make: Maker, sources: Sources, root: Path) -> dict[str, Path]:
    """One folder for each size of pieces."""
    for name, size in SIZES.items():
        with pytest.MonkeyPatch.context() as patch:
            in_pieces(patch, size)
            make(sources, root / name)
    return {name: root / name for name in SIZES}


def weights(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]
    assert files
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("place", [0, 19, 20, 299, 300, 599, 1999])
def test_one_byte_is_seen_wherever_it_is(tmp_path: Path, monkeypatch, size: int | None, place: int) -> None:
    data = np.random.default_rng(0).bytes(2000)
    other = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    infos = []
    for name, content in (("a", data), ("b", data), ("c", other)):
        (tmp_path / name).write_bytes(content)
        infos.append(TensorInfo("x", "U8", (50, 40), tmp_path / name, 0))
    expected = xxhash.xxh3_128(data).hexdigest()
    in_pieces(monkeypatch, size)
    assert checksum(tmp_path / "a") == expected
    assert checksum(tmp_path / "c") != expected
    assert same_bytes(*infos[:2])
    assert not same_bytes(infos[0], infos[2])


@pytest.mark.parametrize("size", [1, 7, None])
@pytest.mark.parametrize("row", [0, 299])
def test_a_head_of_a_file_is_compared_to_its_last_row(tmp_path: Path, monkeypatch, size: int | None, row: int) -> None:
    file = file_of(make_model(tmp_path / "model"), tmp_path / "tied.gguf")
    embedding = np.array(read_gguf(file).tensors["token_embd.weight"].stored()).view(np.float32)
    same = rewritten(file, tmp_path / "same.gguf", more={"output.weight": embedding})
    embedding[row, -1] += 1
    other = rewritten(file, tmp_path / "other.gguf", more={"output.weight": embedding})
    in_pieces(monkeypatch, size)
    assert settings_of(read_gguf(same))["tie_word_embeddings"]
    assert not settings_of(read_gguf(other))["tie_word_embeddings"]
