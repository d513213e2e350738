"""What every test leans on: a tiny Llama with its tokenizer and some text, all made here."""

import gc
import json
import os
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before its client is loaded: a test that reaches for the hub is wrong

from hypothesis import settings

from tests.pieces import SMALL, in_pieces
from tests.tiny import WORDS, make_model

settings.register_profile("ci", derandomize=True, print_blob=True)  # a change is judged by the same examples every time
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--part 2/6`: one of six parts of the tests, about equal in size, the same ones every time."""
    parser.addoption("--part", default="0/1", help="K/N: only part K, from 0, of N parts of the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of `--part`: of the parts of all commits, each test is in one."""
    part, parts = map(int, config.getoption("--part").split("/"))
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        chosen[crc32(item.nodeid.encode()) % parts == part].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


def pytest_collection_finish() -> None:
    """Leave what is imported out of garbage collection, which ends each step of a run: a third of a tiny run's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with grouped heads, tied embeddings and a tokenizer."""
    return make_model(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 short documents drawn from a few words, as JSONL."""
    return write_documents(tmp_path_factory.mktemp("text") / "corpus.jsonl", 400, seed=1)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 more of them."""
    return write_documents(tmp_path_factory.mktemp("text") / "held_out.jsonl", 60, seed=2)


@pytest.fixture
def several_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are in several pieces: those of tiny models in small ones, those of real ones in the usual."""
    in_pieces(monkeypatch, None if "real_model" in request.keywords else SMALL)


def write_documents(file: Path, count: int, seed: int) -> Path:
    draw = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = draw.choice(WORDS, size=draw.integers(20, 60))
        lines.append(json.dumps({"text": " ".join(words) + ".", "source": "made"}))
    file.write_text("\n".join(lines) + "\n")
    return file
