import json
import re
from pathlib import Path

import pytest

from prunus.errors import ArtifactError
from prunus.report.records import load_run
from prunus.report.step import write_report
from prunus.report.table import HEADER, comparison
from prunus.steps.prune.config import PruneConfig

FIGURES = ("nll", "perplexity", "bits_per_byte", "kl", "agreement", "nll_increase")


def record(root: Path, subject: str, label: str, kind: str, config: dict, **files) -> dict:
    folder = root / subject / f"{label}-00000000"
    folder.mkdir(parents=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    facts = {
        "config": config,
        "seconds": 61.0,
        "peak_memory_bytes": {"process": 2e9},
        "files": {"a": {"bytes": 10}},
        "versions": {"torch": "2"},
        "hardware": "a machine",
        "metrics": {"tokens": 1_500_000},
    }
    (folder / "artifact.json").write_text(json.dumps(facts))
    return {"subject": subject, "label": label, "kind": kind, "folder": f"{subject}/{label}-00000000"}


def figures(nll: float, names: tuple[str, ...] = ("nll", "perplexity", "bits_per_byte")) -> dict:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.01, "high": value + 0.03}

    return {
        "parameters": 4_540_469_248,
        "non_embedding_parameters": 3_489_796_096,
        "figures": {n: figure(nll) for n in names},
    }


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    answer = json.dumps({"prompt": "<b>Once</b>", "answer": "</script><img src=x onerror=alert(1)>"}) + "\n"
    steps = [
        record(tmp_path, "teacher", "evaluate", "evaluate", {}, results__json=figures(1.0), answers__jsonl=answer),
        record(tmp_path, "w", "prune", "prune", PruneConfig(importance="random").identity()),
        record(
            tmp_path, "w", "distill", "distill", {"loss": "forward_kl"}, metrics__jsonl='{"tokens": 1, "loss": 2}\n'
        ),
        record(tmp_path, "w", "evaluate", "evaluate", {}, results__json=figures(1.25, FIGURES), answers__jsonl=answer),
        {"subject": "late", "label": "distill", "kind": "distill", "folder": "late/distill-0"},
    ]
    manifest = {"name": "a <run>", "recipe": {"evaluate": {"confidence": 0.95}, "x": "</pre><i>"}, "steps": steps}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    return tmp_path


def test_the_table_reads_the_records(run_folder: Path) -> None:
    rows = comparison(load_run(run_folder))
    assert rows[0] == ["teacher", "4.54B", "3.49B", "0", "1.000 ± 0.020", "", "1", "1.0000", "", "", ""]
    assert rows[1][0] == "w: pruned at random + distilled"
    assert rows[1][3:6] == ["1.5M", "1.250 ± 0.020", "+1.250 ± 0.020"]
    assert all(len(row) == len(HEADER) for row in rows)


def test_stages_of_alignment_are_named_and_drawn(run_folder: Path) -> None:
    manifest = json.loads((run_folder / "run.json").read_text())
    line = '{"tokens": 1, "loss": 2}\n'
    stages = [
        record(run_folder, "w", f"align-{number}-{method}", "align", {"method": method}, metrics__jsonl=line)
        for number, method in enumerate(("sft", "reward", "rpo"), start=1)
    ]
    distilled = record(run_folder, "w", "evaluate-distilled", "evaluate", {}, results__json=figures(1.3, FIGURES),
                       answers__jsonl="")  # fmt: skip
    manifest["steps"] = [*manifest["steps"][:3], distilled, *stages, manifest["steps"][3]]
    (run_folder / "run.json").write_text(json.dumps(manifest))
    rows = comparison(load_run(run_folder))
    names = [row[0] for row in rows]
    start = "w: pruned at random + distilled"
    assert names == ["teacher", start, f"{start} + aligned (SFT, RPO)"]
    assert [row[HEADER.index("tokens")] for row in rows[1:]] == ["1.5M", "1.5M"]
    page = write_report(run_folder, run_folder / "report.html").read_text()
    for title in ("Training loss: sft", "Training loss: reward", "Training loss: rpo"):
        assert title in page
    assert page.count("<polyline") == 4


def test_the_page_is_self_contained_and_escapes_answers(run_folder: Path) -> None:
    page = write_report(run_folder, run_folder / "report.html").read_text()
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;b&gt;Once&lt;/b&gt;" in page
    assert "a &lt;run&gt;" in page
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert "Not done yet: late distill" in page
    assert page.count("<polyline") == 1


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no run.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        load_run(tmp_path)
