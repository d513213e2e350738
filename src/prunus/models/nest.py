"""A nest: several sizes of a model in one checkpoint, which is a plain checkpoint of the largest.

The weights of a smaller size are parts of the largest's (see `prefix`). `nest.json` says which, and `nest.safetensors`
has what each smaller size has of its own: the gains and biases of its norms, as SIZE/NAME.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from prunus.errors import ModelError, ShapeError
from prunus.files import read_object, replace_text
from prunus.models.checkpoint import TensorInfo, TensorPlan, read_bytes, read_header, read_pieces, write_tensors
from prunus.models.folder import NEST, NORMS, ModelFolder, copy_along, write_config
from prunus.models.lineage import narrow_lineage
from prunus.models.prefix import Part, is_norm, named_places, parts
from prunus.models.shape import PRUNABLE, Shape
from prunus.models.student import student_config
from prunus.models.values import from_float, to_float

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Nested:
    """One size of a nest.

    Attributes:
        name: Its name.
        shape: Its dimensions.
        layers: The layers of the largest that it has, in order.
    """

    name: str
    shape: Shape
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """A nest on disk.

    Attributes:
        folder: The checkpoint of the largest size.
        sizes: All sizes, the largest first.
    """

    folder: ModelFolder
    sizes: tuple[Nested, ...]

    @property
    def largest(self) -> Nested:
        """The size whose weights are stored."""
        return self.sizes[0]

    @property
    def smaller(self) -> tuple[Nested, ...]:
        """All sizes but the largest."""
        return self.sizes[1:]

    def size(self, name: str, where: str) -> Nested:
        """The size of that name.

        Raises:
            ShapeError: There is none.
        """
        found = next((size for size in self.sizes if size.name == name), None)
        if found is None:
            names = ", ".join(size.name for size in self.sizes)
            raise ShapeError(f"{where}: {name!r} is not a size of {self.folder.path}; its sizes: {names}")
        return found

    def norms(self) -> dict[str, TensorInfo]:
        """The norms of the smaller sizes, by SIZE/NAME.

        Raises:
            ModelError: The file is missing, or does not have what `nest.json` implies.
        """
        file = self.folder.path / NORMS
        if not file.is_file():
            raise ModelError(f"{self.folder.path}: there is no {NORMS}, which belongs to its {NEST}")
        found = {info.name: info for info in read_header(file)}
        wanted = {
            f"{size.name}/{part.name}": tuple(map(len, part.indices))
            for size in self.smaller
            for part in parts(self.largest.shape, size.shape, size.layers)
            if part.is_norm
        }
        for name in sorted(wanted.keys() ^ found.keys()):
            raise ModelError(f"{file}: {name} is {'missing' if name in wanted else 'not of a size of this nest'}")
        for name, shape in wanted.items():
            if found[name].shape != shape:
                raise ModelError(f"{file}: {name} is {list(found[name].shape)}; {NEST} implies {list(shape)}")
        return found


def is_nest(folder: Path) -> bool:
    """Whether a folder is that of a nest."""
    return (folder / NEST).is_file()


def refuse_nest(folder: Path, where: str) -> None:
    """Refuse a nest where training would change its largest size alone.

    Raises:
        ModelError: The folder is that of a nest.
    """
    if is_nest(folder):
        raise ModelError(
            f"{where}: {folder} is a nest, whose sizes only `distill` trains together; cut one out first: prunus cutout"
        )


def read_nest(folder: Path) -> Nest:
    """Read which sizes a nest has.

    Raises:
        ModelError: The folder is no nest, or its files contradict each other.
    """
    if not is_nest(folder):
        raise ModelError(f"{folder}: is not a nest: it has no {NEST}, which `prune.nest` makes")
    model = ModelFolder(folder)
    raw = read_object(folder / NEST, ModelError).get("sizes")
    where = folder / NEST
    if not isinstance(raw, list) or len(raw) < 2:
        raise ModelError(f"{where}: sizes is {raw!r:.80}; expected a list of at least two")
    nest = Nest(model, tuple(_read_size(entry, model.shape, where) for entry in raw))
    if nest.largest.shape != model.shape or len({size.name for size in nest.sizes}) < len(nest.sizes):
        raise ModelError(f"{where}: its first size is not that of config.json, or two sizes have one name")
    try:
        for small, large in zip(nest.smaller, nest.sizes, strict=False):
            check_within(small.name, small.shape, large.name, large.shape, str(where))
            if not set(small.layers) <= set(large.layers):
                raise ShapeError(f"{where}: {small.name} has layers that {large.name} lacks")
    except ShapeError as error:
        raise ModelError(str(error)) from None
    return nest


def _read_size(entry: object, largest: Shape, where: Path) -> Nested:
    """One entry of `sizes`.

    Raises:
        ModelError: It has another form.
    """
    axes = [key for key in PRUNABLE if getattr(largest, key)]
    if isinstance(entry, dict) and isinstance(layers := entry.get("layers"), list):
        name, sizes = entry.get("name"), {key: entry.get(key) for key in axes}
        whole = all(type(n) is int and n > 0 for n in sizes.values()) and all(type(n) is int for n in layers)
        if isinstance(name, str) and _NAME.fullmatch(name) and whole:
            shape = largest.with_dimensions(sizes)
            inside = layers == sorted(set(layers)) and set(layers) <= set(range(largest.num_hidden_layers))
            if inside and len(layers) == shape.num_hidden_layers:
                return Nested(name, shape, tuple(layers))
    raise ModelError(f"{where}: {entry!r:.80} is not a size: expected name, {', '.join(axes)}, layers")


def write_nest(folder: Path, sizes: Sequence[Nested], norms: Mapping[str, np.ndarray]) -> None:
    """Write what makes the checkpoint of the largest size in `folder` a nest.

    Args:
        folder: The folder.
        sizes: All sizes, the largest first.
        norms: The gains and biases of the smaller sizes' norms, by SIZE/NAME.
    """
    entries = [
        {
            "name": size.name,
            **{key: getattr(size.shape, key) for key in PRUNABLE if getattr(size.shape, key)},
            "layers": list(size.layers),
        }
        for size in sizes
    ]
    replace_text(folder / NEST, json.dumps({"sizes": entries}, indent=2) + "\n")
    dtype = ModelFolder(folder).dtype
    rounded = {name: to_float(from_float(values, dtype), dtype) for name, values in norms.items()}
    save_file({name: values.astype(np.float32) for name, values in rounded.items()}, folder / NORMS)


def check_within(small: str, smaller: Shape, large: str, larger: Shape, where: str) -> None:
    """Refuse two sizes of which one is not inside the other.

    Args:
        small: Name of the smaller size.
        smaller: Its shape.
        large: Name of the larger size.
        larger: Its shape.
        where: The name of the option, for messages.

    Raises:
        ShapeError: The message names the axis and both sizes.
    """
    if smaller == larger:
        raise ShapeError(f"{where}: {small} and {large} are the same shape; give each size another")
    groups = [shape.num_attention_heads // shape.num_key_value_heads for shape in (smaller, larger)]
    pairs = {key: (getattr(smaller, key), getattr(larger, key)) for key in PRUNABLE}
    pairs["query heads of each KV head"] = (groups[0], groups[1])
    for axis, (size, room) in pairs.items():
        if size > room:
            raise ShapeError(
                f"{where}: {small} does not nest in {large}: {axis} is {size} in {small} and {room} in {large}; a "
                "smaller size has at most as much on every axis"
            )
    if smaller.vocab_size != larger.vocab_size:
        raise ShapeError(
            f"{where}: vocab_size is {smaller.vocab_size} in {small} and {larger.vocab_size} in {large}; all sizes of "
            "a nest have one vocabulary"
        )


def cut_out_plans(nest: Nest, size: Nested, norms: Mapping[str, np.ndarray]) -> list[TensorPlan]:
    """The tensors of one size, or of a size between those of the nest.

    Args:
        nest: The nest.
        size: The size.
        norms: The gains and biases of its norms in float32, by name.
    """
    weights = nest.folder.weights
    plans = []
    for part in parts(nest.largest.shape, size.shape, size.layers):
        info = weights[part.source]
        values = norms[part.name] if part.is_norm else None
        plans.append(part_plan(part, info, values))
    return plans


def write_size(nest: Nest, size: Nested, norms: Mapping[str, np.ndarray], out: Path) -> None:
    """Write one size, or a size between those of the nest, as a plain model folder with its lineage.

    Args:
        nest: The nest.
        size: The size.
        norms: The gains and biases of its norms, by name.
        out: The folder to write.
    """
    source = nest.folder
    copy_along(source.path, out)
    write_tensors(out, cut_out_plans(nest, size, norms))
    write_config(out, student_config(source.config, nest.largest.shape, size.shape, list(size.layers)))
    narrow_lineage(source.path, out, size.layers, size.shape.hidden_size)


def write_back(nest: Nest, size: Nested, changed: ModelFolder, out: Path) -> None:
    """Write the nest's weights with those of one size replaced; its norms are not the nest's, and stay.

    Args:
        nest: The nest.
        size: The size.
        changed: A checkpoint of the size.
        out: The folder to write, not that of the nest.
    """
    found = {part.source: part for part in parts(nest.largest.shape, size.shape, size.layers) if not part.is_norm}
    theirs = changed.weights
    write_tensors(
        out,
        [
            _replaced(info, found[name], theirs[found[name].name])
            if name in found
            else TensorPlan(name, info.dtype, info.shape, lambda info=info: read_pieces(info))  # type: ignore[misc]
            for name, info in nest.folder.weights.items()
        ],
    )


def _replaced(info: TensorInfo, part: Part, changed: TensorInfo) -> TensorPlan:
    """A tensor of the nest with a part replaced; it is in memory as a whole when its pieces are requested."""

    def pieces() -> list[bytes]:
        whole, values = (to_float(read_bytes(one), one.dtype).reshape(one.shape) for one in (info, changed))
        factors = np.broadcast_to(part.factor, values.shape[:1]).reshape(-1, *[1] * (values.ndim - 1))
        whole[np.ix_(*part.indices)] = values / factors
        return [from_float(whole, info.dtype)]

    return TensorPlan(info.name, info.dtype, info.shape, lambda: iter(pieces()))


def part_plan(part: Part, info: TensorInfo, values: np.ndarray | None) -> TensorPlan:
    """The tensor of a part, read as a whole when its pieces are requested; of given values, if there are any."""
    shape = tuple(map(len, part.indices))

    def pieces() -> list[bytes]:
        if values is not None:
            return [from_float(values, info.dtype)]
        raw = read_bytes(info)
        if np.all(part.factor == 1.0):
            item = np.dtype(f"V{len(raw) // max(1, int(np.prod(info.shape)))}")
            return [np.frombuffer(raw, item).reshape(info.shape)[np.ix_(*part.indices)].tobytes()]
        chosen = to_float(raw, info.dtype).reshape(info.shape)[np.ix_(*part.indices)]
        rows = np.broadcast_to(part.factor, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
        return [from_float(chosen * rows, info.dtype)]

    return TensorPlan(part.name, info.dtype, shape, lambda: iter(pieces()))


def own_norms(nest: Nest, size: Nested) -> dict[str, np.ndarray]:
    """The gains and biases of a size's norms in float32, by name in its checkpoint."""
    if size.name == nest.largest.name:
        return norms_in(nest.folder)
    start = f"{size.name}/"
    return {name.removeprefix(start): _values(info) for name, info in nest.norms().items() if name.startswith(start)}


def norms_in(model: ModelFolder) -> dict[str, np.ndarray]:
    """The gains and biases of a plain checkpoint's norms in float32, by name."""
    weights = model.weights
    return {name: _values(weights[name]) for name, place in named_places(model.shape) if is_norm(place, model.shape)}


def _values(info: TensorInfo) -> np.ndarray:
    return to_float(read_bytes(info), info.dtype).astype(np.float32)
