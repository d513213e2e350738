"""The weights of a folder, made from the tensors of a GGUF file: the inverse of gguf/tensors.py.

All weights are planned, and compared with the family's table, before anything is written. Then one piece of one tensor
is in memory at a time; only GPT-2's matrices, which are transposed, are read completely.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from prunus.errors import ModelError
from prunus.gguf.layout import column_order, folded, row_order
from prunus.gguf.metadata import gguf_of
from prunus.llamacpp.header import largest_type
from prunus.llamacpp.parsing import GgufTensor
from prunus.llamacpp.reading import GgufFile
from prunus.models.checkpoint import DTYPES, TensorPlan
from prunus.models.families.family import Place
from prunus.models.families.gguf import Gguf
from prunus.models.shape import Shape
from prunus.steps.unpack.config import Dtype
from prunus.steps.unpack.narrowing import narrowed
from prunus.steps.unpack.positions import FACTORS

_PIECE = 1 << 20  # values that are dequantised at a time
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HEAD = "output.weight"


def dtype_of(file: GgufFile, option: Dtype) -> str:
    """The dtype of the folder's weights, by torch's name."""
    return _DTYPES.get(largest_type(file) or "", "bfloat16") if option == "auto" else option


def plan_weights(file: GgufFile, shape: Shape, dtype: str) -> list[TensorPlan]:
    """Every weight of the folder, in the order of the family's table.

    Args:
        file: The file.
        shape: The dimensions of the folder.
        dtype: The dtype of the folder's weights, by torch's name.

    Raises:
        ModelError: A weight is missing or has another shape, a tensor does not belong to the family, or the `gguf`
            package cannot dequantise its format.
    """
    family, where = shape.family, str(file.path)
    there = gguf_of(family, where)
    plans, used = [], {name for name in FACTORS if there.factors}
    for name, _ in shape.weights():
        place = family.place(name)
        assert place is not None  # the name comes from the table
        key = there.name_of(place.key, place.layer)
        source = file.tensors.get(key)
        if source is None:
            raise ModelError(f"{where}: the tensor {key} is missing; {name} is made from it")
        plans.append(_plan(name, place, source, shape, there, dtype))
        used.add(key)
    if shape.flags.get("tie_word_embeddings"):
        used.add(_HEAD)  # a copy of the embedding; settings.py has compared them
    for key in file.tensors:
        if key not in used:
            raise ModelError(f"{where}: unexpected tensor {key} for a {family.name} with these keys")
    _check_formats(file)
    return plans


def _plan(name: str, place: Place, source: GgufTensor, shape: Shape, there: Gguf, dtype: str) -> TensorPlan:
    family, sizes, size = shape.family, shape.sizes(), place.weight.shape(shape.sizes())
    turned = family.is_transposed(place.weight)
    expected = size[::-1] if turned else folded(size, place.weight)
    expected = expected if place.expert is None else (sizes["experts"], *expected)
    if source.shape != expected:
        raise ModelError(f"{source.file}: {source.name} is {list(source.shape)}; expected {list(expected)} by its keys")
    order = row_order(place.weight, source.name, there, sizes, turned)
    back = None if order is None else np.argsort(order)
    columns = column_order(place.weight, there, sizes)
    backwards = None if columns is None else np.argsort(columns)
    decay = place.key in there.decays
    pieces = partial(_pieces, source, place.expert, back, backwards, turned, decay, family.offset_of(place), dtype)
    return TensorPlan(name, DTYPES[dtype], size, pieces)


def _pieces(
    source: GgufTensor,
    expert: int | None,
    back: np.ndarray | None,
    columns: np.ndarray | None,
    turned: bool,
    decay: bool,
    offset: float,
    dtype: str,
) -> Iterator[bytes]:
    """A weight's bytes in order, a few rows at a time.

    Raises:
        ModelError: A decay is not below 0.
    """
    stored = source.stored()
    if expert is not None:
        each = source.shape[-2]
        stored = stored[expert * each : (expert + 1) * each]
    if decay:
        values = numbers(source, np.asarray(stored)).reshape(-1)
        if not (values < 0).all():
            raise ModelError(f"{source.file}: {source.name} holds decays that are not below 0")
        logarithms = np.log(-values.astype(np.float64)).astype(np.float32)
        yield narrowed(logarithms if back is None else logarithms[back], dtype, source)
        return
    if turned or (back is not None and len(source.shape) == 1):
        values = numbers(source, np.asarray(stored))
        if back is not None:  # indices of outputs: rows of a matrix, or elements of a vector
            values = values[back] if len(source.shape) > 1 else values.reshape(-1)[back]
        yield narrowed(np.ascontiguousarray(values.T if turned else values) - np.float32(offset), dtype, source)
        return
    rows = max(1, _PIECE // source.shape[-1])
    for start in range(0, len(stored), rows):
        part = slice(start, start + rows)
        some = np.asarray(stored[part] if back is None else stored[back[part]])
        if columns is None and source.type_name == "BF16" and dtype == "bfloat16" and not offset:
            yield narrowed(some.view(np.uint16), dtype, source)
            continue
        values = numbers(source, some) - np.float32(offset)
        yield narrowed(values if columns is None else np.ascontiguousarray(values[:, columns]), dtype, source)


def numbers(source: GgufTensor, stored: np.ndarray) -> np.ndarray:
    """Float32 rows from stored rows."""
    from gguf import GGMLQuantizationType, quants

    if source.type_name in ("F32", "F16"):
        return stored.view(np.float32 if source.type_name == "F32" else np.float16).astype(np.float32, copy=False)
    return quants.dequantize(stored, GGMLQuantizationType(source.kind)).astype(np.float32, copy=False)


def _check_formats(file: GgufFile) -> None:
    """Dequantise one block of each format, as a test.

    Raises:
        ModelError: The package cannot dequantise a format; names the tensor.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in {tensor.kind: tensor for tensor in file.tensors.values()}.values():
        block = np.zeros((1, GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)][1]), dtype=np.uint8)
        try:
            numbers(tensor, block)
        except (NotImplementedError, KeyError, ValueError):
            raise ModelError(
                f"{file.path}: {tensor.name} is in {tensor.type_name}, which the gguf package cannot dequantise; "
                "use a file in another format"
            ) from None
