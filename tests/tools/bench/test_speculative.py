"""A draft model: the same text as without it, what it should gain by theory, and pairs that are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prunus.cli.main import main
from prunus.data.tokens import Tokens
from prunus.errors import RecipeError
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.tools.bench.assisted import TimedPair
from prunus.tools.bench.speculative import acceptance, check_pair, continue_all, figures, tokens_per_step
from prunus.tools.bench.written import Written
from tests.tiny import make_model

WORDS = ["--prompt-tokens", 4, "--new-tokens", 8, "--rounds", 2, "--draft-lengths", 2, 3, "--text-tokens", 200]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def draft(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first three layers: near enough that some of its tokens are accepted, and some not."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    loaded.model.layers = loaded.model.layers[:3]
    loaded.config.num_hidden_layers = 3
    folder = tmp_path_factory.mktemp("draft") / "draft"
    loaded.save_pretrained(folder)
    for file in model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_greedy_assisted_generation_equals_the_models_own(model: Path, draft: Path) -> None:
    alone = TimedPair(model, None, 0, "cpu", "float32")
    prompts = np.random.default_rng(0).integers(3, 300, (6, 7)).tolist()
    own = [alone.write(prompt, 24) for prompt in prompts]
    assert all(one.tokens == one.steps == 24 for one in own)
    for length in (1, 3, 8):
        pair = TimedPair(model, draft, length, "cpu", "float32")
        written = [pair.write(prompt, 24) for prompt in prompts]
        assert [one.text for one in written] == [one.text for one in own]
        gained = sum(one.tokens - one.steps for one in written)
        assert 0 < gained <= sum(one.drafted for one in written)
        assert min(one.steps for one in written) >= 24 / (length + 1)


def test_acceptance_is_the_overlap_of_the_two_distributions(model: Path, draft: Path) -> None:
    folders = {"model": ModelFolder(model), "draft": ModelFolder(draft)}
    ids = np.random.default_rng(1).integers(3, 300, 40)
    found = acceptance(folders, Tokens(ids, np.array([40]), np.array([80])), 40, Runtime())
    assert found["text_tokens"] == 39
    both = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (draft, model)]
    with torch.no_grad():
        ours, theirs = (one(torch.from_numpy(ids)[None]).logits[0, :-1].double().softmax(-1) for one in both)
    assert found["acceptance"] == pytest.approx(torch.minimum(ours, theirs).sum(-1).mean().item(), abs=1e-5)


def test_expected_tokens_are_the_papers() -> None:
    """Equation 1 of arXiv 2211.17192, and a simulation of independent acceptances."""
    for share in (0.0, 0.3, 0.8):
        for length in (1, 4):
            assert tokens_per_step(share, length) == pytest.approx((1 - share ** (length + 1)) / (1 - share))
    assert tokens_per_step(1.0, 5) == 6
    taken = np.random.default_rng(0).random((200_000, 4)) < 0.7
    assert tokens_per_step(0.7, 4) == pytest.approx((taken.cumprod(axis=1).sum(axis=1) + 1).mean(), rel=5e-3)


def written(seconds: float, steps: int, drafted: int = 0, text: str = "a") -> Written:
    return Written(text, 12, seconds, steps, drafted)


def test_figures_are_paired_by_round() -> None:
    found = figures(
        {
            "model": [written(4.0, 12), written(8.0, 12)],
            "draft": [written(1.0, 12), written(2.0, 12)],
            "2": [written(2.0, 6, 12), written(4.0, 6, 12)],
            "4": [written(1.0, 4, 16), written(2.0, 4, 16, text="b")],
        },
        (2, 4),
        0.5,
    )
    assert [row["ratio"]["value"] for row in found["lengths"]] == [2.0, 4.0]
    assert [row["tokens_per_step"] for row in found["lengths"]] == [2.0, 3.0]
    assert [row["accepted"] for row in found["lengths"]] == [0.5, 0.5]
    assert [row["identical"] for row in found["lengths"]] == [1.0, 0.5]
    assert found["best"] == 4
    assert found["expected"][0] == {"length": 1, "tokens_per_step": 1.5, "ratio": 1.5 / 1.25}
    assert found["expected_best"] == 1


def test_the_first_opening_is_not_counted() -> None:
    log: list[tuple[str, list[int]]] = []

    class Scripted:
        def __init__(self, name: str) -> None:
            self.name = name

        def call(self, method: str, prompt: list[int], count: int) -> Written:
            log.append((self.name, prompt))
            return written(1.0, count, text=str(prompt))

        def close(self) -> None:
            log.append((self.name, []))

    found = continue_all({name: lambda name=name: Scripted(name) for name in ("a", "b")}, [[1], [2], [3]], 5)
    assert [name for name, prompt in log if prompt] == ["a", "b"] * 3
    assert log[-2:] == [("b", []), ("a", [])]
    assert [[one.text for one in found[name]] for name in ("a", "b")] == [["[2]", "[3]"]] * 2


def test_pairs_that_cannot_work_are_refused(model: Path, draft: Path, tmp_path: Path) -> None:
    fewer = make_model(tmp_path / "fewer", vocab_size=280)
    with pytest.raises(RecipeError, match=r"its 280 tokens are not the 300 of"):
        check_pair(ModelFolder(model), ModelFolder(fewer))
    with pytest.raises(RecipeError, match=r"allowed: a draft that is smaller than the model"):
        check_pair(ModelFolder(draft), ModelFolder(model))
    check_pair(ModelFolder(model), ModelFolder(draft))


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp"])
def test_the_command(engine: str, model: Path, draft: Path, corpus: Path, tmp_path: Path, capsys) -> None:
    if engine == "llama.cpp":
        pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
        pytest.importorskip("xllamacpp", reason="the extra `gguf` is not installed")
    words = ["bench", model, "--draft", draft, "--corpus", corpus, "--engine", engine, *WORDS]
    assert main([str(word) for word in [*words, "--json", tmp_path / "f.json"]]) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    assert [row["length"] for row in found["lengths"]] == [2, 3]
    assert 0 < found["acceptance"] < 1
    assert engine != "transformers" or {row["identical"] for row in found["lengths"]} == {1.0}
    out = capsys.readouterr().out
    assert "with 3 drafted" in out
    assert "best draft length" in out


def test_arguments_that_do_not_go_together(model: Path, draft: Path, corpus: Path, capsys) -> None:
    for words, message in (
        (["--draft", draft], "--draft and --corpus: give both, or neither"),
        (["--corpus", corpus], "--draft and --corpus: give both, or neither"),
        ([draft, "--draft", draft, "--corpus", corpus], "--draft: drafts for one model; 2 models are given"),
        (["--draft", draft, "--corpus", corpus, "--prompt-tokens", 100], "exceed the context of the two models"),
        (["--draft", draft, "--corpus", corpus, "--draft-lengths", 2, 2], "expected different numbers, such as 2 4 8"),
        (["--draft", draft, "--corpus", corpus, "--draft-lengths", 17], "17"),
    ):
        assert main([str(word) for word in ["bench", model, *words]]) == 2
        assert message in capsys.readouterr().err
