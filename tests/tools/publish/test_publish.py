"""Publishing: nothing goes unless asked, no pickle and no secret ever, and what goes arrives as it was."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prunus.cli.main import main
from prunus.errors import RecipeError
from prunus.graph.artifact import Artifact
from prunus.tools.publish.files import choose_files
from prunus.tools.publish.hub import prepare_upload, send
from prunus.tools.publish.look import scan
from tests.tools.publish.hub import hub

CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def model(teacher: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(teacher, tmp_path / "model")
    (folder / "README.md").write_text(CARD)
    result = Artifact(tmp_path / "result", "00000001")  # a record of no files, so that tests may change any
    result.begin()
    result.finish({"kind": "distill", "metrics": {}})
    (result.path / "artifact.json").rename(folder / "artifact.json")
    return folder


def publish(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prunus", "publish", *map(str, arguments)]
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**own, **environment})


@pytest.mark.processes
def test_without_upload_nothing_is_sent(model: Path) -> None:
    with hub() as there:
        result = publish(model, "--to", "me/small", HF_ENDPOINT=there.url, HF_TOKEN="hf_test")
    assert result.returncode == 0, result.stderr
    assert there.asked == []
    assert "model.safetensors" in result.stdout
    assert "not uploaded: artifact.json" in result.stdout
    assert "nothing was uploaded" in result.stdout


@pytest.mark.processes
def test_uploaded_files_arrive_unchanged(model: Path) -> None:
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


@pytest.mark.processes
def test_folders_of_an_export_are_uploaded_and_others_are_not(model: Path) -> None:
    going = ("onnx-int4/model.onnx", "onnx-int4/README.md", "torchao-int8/config.json")
    staying = ("onnx-int4/cache/model.onnx", "checkpoint-10/model.safetensors")
    for name in going + staying:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("-")
    result = publish(model, "--to", "me/small")
    assert result.returncode == 0, result.stderr
    shown, stays = result.stdout.split("not uploaded:")
    assert all(name in shown for name in going)
    assert set(staying) <= set(stays.replace(",", " ").split())


@pytest.mark.processes
def test_a_hub_that_refuses_is_reported(model: Path) -> None:
    with hub() as there:
        there.refuse = 403
        settings = {"HF_ENDPOINT": there.url, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        result = publish(model, "--to", "me/small", "--upload", **settings)
    assert result.returncode == 2
    assert "me/small: the hub refuses the upload" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.processes
def test_a_hub_that_cannot_be_reached_is_reported(model: Path) -> None:
    result = publish(model, "--to", "me/small", "--upload", HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_test")
    assert result.returncode == 2
    assert "the hub refuses the upload" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.bin", b"anything", "a pickle, which can run code"),
        ("vocab.txt", pickle.dumps({"a": 1}), "a pickle, which can run code"),
        ("checkpoints/optimizer.pt", b"PK\x03\x04", "a pickle, which can run code"),
        (".env", b"A=1", "has the name of a secret"),
        ("id_rsa", b"x", "has the name of a secret"),
        ("server.key", b"x", "has the name of a secret"),
        ("aws_credentials.json", b"{}", "has the name of a secret"),
        ("notes.md", b"my token is hf_" + b"a" * 34, "looks like a token of the hub"),
        ("metrics.jsonl", b'{"url": "https://me:pass@example.com"}', "looks like a password in an address in line 1"),
        ("NOTICE", b"-----BEGIN RSA PRIVATE KEY-----", "looks like a private key"),
        ("run.yaml", b"key: AKIA" + b"A" * 16, "looks like a key of AWS"),
    ],
)
def test_pickles_and_secrets_keep_all_of_it_from_going(model: Path, name: str, content: bytes, message: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        prepare_upload(model, "me/small")
    assert name in str(caught.value)
    assert "hf_aaa" not in str(caught.value)  # what is secret is not shown


HUB = "hf_" + "aBcDeFgHiJ" * 4
KEYS = {
    "a token of the hub": HUB,
    "a key of OpenAI": "sk-proj-" + "a1B2_-" * 8,
    "a key of OpenAI, Anthropic": "sk-ant-api03-" + "a1B2" * 10,
    "a key of a model's provider": "nvapi-" + "a1B2" * 12,
    "a token of GitHub": "github_pat_" + "a1B2" * 8,
    "a token of GitLab": "glpat-" + "a1B2" * 5,
    "a key of AWS": "AKIA" + "A1B2" * 4,
    "a secret key of AWS": 'aws_secret_access_key = "' + "a1B2/" * 8 + '"',
    "a key of Google": "AIza" + "a1B2c" * 7,
    "a token of Slack": "xoxb-" + "1234567890-" * 3 + "abc",
    "a key of Azure": "AccountKey=" + "a1B2" * 20 + "==",
    "a token of a package index": "npm_" + "a1B2" * 9,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIz",
    "a key in a header": "Authorization: Bearer abcdef123456",
    "a password in an address": "postgres://me:hunter2@db.example",
    "a key in an address": "https://h.example/v1?x=1&api_key=abcdef123456",
}


@pytest.mark.parametrize("code", ["ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_in_every_coding(tmp_path: Path, kind: str, code: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(('{"a": 1,\n"b": "' + KEYS[kind] + '"}\n').encode(code))
    (fault,) = {fault for fault in scan(file).faults if fault.startswith(kind)}
    assert fault.endswith("in line 2")
    assert KEYS[kind] not in fault


def gguf(content: bytes) -> bytes:
    draw = np.random.default_rng(0)
    return b"GGUF" + draw.bytes(500) + content + draw.bytes(500)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b'{"x": "' + HUB.encode() + b'"}'),
        ("config.json", b'{"x": "hf\\u005f' + HUB.encode()[3:] + b'"}'),
        ("config.json", b'{"x": "https:\\/\\/me:hunter2@h.example"}'),
        ("export.json", b'{"x": "AIza' + b"a1B2c" * 7 + b'"}'),
        ("vocab.txt", b"x\n" * (2 << 20) + HUB.encode()),
        ("merges.txt", b"x" * ((1 << 20) - 10) + b" " + HUB.encode()),  # over the end of a part
        ("LICENSE", "Wörter, ".encode("latin-1") + HUB.encode()),
        ("NOTICE.rst", HUB.encode("utf-16")),
        ("model-Q4.gguf", gguf(HUB.encode())),
        ("model-Q4.gguf", gguf(HUB.encode("utf-16-le"))),
        ("onnx-int4/model.onnx", b"\xf0\x90" * 3000 + b"5" + HUB.encode() + b"\x80" * 99),
        ("chat_template.jinja", b"{# " + HUB.encode() + b" #}"),
    ],
)
def test_every_uploaded_file_is_searched_for_keys(model: Path, name: str, content: bytes) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(content)
    assert any(file.path == model / name for file in choose_files(model).uploaded)
    with pytest.raises(RecipeError, match="holds what looks like") as caught:
        prepare_upload(model, "me/small")
    assert f"  {name}: " in str(caught.value)
    assert HUB not in str(caught.value)


def test_the_metadata_of_weights_is_looked_through(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file(tensors, model / "model.safetensors", {"format": "pt", "by": HUB})
    with pytest.raises(RecipeError, match="model.safetensors: holds what looks like a token of the hub; remove it"):
        prepare_upload(model, "me/small")


def test_a_key_of_this_machine_is_known_by_its_value(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNUS_JUDGE_KEY", "of-no-known-form-at-all")
    (model / "NOTICE").write_text("see\nof-no-known-form-at-all")
    with pytest.raises(RecipeError, match="NOTICE: .*the value of PRUNUS_JUDGE_KEY on this machine in line 2"):
        prepare_upload(model, "me/small")


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer_config.json.bak", "tokenizer.cfg", "chat_template.py", "tokenizer.py", "model.safetensors~"),
        *("README.md.orig", "model-old.safetensors", "LICENSE.py", "config.json.swp", "deep/er/model.safetensors"),
    ],
)
def test_files_of_an_unknown_kind_are_not_uploaded(model: Path, name: str) -> None:
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("x = 1")
    choice = choose_files(model)
    assert model / name in choice.skipped
    assert not choice.faults


def test_only_files_that_were_searched_are_sent(model: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        upload = prepare_upload(model, "me/small")
        with (model / name).open("r+b") as file:
            file.seek(20)
            file.write(b"#")
        with pytest.raises(RecipeError, match=f"{name}: has changed since it was scanned; nothing was sent"):
            send(upload, False, "x")


CODES = st.sampled_from(["ascii", "utf-16-le", "utf-32"])


@given(st.binary(max_size=200), st.sampled_from(sorted(KEYS.values())), CODES)
@settings(max_examples=50)
def test_a_key_among_any_bytes(around: bytes, key: str, code: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.gguf"
        file.write_bytes(around + b"3" + key.encode(code) + b"\xff" * 5 + around)  # its length, as protobuf has it
        assert scan(file).faults


@pytest.mark.parametrize("name", ["README.md", "x.gguf"])
def test_words_with_hyphens_are_no_key(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"task-specific-instruction-tuning-of-models, risk-aware-decoding-of-it-all")
    assert scan(tmp_path / name).faults == ()


def test_weights_hold_no_key_by_chance(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    file = tmp_path / "model.gguf"
    file.write_bytes(draw.bytes(4 << 20) + draw.normal(size=1 << 20).astype("float32").tobytes())
    assert scan(file).faults == ()


def test_links_are_not_uploaded(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (model / "LICENSE").symlink_to(tmp_path / "elsewhere")
    choice = choose_files(model)
    assert model / "LICENSE" in choice.skipped
    assert not choice.faults


@pytest.mark.parametrize(
    ("card", "to", "message"),
    [
        (None, "me/small", "README.md: missing; `prunus report RUN` writes"),
        ("# no yaml", "me/small", "names no license"),
        ("---\nlicense: llama3.2\n---\n", "me/small", "requires a name that begins with 'Llama'"),
        (CARD, "small", "'small' is not a name on the hub"),
        ("---\nlicense: mit\nlicense: gemma\n---\n", "me/small", "line 3, column 1: duplicate key 'license'"),
        ("---\nlicense: !!timestamp 2024-13-45\n---\n", "me/small", "README.md, line 2, column 10: the tag"),
        ("---\n" + "[" * 999 + "\n---\n", "me/small", "README.md, line 2, column 101: nested deeper"),
    ],
)
def test_a_missing_card_or_owner_is_reported(model: Path, card: str | None, to: str, message: str, capsys) -> None:
    (model / "README.md").unlink()
    if card is not None:
        (model / "README.md").write_text(card)
    assert main(["publish", str(model), "--to", to]) == 2
    assert message in capsys.readouterr().err


def test_the_prefix_that_a_licence_requires(model: Path) -> None:
    (model / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    assert prepare_upload(model, "me/Llama-small").choice.uploaded


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    with pytest.raises(RecipeError, match="holds no model"):
        prepare_upload(tmp_path, "me/small")
