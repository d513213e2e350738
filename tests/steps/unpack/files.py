"""GGUF files of tiny models, written by export, and folders made of them."""

from pathlib import Path
from typing import Any

from prunus.console import Console
from prunus.gguf.vocabulary import read_vocabulary
from prunus.gguf.writer import write_gguf
from prunus.models.folder import ModelFolder
from prunus.runtime import Runtime
from prunus.steps.unpack.config import UnpackConfig
from prunus.steps.unpack.step import Inputs, run


def file_of(folder: Path, file: Path, format_name: str = "gguf-f32") -> Path:
    model = ModelFolder(folder)
    write_gguf(model, read_vocabulary(folder, model.shape.vocab_size), format_name, file)
    return file


def folder_of(file: Path, out: Path, **options: Any) -> Path:
    out.mkdir()
    config = UnpackConfig(**{"check": False, **options})
    run(config, Inputs(file), out, Runtime(), Console(quiet=True))
    return out


def rewritten(
    file: Path, out: Path, keys: dict[str, Any] | None = None, leave_out: tuple[str, ...] = (), more: Any = None
) -> Path:
    """A file again, with other keys (None takes one away), without some tensors, or with more of them."""
    import numpy as np

    from gguf import GGMLQuantizationType, GGUFWriter
    from prunus.gguf.writer import _add
    from prunus.llamacpp.reading import read_gguf

    source = read_gguf(file)
    told = {**source.keys, **(keys or {})}
    writer = GGUFWriter(out, told["general.architecture"] or "")
    for key, value in told.items():
        if key != "general.architecture" and value is not None:
            _add(writer, key, value)
    for name, tensor in source.tensors.items():
        if name not in leave_out:
            raw = np.array(tensor.stored()).reshape(*tensor.shape[:-1], tensor.row_bytes)
            writer.add_tensor(name, raw, raw_dtype=GGMLQuantizationType(tensor.kind))
    for name, values in (more or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
