"""Decode latency of any shape, interpolated from a small table of shapes that were timed on this machine.

Decoding a token reads every weight once: the time of a layer depends on the layer's size, the time of the rest on the
embedding's size. Shapes of four widths are timed at two depths each. For each width, the slope between the depths is
the time of a layer and the remainder is the time of the rest; both are interpolated over their sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from prunus import distributed
from prunus.console import Console
from prunus.errors import ArtifactError, RecipeError, ShapeError
from prunus.files import read_object, replace_json
from prunus.fingerprint import digest
from prunus.models.draw import draw_model
from prunus.models.folder import ModelFolder, PlannedFolder, copy_along
from prunus.models.shape import Shape
from prunus.pipeline.machine import hardware
from prunus.pipeline.search.config import Limit
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.tools.bench.config import BenchConfig

_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the teacher's widths
_DEPTHS = (2, 6)
_WRITTEN, _ROUNDS = 32, 5
_FORMAT = "gguf-f16"
_UNIT = 8

Table = list[dict[str, float]]


def latency_of(
    budget: Sequence[Limit], teacher: ModelFolder, folder: Path, runtime: Runtime
) -> Callable[[Limit, Shape], float]:
    """A function (limit, shape) -> seconds per token. Missing tables are measured now.

    Args:
        budget: The limits.
        teacher: Source of the widths and the tokenizer of the timed shapes.
        folder: Stores the tables, so that a repeated search uses the same measurement.
        runtime: The device of torch.
    """
    tables = {}
    for limit in budget:
        if limit.what == "latency":
            key = digest([limit.engine, limit.format, limit.context, teacher.config, hardware()])[:8]
            file = folder / f"latency-{key}.json"
            if distributed.rank() == 0 and not file.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                table = timed(limit, teacher, runtime)
                replace_json(file, {"hardware": hardware(), "table": table})
            distributed.wait()
            tables[limit] = _read(file)
    return lambda limit, shape: interpolated(tables[limit], shape)


def _read(file: Path) -> Table:
    """A stored table.

    Raises:
        ArtifactError: It is damaged.
    """
    table = read_object(file, ArtifactError).get("table")
    columns = {"layers", "per_layer", "embedding", "seconds"}
    if not isinstance(table, list) or not all(isinstance(row, dict) and columns <= row.keys() for row in table):
        raise ArtifactError(f"{file}: damaged: it has no table of latencies; delete the file to measure again")
    return table


def check_latency(limit: Limit, where: str) -> None:
    """Refuse a format that cannot be timed.

    Raises:
        RecipeError: Names the format and the allowed ones.
    """
    allowed = get_args(BenchConfig.model_fields["format"].annotation)
    if limit.what == "latency" and limit.format is not None and limit.format not in allowed:
        short = [name.removeprefix("gguf-") for name in allowed]
        raise RecipeError(
            f"{where}: decode cannot be timed in {limit.format.removeprefix('gguf-')}; allowed: {', '.join(short)}"
        )


def timed(limit: Limit, teacher: ModelFolder, runtime: Runtime) -> Table:
    """Time shapes of a few widths and depths alternately, with random weights, since speed depends on shape alone.

    Returns:
        For each shape `layers`, `per_layer` (parameters), `embedding` (parameters) and `seconds` per token.
    """
    from prunus.tools.bench.compare import compare

    shapes = [
        shape.with_dimensions({"num_hidden_layers": depth}) for shape in _widths(teacher.shape) for depth in _DEPTHS
    ]
    longest = teacher.context - _WRITTEN - 1
    options: dict[str, Any] = {"prompt_tokens": max(1, min(limit.context or 128, longest)), "new_tokens": _WRITTEN}
    options |= {"rounds": _ROUNDS, "format": limit.format or _FORMAT}
    options["engine"] = "transformers" if limit.engine == "torch" else "llama.cpp"
    with tempfile.TemporaryDirectory() as place:
        paths = []
        for i, shape in enumerate(shapes):
            out = Path(place) / f"shape-{i}"
            out.mkdir()
            copy_along(teacher.path, out)
            draw_model(_drawable(teacher, shape), out, i)
            paths.append(str(out))
        rows = compare(paths, BenchConfig(**options), runtime, Path(place), Console(quiet=True))
    return [
        {"layers": shape.num_hidden_layers, **_sizes(shape), "seconds": 1 / row["decode"]["value"]}
        for shape, row in zip(shapes, rows, strict=True)
    ]


def interpolated(table: Table, shape: Shape) -> float:
    """Seconds per token of a shape, interpolated."""
    layer, rest = [], []
    by_width: dict[float, Table] = {}
    for row in table:
        by_width.setdefault(row["embedding"], []).append(row)
    for embedding, rows in by_width.items():
        few, many = sorted(rows, key=lambda row: row["layers"])
        slope = max((many["seconds"] - few["seconds"]) / (many["layers"] - few["layers"]), 0.0)
        layer.append((many["per_layer"], slope))
        rest.append((embedding, max(few["seconds"] - few["layers"] * slope, 0.0)))
    sizes = _sizes(shape)
    return shape.num_hidden_layers * _between(layer, sizes["per_layer"]) + _between(rest, sizes["embedding"])


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Linear interpolation; noise is smoothed so that a larger size never takes less time."""
    sizes, values = (np.array(column) for column in zip(*sorted(points), strict=True))
    return float(np.interp(at, sizes, np.maximum.accumulate(values)))


def _sizes(shape: Shape) -> dict[str, float]:
    per_layer = shape.non_embedding_parameters / shape.num_hidden_layers
    return {"per_layer": per_layer, "embedding": float(shape.vocab_size * shape.hidden_size)}


def _widths(teacher: Shape) -> list[Shape]:
    """The teacher's shape at a few shares of its widths, without those that loaders refuse."""
    shapes: dict[int, Shape] = {}  # by hidden_size, so that each width is timed once
    for share in _SHARES:
        groups = max(1, round(share * teacher.num_key_value_heads))
        unit = teacher.head_dim if teacher.family.square else _UNIT
        sizes = {
            "hidden_size": max(unit, round(share * teacher.hidden_size / unit) * unit),
            "intermediate_size": max(_UNIT, round(share * teacher.intermediate_size / _UNIT) * _UNIT),
        }
        if not teacher.family.square:
            sizes["num_key_value_heads"] = groups
        try:
            shape = PruneConfig.model_validate(sizes if share < 1 else {}).target(teacher, "search.budget")
        except ShapeError:
            continue
        shapes[shape.hidden_size] = shape
    return list(shapes.values())


def _drawable(teacher: ModelFolder, shape: Shape) -> dict[str, Any]:
    """The config.json of a shape, which may be deeper than the teacher."""
    settings = PlannedFolder(teacher.path, teacher.config, shape, "F32").config
    return {key: value for key, value in settings.items() if not (isinstance(value, list) and key == "layer_types")}
