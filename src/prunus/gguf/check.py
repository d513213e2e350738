"""Compares a GGUF file in llama.cpp with the model that it was made from in transformers.

A wrong file can still write fluent text: a missing rope scaling changes no top-1 prediction on short texts. So a
float32 file must first give the same logits up to rounding; the other files are then measured by KL.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.models import Unigram
from transformers import PreTrainedModel

from prunus.errors import ExportError
from prunus.gguf.compare import ENLARGED, TABLE, Agreement, first_departure
from prunus.llamacpp.running import Running

TOLERANCE = 5e-4
"""For a float32 file: the largest difference between two logits, in units of the logits' standard deviation.

llama.cpp computes each rotary pair's angle from the previous pair's, so its rounding grows with the position: to
1.8e-4 at 500 tokens in a trained model of head_dim 48, 1e-5 at 64. The smallest fault that was tried on it, an epsilon
of 1e-5 in place of 1e-6, gives 8e-3.
"""

_ROUNDED_AT = 512  # tokens at which TOLERANCE was measured; beyond that it grows in proportion to the length

_ACTIVATIONS = ("act", "act_fn", "activation_fn")  # what transformers calls the activation of an MLP

LAST = 64
"""Number of tokens that are compared at the end of a text longer than the original context."""

LIMITS = {"gguf-f16": 1e-3, "gguf-bf16": 2e-2}
"""Largest KL, in nats per token, of 16-bit files. For files with fewer bits, KL is recorded without a limit."""

PROBES = (
    "Once upon a time, there was a little girl named Lily.",
    "The year 1984, 3.14159 and 1,000,000 or 12345678901234567890; tel. +49-30-12345.",
    "I'm sure they'll say it's DON'T or WE'VE, we'd've; the '90s, rock 'n' roll.",
    'def main(x):\n\tif x >= 10:\n\t\treturn {"key": [x ** 2, None]}\n\n\n# end\r\n',
    "two  spaces   three    four     five\ttab \t both \n \n\n lines   ",
    "Grüße aus Köln, ça va? naïve façade; Ærø, łódź, Đà Nẵng, İstanbul, ẞ.",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم.",
    "नमस्ते दुनिया। สวัสดีชาวโลก",
    "你好，世界。今天是2024年。 こんにちは世界、カタカナ。 안녕하세요 세계!",
    "Emoji 😀👩‍👩‍👧‍👦🏳️‍🌈 and symbols €£¥ ½ ™ → ∑ ≠ ∞ 𝔘𝔫𝔦",
    "ALLCAPS camelCaseWord snake_case_word kebab-case-word C++ C# a/b\\c <tag attr='v'/>",
    "…—–‘quoted’ “double” «guillemets» !?!?!? ... ---- ==== ____ #### ////",
)
"""Texts on which pre-tokenizers differ: digits, contractions, spaces, code, scripts, marks, emoji, symbols."""


@dataclass(frozen=True)
class Reference:
    """The model in transformers, and the text on which files are compared with it.

    Attributes:
        model: The model in float32.
        tokenizer: Its tokenizer, as transformers loads it.
        windows: Windows of token ids.
        is_text: Whether the windows are real text, not random tokens.
        limit: The longest text, in tokens, on which both must agree.
        beyond: A longer text on which both must agree if llama.cpp is started with a context of that size: it checks
            the long factors of longrope.
        ends: The tokens that end an answer.
    """

    model: PreTrainedModel
    tokenizer: Any
    windows: list[np.ndarray]
    is_text: bool
    limit: int
    beyond: np.ndarray | None = None
    ends: tuple[int, ...] = ()

    @torch.no_grad()
    def logits(self, ids: Sequence[int] | np.ndarray, last: int = 0) -> np.ndarray:
        """The model's logits after each of `ids`, or the `last` of them: [S, V] in float32."""
        batch = torch.tensor([[int(i) for i in ids]], device=self.model.device)
        return self.model(input_ids=batch, use_cache=False, logits_to_keep=last).logits[0].float().cpu().numpy()

    @torch.no_grad()
    def rounding(self) -> Agreement:
        """The model's own rounding error: float32 compared with float64, on the windows."""
        found, exact = Agreement(), deepcopy(self.model).double()
        for ids in self.windows:
            batch = torch.tensor([[int(i) for i in ids]], device=exact.device)
            found.add(ids, exact(input_ids=batch, use_cache=False).logits[0].cpu().numpy(), self.logits(ids))
        return found

    def halved(self) -> Agreement:
        """The error of a half-precision activation, on the windows: llama.cpp reads GELU from such a table."""
        found = Agreement()
        exact = [self.logits(ids) for ids in self.windows]
        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                if name.rpartition(".")[2] in _ACTIVATIONS:
                    hooks.callback(module.register_forward_pre_hook(lambda _, given: (_half(given[0]),)).remove)
                    hooks.callback(module.register_forward_hook(lambda _, __, made: _half(made)).remove)
            for ids, logits in zip(self.windows, exact, strict=True):
                found.add(ids, logits, self.logits(ids))
        return found

    def start(self, tokens: int) -> Reference:
        """The same reference with its first windows only: as many as have `tokens` tokens, at least one."""
        ends = np.cumsum([len(window) for window in self.windows])
        return replace(self, windows=self.windows[: max(1, int(np.searchsorted(ends, tokens, side="right")))])

    @property
    def context(self) -> int:
        """The longest window."""
        return max(len(window) for window in self.windows)


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.half().to(values.dtype)


def check_tokens(running: Running, reference: Reference, file: Path, without_marks: bool = False) -> int:
    """Compare llama.cpp's tokens of texts with transformers'.

    Args:
        running: The file in llama.cpp.
        reference: The model.
        file: The file's name, for messages.
        without_marks: Whether to skip texts with combining marks, which llama.cpp is known to tokenise differently.

    Returns:
        The number of texts.

    Raises:
        ExportError: The tokens of a text differ; names the text and both tokenisations.
    """
    tokenizer = reference.tokenizer
    # of two segmentations with the same tokens in another order, rounding decides which one a Unigram chooses
    ties = isinstance(tokenizer.backend_tokenizer.model, Unigram)
    texts = [unicodedata.normalize("NFC", text) for text in PROBES]
    if reference.is_text:
        texts += [tokenizer.decode(window, skip_special_tokens=True) for window in reference.windows[:64]]
    if without_marks:
        texts = [text for text in texts if not any(unicodedata.category(c).startswith("M") for c in text)]
    for text in texts:
        for special in (False, True):
            expected = tokenizer(text, add_special_tokens=special)["input_ids"]
            actual = running.tokenize(text, special)
            if actual != expected and not (ties and sorted(actual) == sorted(expected)):
                i = next((i for i, pair in enumerate(zip(actual, expected, strict=False)) if pair[0] != pair[1]), 0)
                raise ExportError(
                    f"{file.name}: llama.cpp tokenises {text[:60]!r} differently from transformers, from token {i} "
                    f"on: {actual[i : i + 6]}, expected {expected[i : i + 6]}"
                )
    return len(texts)


def check_ends(running: Running, reference: Reference, file: Path) -> list[int]:
    """Compare the tokens at which llama.cpp ends an answer with those of transformers.

    Returns:
        Further tokens at which llama.cpp ends: it recognises some by their text, and a file cannot prevent that.

    Raises:
        ExportError: llama.cpp does not end at a token at which transformers does.
    """
    found = running.ends()
    missing = [reference.tokenizer.convert_ids_to_tokens(end) for end in reference.ends if end not in found]
    if missing:
        raise ExportError(
            f"{file.name}: transformers ends an answer at {', '.join(map(repr, missing))}, but llama.cpp continues: a "
            "file can name three end tokens (eos, eot, eom). What works: fewer tokens in eos_token_id of "
            "generation_config.json"
        )
    return [end for end in found if end not in reference.ends]


def prove(
    file: Path, reference: Reference, new_tokens: int, coarse: bool, without_marks: bool = False
) -> dict[str, Any]:
    """Compare a float32 file with its model: tokens, end tokens, logits, and greedy continuations.

    Args:
        file: The GGUF file.
        reference: The model.
        new_tokens: Number of tokens to generate after the start of the first window.
        coarse: Whether llama.cpp rounds the activation to half precision.
        without_marks: See `check_tokens`.

    Raises:
        ExportError: They differ.
    """
    opening = [int(i) for i in reference.windows[0][: max(1, min(8, reference.context // 4))]]
    new_tokens = min(new_tokens, reference.limit - len(opening))
    room = max(reference.context, len(opening) + new_tokens)
    with Running(file, room) as running:
        texts = check_tokens(running, reference, file, without_marks)
        other_ends = check_ends(running, reference, file)
        found = _agreement(running, reference)
        allowed = _allowed(found, TOLERANCE, file, rounding=_rounding(reference, coarse))
        written = running.greedy(opening, new_tokens) if new_tokens else []
    if written:
        logits = reference.logits([*opening, *written[:-1]])[len(opening) - 1 :]
        apart = first_departure(written, logits, 2 * allowed)
        if apart is not None:
            raise ExportError(
                f"{file.name}: greedy decoding differs between llama.cpp and transformers from token {apart + 1} on"
            )
    figures: dict[str, Any] = {
        **found.figures(reference.is_text),
        "texts_tokenised_alike": texts,
        "greedy_tokens_alike": len(written),
        "other_ends": [str(reference.tokenizer.convert_ids_to_tokens(end)) for end in other_ends],
    }
    if reference.beyond is not None:
        figures["difference_beyond"] = _prove_beyond(file, reference, reference.beyond, TOLERANCE)
    return figures


def _prove_beyond(file: Path, reference: Reference, ids: np.ndarray, tolerance: float) -> float:
    """Compare the end of a text that is longer than the original context; rounding errors grow with the position."""
    with Running(file, len(ids)) as running:
        found = Agreement()
        found.add(ids[-LAST:], reference.logits(ids, LAST), running.logits(ids, LAST))
    _allowed(found, tolerance * max(1.0, len(ids) / _ROUNDED_AT), file, f" after {len(ids)} tokens")
    return found.difference


def _rounding(reference: Reference, coarse: bool) -> Callable[[Agreement], bool]:
    """A test whether a difference is rounding, measured on the model itself: some models amplify rounding a lot."""
    if coarse:
        return lambda found: found.is_within(reference.halved(), TABLE)
    return lambda found: found.is_within(reference.rounding(), ENLARGED)


def _allowed(
    found: Agreement, tolerance: float, file: Path, where: str = "", rounding: Callable[[Agreement], bool] | None = None
) -> float:
    """The difference that rounding explains, by the usual tolerance or by the model's own `rounding`.

    Raises:
        ExportError: The difference is larger.
    """
    allowed = tolerance * found.spread
    if not found.is_rounding(tolerance) and not (rounding and rounding(found)):
        raise ExportError(
            f"{file.name}: in float32, llama.cpp's logits{where} differ from transformers' by {found.difference:.3g}, "
            f"but rounding explains only {allowed:.2g}: the file does not compute what the model computes. This is a "
            "bug in the export; please report it with the model's config.json"
        )
    return max(allowed, found.difference)


def measure(files: Mapping[str, Path], reference: Reference, on_progress: Callable[[float], None]) -> dict[str, Any]:
    """Measure how far files differ from their model, which runs once for all of them.

    Args:
        files: The file of each format.
        reference: The model.
        on_progress: Called with the number of windows done.

    Returns:
        The figures of each format.

    Raises:
        ExportError: A KL is not a number, or above the format's limit.
    """
    found = {name: Agreement() for name in files}
    with ExitStack() as stack:
        running = {name: stack.enter_context(Running(file, reference.context)) for name, file in files.items()}
        for done, window in enumerate(reference.windows, start=1):
            logits = reference.logits(window)
            for name, one in running.items():
                found[name].add(np.asarray(window, dtype=np.int64), logits, one.logits(window))
            on_progress(done)
    for name, file in files.items():
        kl = found[name].mean_kl
        if not kl <= LIMITS.get(name, np.inf):
            limit = f"; allowed: {LIMITS[name]:g}" if name in LIMITS else ""
            raise ExportError(f"{file.name}: KL to the model is {kl:.3g} nats per token{limit}")
    return {name: agreement.figures(reference.is_text) for name, agreement in found.items()}


def _agreement(running: Running, reference: Reference) -> Agreement:
    found = Agreement()
    for window in reference.windows:
        found.add(np.asarray(window, dtype=np.int64), reference.logits(window), running.logits(window))
    return found
