"""Model cards: what the hub reads, what a licence asks, and results that stand in the records."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunus.errors import ArtifactError, RecipeError
from prunus.licences import KNOWN, UNKNOWN, front_matter, licence_named, licence_of
from prunus.report.card import MARKER, title_of, write_cards
from prunus.steps.export.targets import FORMATS
from tests.pipeline.recipes import tiny_recipe

FIGURE = {"value": 3.5, "low": 3.4, "high": 3.6}
CONFIG = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4, "max_position_embeddings": 128,
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The records of a run with one student, as the steps write them."""
    teacher = tmp_path / "private" / "Llama-3.1-8B"
    teacher.mkdir(parents=True)
    (teacher / "README.md").write_text("---\nlicense: llama3.1\n---\n# Llama\n")
    root = tmp_path / "run"
    recipe = tiny_recipe(teacher, Path("acme/stories"), tmp_path / "private" / "held.jsonl")
    recipe["teacher"] = {"path": str(teacher)}
    recipe["data"] = {key: [{"path": path} for path in paths] for key, paths in recipe["data"].items()}
    recipe["students"] = {"width": {"prune": {}, "distill": {}}}
    recipe["evaluate"]["confidence"] = 0.95
    record: dict[str, Any] = {
        "versions": {"prunus": "0.1.0"}, "hardware": "a laptop", "metrics": {"tokens": 5e6}, "seconds": 1.0,
        "peak_memory_bytes": {"process": 1e9}, "files": {},
    }  # fmt: skip
    prune = {"init": "teacher", "importance": {"channels": {"criterion": "activation"}}}
    steps = []
    for subject, label, config in (
        ("teacher", "evaluate", {}),
        ("width", "prune", prune),
        ("width", "distill", {}),
        ("width", "align", {"method": "rpo"}),
        ("width", "evaluate", {}),
        ("width", "export", {}),
    ):
        folder = root / subject / f"{label}-12345678"
        folder.mkdir(parents=True)
        kind = label
        steps.append({"subject": subject, "label": label, "kind": kind, "folder": f"{subject}/{folder.name}"})
        (folder / "artifact.json").write_text(json.dumps({**record, "config": config}))
        if kind in ("prune", "distill", "align"):
            (folder / "config.json").write_text(json.dumps(CONFIG))
        if kind == "evaluate":
            figures = dict.fromkeys(("nll", "perplexity", "bits_per_byte"), FIGURE)
            if subject == "width":
                figures |= {"kl": {"value": 0.25, "low": 0.2, "high": 0.3}, "agreement": FIGURE, "nll_increase": FIGURE}
            results = {"parameters": 1000, "non_embedding_parameters": 900, "figures": figures}
            (folder / "results.json").write_text(json.dumps(results))
            (folder / "answers.jsonl").write_text("")
        if kind in ("distill", "align"):
            (folder / "metrics.jsonl").write_text("")
        if kind == "export":
            facts = {"file": "model-Q4_K_M.gguf", "nbytes": 2_000_000, "kl": 0.01, "perplexity": 9.5}
            (folder / "export.json").write_text(json.dumps({"proof": {}, "gguf-q4_k_m": facts}))
    manifest = {"name": "stories", "recipe": recipe, "teacher": {"hidden_size": 32}, "steps": steps}
    (root / "run.json").write_text(json.dumps(manifest))
    return root


def test_a_card_in_the_students_last_folder_and_in_its_export(run: Path) -> None:
    cards = write_cards(run)
    assert [card.parent.name for card in cards] == ["align-12345678", "export-12345678"]
    text = cards[0].read_text()
    facts = yaml.safe_load(text.split("---")[1])
    assert facts["license"] == "llama3.1"
    assert facts["datasets"] == ["acme/stories"]
    assert facts["library_name"] == "transformers"
    assert {"prunus", "gguf"} <= set(facts["tags"])
    assert "# Llama-stories-width" in text
    assert "**Built with Llama. Llama 3.1 is licensed under the Llama 3.1 Community License" in text
    assert "- Comply with Meta's Acceptable Use Policy." in text
    assert "0.250 ± 0.050" in text
    assert "then distilled on 5M tokens, then aligned by rpo" in text
    assert "| hidden_size | 32 | 16 |" in text
    assert "| `model-Q4_K_M.gguf` | 2 MB | 0.01 | 9.5 |" in text
    assert "private" not in text  # no folder of this machine


def test_cards_of_folders_in_an_export(run: Path) -> None:
    export = run / "width" / "export-12345678"
    figures = {"nbytes": 1_500_000, "kl": 0.02, "top1": 0.95, "tokens": 4096}
    facts = {
        "onnx-int4": {
            "file": "onnx-int4",
            **asdict(FORMATS["onnx-int4"].parts["onnx-int4"]),
            **figures,
            "perplexity": 9.5,
            "perplexity_of_model": 9.25,
        },
        "torchao-int8": {"file": "torchao-int8", **asdict(FORMATS["torchao-int8"].parts["torchao-int8"]), **figures},
    }
    (export / "export.json").write_text(json.dumps(facts))
    for name in facts:
        (export / name).mkdir()
    written = {card.parent.name: card for card in write_cards(run)}
    cards = {name: card.read_text() for name, card in written.items()}
    assert list(cards) == ["align-12345678", "export-12345678", "onnx-int4", "torchao-int8"]
    found = {name: front_matter(card) for name, card in written.items()}
    assert [facts.get("library_name") for facts in found.values()] == [
        "transformers", None, "onnxruntime-genai", "transformers",
    ]  # fmt: skip
    assert {facts["license"] for facts in found.values()} == {"llama3.1"}
    assert {"onnx", "torchao"} <= set(found["export-12345678"]["tags"])
    assert {"onnx", "int4"} <= set(found["onnx-int4"]["tags"])
    assert "torchao" not in found["onnx-int4"]["tags"]
    assert 'og.Model("PATH")' in cards["onnx-int4"]
    assert "on 4,096 held-out tokens" in cards["onnx-int4"]
    assert "| perplexity; the model's | 9.5, 9.25 |" in cards["onnx-int4"]
    assert "pip install transformers torchao" in cards["torchao-int8"]
    assert "on 4,096 made-up tokens" in cards["torchao-int8"]
    for name in facts:
        assert "**Built with Llama. Llama 3.1" in cards[name]
        assert "0.250" not in cards[name]  # the student's own figures
        assert "from_pretrained" not in cards["export-12345678"]


def test_a_card_that_somebody_took_over_is_left_alone(run: Path) -> None:
    card = write_cards(run)[0]
    card.write_text(card.read_text().replace(MARKER, "Mine."))
    assert card not in write_cards(run)
    assert "Mine." in card.read_text()


def test_a_student_that_was_cut_alone_is_called_no_model_to_use(run: Path) -> None:
    manifest = json.loads((run / "run.json").read_text())
    manifest["steps"] = [step for step in manifest["steps"] if step["label"] not in ("distill", "align", "export")]
    (run / "run.json").write_text(json.dumps(manifest))
    (card,) = write_cards(run)
    assert card.parent.name == "prune-12345678"
    assert "not meant for use" in card.read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not the folder of a run"):
        write_cards(tmp_path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Apache License\n   Version 2.0, January 2004", "apache-2.0"),
        ("MIT License\n\nCopyright", "mit"),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", "llama3.2"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"),
        ("LLAMA 2 COMMUNITY LICENSE AGREEMENT", "llama2"),
        ("Gemma Terms of Use\n", "gemma"),
        ("All rights are mine.", ""),
    ],
)
def test_a_licence_is_known_by_its_text(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "LICENSE.txt").write_text(text)
    assert licence_of(tmp_path).identifier == wanted


def test_the_licence_of_the_card_comes_before_the_text_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT License")
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: nvidia-open\nlicense_link: LICENSE\n---\n")
    found = licence_of(tmp_path)
    assert found.metadata() == {"license": "other", "license_name": "nvidia-open", "license_link": "LICENSE"}
    assert "Read it" in found.obligations[0]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("no front matter", {}),
        ("---\n---\n", {}),
        ("---\n# nothing\n---\n", {}),
        ("---\nlicense: mit\n---", {"license": "mit"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n# x", {"license": "mit"}),
        ("---\nx: |\n  a --- b\ny: 2024-13-45\n---\n---\n", {"x": "a --- b\n", "y": "2024-13-45"}),
    ],
)
def test_the_yaml_of_a_card(tmp_path: Path, text: str, facts: dict) -> None:
    card = tmp_path / "README.md"
    card.write_text(text, encoding="utf-8", newline="")
    assert front_matter(card) == facts


@pytest.mark.parametrize("text", ["---\n: [\n---\n", "---\n- 1\n---\n", "---\n" + "[" * 5000 + "\n---\n"])
def test_yaml_that_cannot_be_read_is_reported_and_names_no_licence(tmp_path: Path, text: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(text)
    with pytest.raises(RecipeError, match=r"README.md"):
        front_matter(card)
    assert licence_of(tmp_path) is UNKNOWN
    (tmp_path / "LICENSE").write_text("MIT License")
    assert licence_of(tmp_path) == KNOWN["mit"]
    assert licence_named({"license": ["mit"]}) == KNOWN["mit"]
    assert licence_named({}) is UNKNOWN


def test_names_begin_as_their_licence_requires() -> None:
    assert title_of("run", "width", KNOWN["llama3.1"]) == "Llama-run-width"
    assert title_of("Llama-small", "width", KNOWN["llama3.1"]) == "Llama-small-width"
    assert title_of("run", "width", KNOWN["apache-2.0"]) == "run-width"


def test_a_card_tells_no_address_and_no_place(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path / "private"))
    manifest = json.loads((run / "run.json").read_text())
    recipe = manifest["recipe"]
    recipe["teacher"] = {"path": "${PLACE}/Llama-3.1-8B"}
    recipe["data"]["held_out"] = [{"path": "${PLACE}/held.jsonl"}]
    recipe["evaluate"] |= {
        "judge": {"url": "http://10.0.0.7:8000/v1", "model": "grader", "prompts": "/home/me/judge.jsonl"},
        "tasks": {"rag": {"data": "/home/me/rag.jsonl", "gold": "~/gold.jsonl"}},
        "prompts": ["Once upon"],
    }
    (run / "run.json").write_text(json.dumps(manifest))
    for card in write_cards(run):
        text = card.read_text()
        assert "license: llama3.1" in text  # it is read where the teacher is
        assert "Llama-3.1-8B" in text
        assert not any(word in text for word in ("private", "/home", "10.0.0.7", "PLACE"))
        assert all(word in text for word in ("url: ${URL}", "judge.jsonl", "rag.jsonl", "gold.jsonl", "Once upon"))
    monkeypatch.delenv("PLACE")
    assert all("Llama-3.1-8B" in card.read_text() for card in write_cards(run))
