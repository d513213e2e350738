"""A GGUF file wherever a model is named: unpacked once, found again, and named where students tell of their teacher."""

import json
import os
from pathlib import Path

import pytest

from prunus.cli.main import main
from prunus.console import Console
from prunus.errors import ModelError
from prunus.models.checkpoint import WEIGHTS
from prunus.pipeline import unpacking
from prunus.pipeline.plan import make_plan
from prunus.pipeline.recipe import load_recipe
from prunus.pipeline.run import run_plan
from prunus.pipeline.unpacking import cached_digest, find_model
from prunus.report.card import write_cards
from tests.pipeline.recipes import tiny_recipe, write
from tests.steps.unpack.files import file_of, rewritten

pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prunus" / "gguf"


@pytest.fixture
def file(teacher: Path, tmp_path: Path) -> Path:
    keys = {"general.name": "Tiny One", "general.license": "apache-2.0"}
    return rewritten(file_of(teacher, tmp_path / "plain.gguf"), tmp_path / "tiny one.gguf", keys)


def folders(cache: Path) -> list[str]:
    return sorted(folder.name for folder in cache.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def test_a_file_is_unpacked_once(file: Path, cache: Path, monkeypatch) -> None:
    found = find_model(str(file), None, "MODEL")
    assert (found.folder.path / WEIGHTS).is_file()
    assert found.source.startswith("tiny one.gguf@")
    assert [name.rpartition("-")[0] for name in folders(cache)] == ["tiny-one"]
    monkeypatch.setattr(unpacking, "execute", lambda *_: pytest.fail("again"))
    assert find_model(str(file), None, "MODEL", weights=False) == found
    assert find_model(str(file), None, "MODEL").fingerprint() == found.fingerprint()


def test_a_plan_takes_config_and_tokenizer_alone(file: Path, cache: Path) -> None:
    small = find_model(str(file), None, "MODEL", weights=False)
    assert not small.folder.has_weights
    assert small.folder.shape.vocab_size == 300
    whole = find_model(str(file), None, "MODEL")
    assert whole.folder.path != small.folder.path
    assert whole.fingerprint() == small.fingerprint()  # what a plan says is done is found so by the run


def test_another_content_is_another_model(file: Path, tmp_path: Path) -> None:
    first = find_model(str(file), None, "MODEL")
    rewritten(tmp_path / "plain.gguf", file, {"general.name": "Another"})
    second = find_model(str(file), None, "MODEL")
    assert second.folder.path != first.folder.path
    assert second.fingerprint() != first.fingerprint()


def test_content_is_read_again_only_where_it_may_have_changed(file: Path, monkeypatch) -> None:
    os.utime(file, ns=(1, 1))
    monkeypatch.setattr(unpacking, "_FRESH_NS", -(10**18))
    content = cached_digest(file)
    monkeypatch.setattr(unpacking, "content_of", lambda _: "read")
    assert cached_digest(file) == content
    os.utime(file, ns=(2, 2))
    assert cached_digest(file) == "read"


def test_what_is_not_there(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ModelError, match=r"teacher.path: there is no file .*none.gguf"):
        find_model(str(tmp_path / "none.gguf"), None, "teacher.path")
    with pytest.raises(ModelError, match=r"is a file, so revision 'main' does not apply"):
        find_model(str(file), "main", "teacher.path")
    with pytest.raises(ModelError, match=r"FILE: .* is a folder; expected a GGUF file"):
        unpacking.gguf_file(str(tmp_path), "FILE")


def test_a_recipe(file: Path, corpus: Path, held_out: Path, tmp_path: Path, cache: Path, capsys) -> None:
    students = {"depth": {"prune": {"num_hidden_layers": 2}}}
    raw = tiny_recipe(file, corpus, held_out, correct={}, students=students, distill={"tokens": 0})
    recipe = write(tmp_path / "small.yaml", raw)
    assert main(["plan", str(recipe)]) == 0
    assert not list(cache.glob(f"*/{WEIGHTS}"))
    plan = run_plan(make_plan(load_recipe(recipe), tmp_path / "run"), Console(quiet=True))
    manifest = json.loads((plan.root / "run.json").read_text())
    assert manifest["origin"]["file"] == "tiny one.gguf"
    assert manifest["origin"]["name"] == "Tiny One"
    (card,) = write_cards(plan.root)
    text = card.read_text()
    assert "made with Prunus from the GGUF file `tiny one.gguf` (Tiny One)" in text
    assert "license: apache-2.0" in text


def test_inspect_prints_json_alone(file: Path, capsys) -> None:
    assert main(["inspect", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 300
