"""Targets from a server: those of the model that it serves, or a refusal."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from prunus import client
from prunus.config import parse
from prunus.console import Console
from prunus.data.targets import Targets
from prunus.errors import HubError, ModelError, RecipeError
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.inference import server
from prunus.llamacpp.server import start_server
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.targets import served, step
from prunus.steps.targets.config import KeptConfig, TargetsConfig
from tests.fake import Fake, serving
from tests.steps.generate.making import make_stream
from tests.steps.targets.asking import TOP_K, ask
from tests.steps.targets.serving import stand_in
from tests.tiny import make_model

FORMS = ["vllm", "sglang"]


@pytest.fixture
def fake(monkeypatch, teacher: Path) -> Iterator[Fake]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.delenv(server.KEY, raising=False)
    with serving() as made:
        made.reply = stand_in(teacher)
        yield made


@pytest.fixture(scope="module")
def stream(teacher: Path, corpus: Path, tmp_path_factory) -> Path:
    return make_stream(teacher, corpus, tmp_path_factory.mktemp("tokens") / "stream")


def at(fake: Fake, **options) -> dict:
    return {"url": f"{fake.url}/v1", "model": "teacher", "concurrency": 3, **options}


def assert_near(found: Targets, wanted: Targets, atol: float) -> None:
    """The same blocks, and the same probabilities; which of two like tokens is kept is open."""
    assert found.numbers.tolist() == wanted.numbers.tolist()
    for number in wanted.numbers.tolist():
        mine, theirs = found.items(number), wanted.items(number)
        values, expected = (items["target_log_probabilities"].astype(np.float64) for items in (mine, theirs))
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=atol)
        assert np.mean(mine["target_ids"] == theirs["target_ids"]) > 0.95


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("api", FORMS)
def test_a_servers_targets_are_those_of_its_model(teacher, stream, fake, tmp_path, api: str, apart: bool) -> None:
    options = {**TOP_K, "sequence_length": 64, "attend_across_documents": not apart}
    wanted, metrics = ask(teacher, stream, tmp_path / "here", **options)
    found, measured = ask(teacher, stream, tmp_path / "there", server=at(fake, api=api), **options)
    assert_near(found, wanted, 1e-3)
    assert abs(measured.pop("server_kl")) < 1e-6
    assert measured == pytest.approx(metrics, rel=1e-5)
    asked = {one["path"] for one in fake.asked}
    assert asked == {"/tokenize", "/v1/completions" if api == "vllm" else "/generate"}


def test_all_tokens_leave_no_rest(teacher, stream, fake, tmp_path) -> None:
    found, metrics = ask(teacher, stream, tmp_path / "out", server=at(fake), count=1000)
    items = found.items(int(found.numbers[0]))
    assert items["target_ids"].shape == (16, 300)
    assert np.isneginf(items["target_log_probabilities"][:, -1].astype(np.float32)).all()
    assert metrics["kept_mass"] == pytest.approx(1)


def test_a_killed_run_asks_for_the_rest_only(teacher, stream, fake, tmp_path, monkeypatch) -> None:
    options = {**TOP_K, "server": at(fake, concurrency=1)}
    _, metrics = ask(teacher, stream, tmp_path / "whole", **options)
    write, written = step.TargetWriter.write, []

    def killed(self, rows, arrays, mass):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(rows.start)
        write(self, rows, arrays, mass)

    asked = served.likeliest
    monkeypatch.setattr(step.TargetWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(teacher, stream, tmp_path / "killed", **options)
    monkeypatch.setattr(step.TargetWriter, "write", write)
    prompts: list[list[int]] = []
    monkeypatch.setattr(served, "likeliest", lambda *rest: prompts.append(rest[2]) or asked(*rest))
    assert ask(teacher, stream, tmp_path / "killed", **options)[1] == metrics
    assert len(prompts) == 1 + 10 - 4  # the first is the check
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes(), file.name


def test_llama_cpps_server_gives_what_the_teacher_does(teacher, stream, tmp_path, monkeypatch) -> None:
    """Its KV cache is in 16 bits, so log-probabilities differ by up to 0.02."""
    pytest.importorskip("xllamacpp")
    file, model = tmp_path / "teacher.gguf", ModelFolder(teacher)
    write_gguf(model, read_vocabulary(teacher, model.shape.vocab_size), "gguf-f32", file)
    running = start_server(file, 64)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv(server.KEY, running.secret)
    there = {"url": running.native.listening_address, "model": "teacher", "api": "llama.cpp", "concurrency": 2}
    wanted, metrics = ask(teacher, stream, tmp_path / "here", **TOP_K)
    found, measured = ask(teacher, stream, tmp_path / "there", server=there, **TOP_K)
    assert_near(found, wanted, 0.02)
    assert 0 <= measured.pop("server_kl") < 1e-4
    assert measured == pytest.approx(metrics, rel=1e-3)


def changed(reply: Callable[[dict], bytes], edit: Callable[[list], object]) -> Callable[[dict], bytes]:
    """A vLLM whose log-probabilities of prompts were changed."""

    def answer(asked: dict) -> bytes:
        said = json.loads(reply(asked))
        if "choices" in said:
            edit(said["choices"][0]["prompt_logprobs"])
        return json.dumps(said).encode()

    return answer


def _short(rows: list) -> None:
    del rows[-3:]


def _few(rows: list) -> None:
    rows[5] = dict(list(rows[5].items())[:4])


def _alien(rows: list) -> None:
    rows[4]["300"] = {"logprob": -0.01}


def _certain(rows: list) -> None:
    rows[4] = {token: {"logprob": -0.1} for token in rows[4]}


def _worded(rows: list) -> None:
    rows[4] = {f"<{token}>": entry for token, entry in rows[4].items()}


def _hollow(rows: list) -> None:
    rows[4] = {token: {"logprob": None} for token in rows[4]}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_short, "gives log-probabilities at 13 of 16 positions"),
        (_few, r"gives 4 of 6 log-probabilities at position 4 of 16; start it with a higher limit"),
        (_alien, "gives token 300 at position 3, but the teacher has 300 tokens; it serves another model"),
        (_certain, r"gives probabilities that sum to \d\.\d+ at position 3; expected at most 1"),
        (_worded, r"expected \{choices: \[\{prompt_logprobs"),
        (_hollow, r"expected \{choices: \[\{prompt_logprobs"),
    ],
)
def test_unusable_answers_are_refused(teacher, stream, fake, tmp_path, edit, message: str) -> None:
    fake.reply = changed(stand_in(teacher), edit)
    with pytest.raises(HubError, match=f"^targets.server.url: .*{message}"):
        ask(teacher, stream, tmp_path / "out", server=at(fake), **TOP_K)
    assert not (tmp_path / "out" / "ids.npy").exists()


def test_another_model_is_refused_unless_it_is_not_compared(teacher, stream, fake, tmp_path) -> None:
    fake.reply = stand_in(make_model(tmp_path / "other", seed=1), teacher)
    with pytest.raises(ModelError, match=r"^targets.server: 'teacher' predicts otherwise .*: KL \d.* at most 0.1"):
        ask(teacher, stream, tmp_path / "out", server=at(fake), **TOP_K)
    assert "server_kl" not in ask(teacher, stream, tmp_path / "out", server=at(fake, compare=False), **TOP_K)[1]


def test_another_tokenizer_is_refused_where_the_server_tokenizes(teacher, stream, fake, tmp_path) -> None:
    same = stand_in(teacher)

    def other(asked: dict) -> bytes | int:
        said = json.loads(same(asked))
        return json.dumps({"tokens": [7, *said["tokens"][1:]]} if asked["path"] == "/tokenize" else said).encode()

    fake.reply = other
    with pytest.raises(ModelError, match=r"tokenizer is not that of the teacher.*token 0 is 7 there and \d+ here"):
        ask(teacher, stream, tmp_path / "out", server=at(fake), **TOP_K)
    fake.reply = lambda asked: 404 if asked["path"] == "/tokenize" else same(asked)
    said = io.StringIO()
    out = tmp_path / "silent"
    out.mkdir()
    config = TargetsConfig(server=at(fake), sequence_length=16, sequences=2, **TOP_K)
    step.run(config, step.Inputs(teacher, stream), out, Runtime(), Console(file=said))
    assert "tokenizers are not compared: targets.server: " in said.getvalue()


def test_a_server_has_no_whole_distribution() -> None:
    with pytest.raises(RecipeError, match="keep: samples draws from the whole distribution"):
        parse(KeptConfig, {"keep": "samples", "server": {"url": "http://x", "model": "m"}}, "test")
    with pytest.raises(RecipeError, match="url and model: give both, or neither"):
        parse(KeptConfig, {"server": {"url": "http://x"}}, "test")


def test_only_the_served_models_name_is_part_of_a_fingerprint() -> None:
    assert KeptConfig().identity() == {"keep": "top_k", "count": 64}
    assert KeptConfig(server={"timeout": 5.0, "api": "sglang"}).identity() == {"keep": "top_k", "count": 64}
    named = KeptConfig(server={"url": "http://x", "model": "m", "compare": False})
    assert named.identity() == {"keep": "top_k", "count": 64, "server": {"model": "m"}}
