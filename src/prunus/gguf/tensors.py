"""The tensors of a GGUF file: planned from headers, then read and converted piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunus.errors import ModelError
from prunus.gguf.layout import column_order, folded, row_order
from prunus.gguf.metadata import gguf_of
from prunus.gguf.positions import frequency_factors
from prunus.models.checkpoint import TensorInfo, read_bytes
from prunus.models.families.family import Place
from prunus.models.families.gguf import Gguf
from prunus.models.folder import ModelFolder

_PIECE = 1 << 18  # values that are converted at once: few enough to stay in the processor's cache
_STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class FileTensor:
    """A tensor of the file.

    Attributes:
        name: llama.cpp's name.
        shape: Its shape, [..., rows, columns].
        sources: The checkpoint's tensors that it consists of, concatenated: one, or all experts of a layer.
        order: Its row indices in llama.cpp's order, or None.
        columns: Its column indices in llama.cpp's order, or None.
        decay: Whether values are stored as -exp of them.
        turned: Whether the checkpoint stores it as [in, out].
        offset: Added to every value: the part of a norm's gain that a family leaves out.
        factor: Multiplied with every value after that.
        constant: The values, if they come from no weight.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[TensorInfo, ...] = ()
    order: np.ndarray | None = None
    columns: np.ndarray | None = None
    decay: bool = False
    turned: bool = False
    offset: float = 0.0
    factor: float = 1.0
    constant: np.ndarray | None = None

    @property
    def dtype(self) -> str:
        """The type of its sources, by safetensors' name."""
        return self.sources[0].dtype if self.sources else "F32"

    @property
    def untouched(self) -> bool:
        """Whether its values are the checkpoint's, unchanged."""
        return self.offset == 0.0 and self.factor == 1.0 and not self.decay

    def pieces(self) -> Iterator[np.ndarray]:
        """Its rows in order, in the checkpoint's type (bfloat16 as bits), a few at a time: [n, columns]."""
        columns = self.shape[-1]
        rows = max(1, _PIECE // columns)
        reordered = self.order is not None or self.columns is not None or self.turned
        if self.constant is not None:
            yield self.constant.reshape(-1, columns)
        for info in self.sources:
            yield from self._whole(info, rows) if reordered else _streamed(info, rows)

    def _whole(self, info: TensorInfo, rows: int) -> Iterator[np.ndarray]:
        """Rows in another order. The few tensors that need this are read into memory one by one."""
        values = np.frombuffer(read_bytes(info), _STORED[info.dtype]).reshape(info.shape)
        values = values.T if self.turned and values.ndim == 2 else values.reshape(self.shape)
        if values.ndim == 1:
            yield (values if self.order is None else values[self.order])[None]
            return
        for start in range(0, len(values), rows):
            part = slice(start, start + rows)
            some = values[part] if self.order is None else values[self.order[part]]
            yield np.ascontiguousarray(some if self.columns is None else some[..., self.columns])


def _streamed(info: TensorInfo, rows: int) -> Iterator[np.ndarray]:
    columns = info.shape[-1]
    stored = _STORED[info.dtype]
    left = math.prod(info.shape) // columns
    with info.file.open("rb", buffering=0) as handle:
        handle.seek(info.data)
        while left:
            values = np.empty((min(rows, left), columns), dtype=stored)
            view = memoryview(values.reshape(-1).view(np.uint8).data)
            while view:
                count = handle.readinto(view)
                if not count:
                    raise ModelError(f"{info.file}: truncated within {info.name}")
                view = view[count:]
            yield values
            left -= len(values)


def widened(values: np.ndarray) -> np.ndarray:
    """Stored values as float32."""
    if values.dtype != np.uint16:
        return values.astype(np.float32, copy=False)
    return np.left_shift(values, 16, dtype=np.uint32).view(np.float32)


def plan_tensors(folder: ModelFolder) -> list[FileTensor]:
    """Every tensor of the file, ordered by layer.

    Raises:
        RecipeError: llama.cpp does not support the family.
    """
    there = gguf_of(folder.family, str(folder.path))
    grouped: dict[str, list[tuple[Place, TensorInfo]]] = {}
    for name, info in folder.tensors.items():
        place, ignored = folder.family.place(name), folder.family.ignores(name, folder.shape.num_hidden_layers)
        if place is not None and not ignored and place.weight.exists(folder.shape.flags):
            grouped.setdefault(there.name_of(place.key, place.layer), []).append((place, info))
    made = [_file_tensor(name, parts, there, folder) for name, parts in grouped.items()]
    names = {one.name for one in made}
    if there.untied and "output.weight" not in names:
        shared = next(one for one in made if one.name == "token_embd.weight")
        made.append(FileTensor("output.weight", shared.shape, shared.sources))
    factors = frequency_factors(folder.config, folder.shape)
    made += [FileTensor(name, values.shape, constant=values) for name, values in factors.items()]
    return sorted(made, key=_order)


def _file_tensor(name: str, parts: list[tuple[Place, TensorInfo]], there: Gguf, folder: ModelFolder) -> FileTensor:
    family, sizes = folder.family, folder.shape.sizes()
    parts = sorted(parts, key=lambda part: part[0].expert or 0)
    place, info = parts[0]
    turned = family.is_transposed(place.weight)
    shape = info.shape[::-1] if turned else folded(info.shape, place.weight)
    return FileTensor(
        name,
        (len(parts), *shape) if place.expert is not None else shape,
        tuple(info for _, info in parts),
        row_order(place.weight, name, there, sizes, turned),
        column_order(place.weight, there, sizes),
        place.key in there.decays,
        turned,
        family.offset_of(place),
        _query_factor(place, there, folder),
    )


def _query_factor(place: Place, there: Gguf, folder: ModelFolder) -> float:
    """The factor of queries that compensates for an attention scale that llama.cpp does not read."""
    if there.query_factor is None or not folder.family.ends_queries(place):
        return 1.0
    return there.query_factor(folder.config, folder.shape.dimensions())


def _order(tensor: FileTensor) -> tuple[int, int]:
    parts = tensor.name.split(".")
    return (1, int(parts[1])) if parts[0] == "blk" else (2 if parts[0].startswith("output") else 0, 0)
