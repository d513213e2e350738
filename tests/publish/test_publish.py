"""Publishing: nothing goes unless asked, no pickle and no secret ever, and what goes arrives as it was."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.cli import main
from prunus.errors import RecipeError
from prunus.publish.files import choose_files
from prunus.publish.hub import make_parcel
from tests.publish.hub import hub

CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def model(teacher: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(teacher, tmp_path / "model")
    (folder / "README.md").write_text(CARD)
    (folder / "artifact.json").write_text("{}")
    return folder


def publish(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prunus", "publish", *map(str, arguments)]
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**own, **environment})


def test_without_upload_nothing_leaves(model: Path) -> None:
    with hub() as there:
        result = publish(model, "--to", "me/small", HF_ENDPOINT=there.url, HF_TOKEN="hf_test")
    assert result.returncode == 0, result.stderr
    assert there.asked == []
    assert "model.safetensors" in result.stdout
    assert "stays here: artifact.json" in result.stdout
    assert "nothing was sent" in result.stdout


def test_what_is_sent_arrives_as_it_was(model: Path) -> None:
    with hub() as there:
        settings = {"HF_ENDPOINT": there.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        result = publish(model, "--to", "me/small", "--upload", "--message", "First", **settings)
        assert result.returncode == 0, result.stderr + str(there.asked)
        assert f"published: {there.url}/me/small/commit" in result.stdout
    assert there.created[0]["name"] == "small"
    assert there.created[0].get("private") is True or there.created[0].get("visibility") == "private"
    sent = {file.name for file in model.iterdir()} - {"artifact.json"}
    assert set(there.files) == sent
    for name in sent:
        assert there.files[name] == (model / name).read_bytes()
    assert "Bearer hf_test" in there.tokens


def test_folders_of_an_export_go_with_it_and_others_stay(model: Path) -> None:
    going = ("onnx-int4/model.onnx", "onnx-int4/README.md", "torchao-int8/config.json")
    staying = ("onnx-int4/cache/model.onnx", "checkpoint-10/model.safetensors")
    for name in going + staying:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("-")
    result = publish(model, "--to", "me/small")
    assert result.returncode == 0, result.stderr
    shown, stays = result.stdout.split("stays here:")
    assert all(name in shown for name in going)
    assert set(staying) <= set(stays.replace(",", " ").split())


def test_a_hub_that_refuses_is_told(model: Path) -> None:
    with hub() as there:
        there.refuse = 403
        settings = {"HF_ENDPOINT": there.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        result = publish(model, "--to", "me/small", "--upload", **settings)
    assert result.returncode == 2
    assert "me/small: the hub does not take it" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_hub_that_is_away_is_told(model: Path) -> None:
    result = publish(model, "--to", "me/small", "--upload", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_test")
    assert result.returncode == 2
    assert "the hub does not take it" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.bin", b"anything", "a pickle, which runs code"),
        ("vocab.txt", pickle.dumps({"a": 1}), "a pickle, which runs code"),
        ("checkpoints/optimizer.pt", b"PK\x03\x04", "a pickle, which runs code"),
        (".env", b"A=1", "its name is that of a secret"),
        ("id_rsa", b"x", "its name is that of a secret"),
        ("server.key", b"x", "its name is that of a secret"),
        ("aws_credentials.json", b"{}", "its name is that of a secret"),
        ("notes.md", b"my token is hf_" + b"a" * 34, "looks like a token of the hub"),
        ("metrics.jsonl", b'{"url": "https://me:pass@example.com"}', "looks like a password in an address"),
        ("NOTICE", b"-----BEGIN RSA PRIVATE KEY-----", "looks like a private key"),
        ("run.yaml", b"key: AKIA" + b"A" * 16, "looks like a key of AWS"),
    ],
)
def test_pickles_and_secrets_keep_all_of_it_from_going(model: Path, name: str, content: bytes, message: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        make_parcel(model, "me/small")
    assert name in str(caught.value)
    assert "hf_aaa" not in str(caught.value)  # what is secret is not shown


def test_links_stay(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (model / "LICENSE").symlink_to(tmp_path / "elsewhere")
    choice = choose_files(model)
    assert model / "LICENSE" in choice.staying
    assert not choice.faults


@pytest.mark.parametrize(
    ("card", "to", "message"),
    [
        (None, "me/small", "README.md: missing; `prunus report RUN` writes"),
        ("# no yaml", "me/small", "names no license"),
        ("---\nlicense: llama3.2\n---\n", "me/small", "asks that its name begin with 'Llama'"),
        (CARD, "small", "'small' is no name on the hub"),
    ],
)
def test_what_is_missing_is_told(model: Path, card: str | None, to: str, message: str, capsys) -> None:
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_text(card)
    assert main(["publish", str(model), "--to", to]) == 2
    assert message in capsys.readouterr().err


def test_the_prefix_that_a_licence_asks_for(model: Path) -> None:
    (model / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    assert make_parcel(model, "me/Llama-small").choice.going


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    with pytest.raises(RecipeError, match="holds no model"):
        make_parcel(tmp_path, "me/small")
