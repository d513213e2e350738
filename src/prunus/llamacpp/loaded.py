"""A GGUF file run by llama.cpp: its logits at every token, and its tokens of a text.

The `xllamacpp` wheel has a text server, and in the same library llama.cpp's whole C API, which is used here to get
logits of a prompt. The option structs change every few versions, so they are not declared here: llama.cpp fills them
with defaults, and the few fields that are set are located by the values around them.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from prunus.errors import ModelError, RecipeError
from prunus.llamacpp import ggml

_ROOM = 1024  # bytes reserved for a struct of options: more than any version needs


class _Options(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * _ROOM)]

    def __getitem__(self, i: int) -> int:
        return int(struct.unpack_from("<i", self.data, 4 * i)[0])

    def __setitem__(self, i: int, value: int) -> None:
        struct.pack_into("<i", self.data, 4 * i, value)


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_silent = _LOG(lambda *_: None)  # receives llama.cpp's log while no file is open
_NAMES = (
    "llama_backend_init", "llama_model_default_params", "llama_context_default_params", "llama_model_load_from_file",
    "llama_init_from_model", "llama_decode", "llama_get_logits", "llama_get_memory", "llama_memory_clear",
    "llama_model_get_vocab", "llama_vocab_n_tokens", "llama_vocab_is_eog", "llama_tokenize", "llama_free",
    "llama_model_free", "llama_log_set",
)  # fmt: skip


class Loaded:
    """A file loaded in llama.cpp, as a context manager.

    Args:
        file: The GGUF file.
        context: The longest text, in tokens.
        exact: Whether to use a KV cache in float32 and no flash attention, which rounds; else llama.cpp's defaults.

    Raises:
        ModelError: llama.cpp does not load it; with llama.cpp's message.
        RecipeError: The wheel is missing, or its version is not supported.
    """

    def __init__(self, file: Path, context: int, exact: bool = True) -> None:
        self.context = context
        self.messages: list[str] = []
        self.api = _api()
        self._log = _LOG(lambda *entry: self.messages.append(entry[1].decode(errors="replace")))
        self.api.llama_log_set(self._log, None)
        self.model = self.api.llama_model_load_from_file(str(file).encode(), self.api.llama_model_default_params())
        if not self.model:
            raise ModelError(f"{file}: llama.cpp does not load it: {self._reason()}")
        self.vocab = self.api.llama_model_get_vocab(self.model)
        self.size = self.api.llama_vocab_n_tokens(self.vocab)
        self.state = self.api.llama_init_from_model(self.model, _context_options(self.api, context, exact))
        if not self.state:
            self.api.llama_model_free(self.model)
            raise ModelError(f"{file}: llama.cpp cannot create a context of {context} tokens: {self._reason()}")

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.api.llama_free(self.state)
        self.api.llama_model_free(self.model)
        self.api.llama_log_set(_silent, None)

    def logits(self, ids: Sequence[int] | np.ndarray, start: int = 0, last: int = 0) -> np.ndarray:
        """The logits after each of `ids`, or the `last` of them: [S, V] in float32.

        Args:
            ids: The tokens, from position `start` on.
            start: Number of tokens before them; 0 clears the KV cache.
            last: Number of positions, counted from the end; 0 for all.
        """
        return self._read(ids, start, last or len(ids))

    def speed(self, prompt: Sequence[int], count: int) -> tuple[float, float]:
        """Seconds to process a prompt, and to generate `count` tokens after it."""
        begin = time.perf_counter()
        token = int(self._read(prompt, 0, last=1)[-1].argmax())
        read = time.perf_counter()
        for i in range(count):
            token = int(self._read([token], len(prompt) + i, last=1)[-1].argmax())
        return read - begin, time.perf_counter() - read

    def _read(self, ids: Sequence[int] | np.ndarray, start: int, last: int) -> np.ndarray:
        """The logits after the `last` tokens of `ids`."""
        if start == 0:
            self.api.llama_memory_clear(self.api.llama_get_memory(self.state), True)
        count = len(ids)
        one = (ctypes.c_int32 * 1)(0)
        batch = _Batch(
            count,
            (ctypes.c_int32 * count)(*map(int, ids)),
            None,
            (ctypes.c_int32 * count)(*range(start, start + count)),
            (ctypes.c_int32 * count)(*[1] * count),
            (ctypes.POINTER(ctypes.c_int32) * count)(*[ctypes.cast(one, ctypes.POINTER(ctypes.c_int32))] * count),
            (ctypes.c_int8 * count)(*[0] * (count - last), *[1] * last),
        )
        code = self.api.llama_decode(self.state, batch)
        if code:
            raise ModelError(f"llama.cpp cannot read {count} tokens: code {code}: {self._reason()}")
        pointer = self.api.llama_get_logits(self.state)
        return np.ctypeslib.as_array(pointer, shape=(last, self.size)).copy()

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Greedy decoding of `count` tokens after `ids`."""
        written: list[int] = []
        last = self.logits(ids)[-1]
        for i in range(count):
            written.append(int(last.argmax()))
            if i + 1 < count:
                last = self.logits(written[-1:], start=len(ids) + i)[-1]
        return written

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """A text's tokens; with `special`, including the tokens that are added before and after it."""
        data = text.encode()
        room = len(data) + 16
        out = (ctypes.c_int32 * room)()
        count = self.api.llama_tokenize(self.vocab, data, len(data), out, room, special, False)
        return list(out[:count])

    def ends(self) -> list[int]:
        """The tokens at which llama.cpp ends an answer: those named in the file, and some recognised by their text."""
        return [token for token in range(self.size) if self.api.llama_vocab_is_eog(self.vocab, token)]

    def _reason(self) -> str:
        lines = [
            line for line in "".join(self.messages).splitlines() if "error" in line.lower() or "fail" in line.lower()
        ]
        return "; ".join(line.strip() for line in lines[:3]) or "no reason given"


def _api() -> ctypes.CDLL:
    """llama.cpp's functions, with their types declared.

    Raises:
        RecipeError: The wheel is missing, or lacks one.
    """
    library = ggml.library()
    missing = [name for name in _NAMES if not hasattr(library, name)]
    if library is None or missing:
        what = "is not installed" if library is None else f"has no {missing[0]} here"
        raise RecipeError(f"export: xllamacpp {what}; it is needed to check GGUF files: `pip install 'prunus[gguf]'`")
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    declared: dict[str, tuple[Any, list[Any]]] = {
        "llama_backend_init": (None, []),
        "llama_model_default_params": (_Options, []),
        "llama_context_default_params": (_Options, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _Options]),
        "llama_init_from_model": (pointer, [pointer, _Options]),
        "llama_decode": (number, [pointer, _Batch]),
        "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [pointer]),
        "llama_get_memory": (pointer, [pointer]),
        "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
        "llama_model_get_vocab": (pointer, [pointer]),
        "llama_vocab_n_tokens": (number, [pointer]),
        "llama_vocab_is_eog": (ctypes.c_bool, [pointer, number]),
        "llama_tokenize": (
            number,
            [pointer, ctypes.c_char_p, number, ctypes.POINTER(number), number, ctypes.c_bool, ctypes.c_bool],
        ),
        "llama_free": (None, [pointer]),
        "llama_model_free": (None, [pointer]),
        "llama_log_set": (None, [pointer, pointer]),
    }
    for name, (result, arguments) in declared.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_silent, None)
    library.llama_backend_init()
    return library


def _context_options(api: ctypes.CDLL, context: int, exact: bool) -> _Options:
    """Options of a context: its length, the number of threads, and with `exact` a KV cache in float32.

    The fields are located by llama.cpp's defaults: 512, 2048, 512 tokens at the start; two numbers of threads, one more
    field, then four choices left to the model (-1); float16 (1, 1) for keys and values, after the last yarn option
    (-1.0) and two pointers.

    Raises:
        RecipeError: The fields cannot be located.
    """
    options = api.llama_context_default_params()
    unset, minus_one = -1, struct.unpack("<i", struct.pack("<f", -1.0))[0]
    choices = [i for i in range(4, 24) if [options[j] for j in range(i, i + 4)] == [unset] * 4]
    yarn = [i for i in range(8, 40) if [options[j] for j in range(i, i + 6)] == [*[minus_one] * 4, 0, minus_one]]
    after = yarn[0] + 6 if yarn else 0
    pointers = after + after % 2
    kinds = [pointers + 4, pointers + 5]
    understood = (
        [options[i] for i in range(3)] == [512, 2048, 512]
        and len(choices) == 1
        and options[choices[0] - 2] == options[choices[0] - 3]
        and bool(yarn)
        and [options[i] for i in kinds] == [ggml.F16] * 2
    )
    if not understood:
        raise RecipeError(
            "export: this version of xllamacpp is not supported; tested with 2026.10.11549: "
            "`pip install xllamacpp==2026.10.11549`"
        )
    options[0] = options[1] = context
    options[choices[0] - 2] = options[choices[0] - 3] = ggml.workers()
    if exact:
        options[choices[0] + 3] = 0  # flash attention
        for i in kinds:
            options[i] = ggml.F32
    return options
