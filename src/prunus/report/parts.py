"""The contents of cards of an export's folders (ONNX, torchao): format, library, measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prunus.console import human_bytes
from prunus.report.records import Result


def parts_of(export: Result) -> Iterator[tuple[str, dict[str, Any]]]:
    """The formats of an export that are folders, each with the values of its card."""
    for name, facts in export.json("export.json").items():
        if "what" in facts and (export.folder / name).is_dir():
            own = {"what": facts["what"], "library": facts["library"], "figures": _figures(facts)}
            yield name, {**own, **_count(facts)}


def part_metadata(name: str, library: str, parent: dict[str, Any]) -> dict[str, Any]:
    """The YAML of a format's folder, from that of the student's card."""
    tags = [tag for tag in parent["tags"] if tag not in ("gguf", "onnx", "torchao")]
    return {**parent, "library_name": library, "tags": [*tags, *name.split("-")]}


def _count(facts: dict[str, Any]) -> dict[str, Any]:
    kind = "held-out" if facts.get("perplexity") else "made-up"
    return {"tokens": f"{facts.get('tokens') or 0:,} {kind}"}


def _figures(facts: dict[str, Any]) -> str:
    rows = [
        ("size", human_bytes(facts["nbytes"])),
        ("KL to the model, nats per token", f"{facts['kl']:.2g}"),
        ("same top-1 token", f"{facts['top1']:.2%}" if facts.get("top1") is not None else "not measured"),
    ]
    if facts.get("perplexity") and facts.get("perplexity_of_model"):
        rows.append(("perplexity; the model's", f"{facts['perplexity']:.4g}, {facts['perplexity_of_model']:.4g}"))
    return "| | |\n| --- | ---: |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)
