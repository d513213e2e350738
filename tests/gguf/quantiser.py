"""llama.cpp's `llama_model_quantize` as a script: FOLDER of its libraries, INPUT, OUTPUT, file type, MATRIX.npz."""

import ctypes
import sys
from pathlib import Path

import numpy as np

IMATRIX = 24  # bytes before the pointer: four numbers, six booleans, padding


class Options(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * 256)]


class Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def main(folder: str, source: str, out: str, file_type: str, matrix: str = "") -> int:
    for name in ("libggml-base.so", "libggml.*so", "libllama.*so"):
        library = ctypes.CDLL(str(next(Path(folder).glob(name))), mode=ctypes.RTLD_GLOBAL)
    library.llama_model_quantize_default_params.restype = Options
    library.llama_backend_init()
    options = library.llama_model_quantize_default_params()
    address = ctypes.addressof(options)
    ctypes.c_int32.from_address(address).value = 1  # threads
    ctypes.c_int32.from_address(address + 4).value = int(file_type)
    ctypes.c_bool.from_address(address + 16).value = True  # allow_requantize
    if matrix:
        held = {name: np.ascontiguousarray(values, np.float32) for name, values in np.load(matrix).items()}
        entries = [Entry(name.encode(), values.ctypes.data, values.size) for name, values in held.items()]
        listed = (Entry * (len(entries) + 1))(*entries, Entry(None, None, 0))
        ctypes.c_void_p.from_address(address + IMATRIX).value = ctypes.addressof(listed)
    library.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    return int(library.llama_model_quantize(source.encode(), out.encode(), address))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
