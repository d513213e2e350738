"""A GGUF file in a real llama.cpp, held against the model that it was made from in transformers.

A file that computes otherwise still writes fluent text: a missing rope scaling leaves every first choice of short texts
as it is. So one file in float32 must give the same logits to rounding; only then are the others judged, by KL.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
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
"""Of a float32 file: the largest difference between two logits, in units of the logits' standard deviation.

llama.cpp makes the angle of each rotary pair from that of the pair before, so its rounding grows with the position: to
1.8e-4 at 500 tokens in a trained model of head_dim 48, 1e-5 at 64. The smallest fault that was tried there, an epsilon
of 1e-5 in place of 1e-6, gives 8e-3.
"""

_ROUNDED_AT = 512  # tokens at which TOLERANCE was found; the angles' rounding grows in proportion from there on

_ACTIVATIONS = ("act", "act_fn")  # what transformers calls the activation of an MLP

LAST = 64
"""Tokens at the end of a text beyond the first context that are compared."""

LIMITS = {"gguf-f16": 1e-3, "gguf-bf16": 2e-2}
"""KL in nats per token that 16 bits may cost. What fewer bits cost is recorded, and for the reader to judge."""

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
"""Texts on which pre-tokenizers part ways: digits, contractions, spaces, code, scripts, marks, emoji, symbols."""


@dataclass(frozen=True)
class Reference:
    """The model in transformers, and the text that files are held against it on.

    Attributes:
        model: In float32.
        tokenizer: As transformers loads it.
        windows: Token ids, a stretch each.
        is_text: Whether they are text that somebody wrote.
        limit: The longest text on which both are to say the same.
        beyond: A text longer than that, on which they are too when llama.cpp is started with room for it: what the
            long factors of longrope are checked on.
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
        """What float32 makes of the windows, against the same model in float64."""
        found, exact = Agreement(), deepcopy(self.model).double()
        for ids in self.windows:
            batch = torch.tensor([[int(i) for i in ids]], device=exact.device)
            found.add(ids, exact(input_ids=batch, use_cache=False).logits[0].cpu().numpy(), self.logits(ids))
        return found

    def halved(self) -> Agreement:
        """What an activation in half precision makes of the windows: llama.cpp reads GELU from such a table."""
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

    @property
    def context(self) -> int:
        """The longest window."""
        return max(len(window) for window in self.windows)


def _half(values: torch.Tensor) -> torch.Tensor:
    return values.half().to(values.dtype)


def check_tokens(running: Running, reference: Reference, file: Path, without_marks: bool = False) -> int:
    """Hold llama.cpp's tokens of texts against transformers'.

    Args:
        running: The file.
        reference: The model.
        file: Its name, for messages.
        without_marks: Whether texts with combining marks are left out: llama.cpp is known to cut them otherwise.

    Returns:
        How many texts there were.

    Raises:
        ExportError: One has other tokens; with the text and both.
    """
    tokenizer = reference.tokenizer
    # of two cuts into the same tokens in another order, a Unigram takes the one that rounding makes likelier
    ties = isinstance(tokenizer.backend_tokenizer.model, Unigram)
    texts = [unicodedata.normalize("NFC", text) for text in PROBES]
    if reference.is_text:
        texts += [tokenizer.decode(window, skip_special_tokens=True) for window in reference.windows[:64]]
    if without_marks:
        texts = [text for text in texts if not any(unicodedata.category(c).startswith("M") for c in text)]
    for text in texts:
        for special in (False, True):
            wanted = tokenizer(text, add_special_tokens=special)["input_ids"]
            found = running.tokenize(text, special)
            if found != wanted and not (ties and sorted(found) == sorted(wanted)):
                i = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), 0)
                raise ExportError(
                    f"{file.name}: llama.cpp cuts {text[:60]!r} into other tokens than transformers, from token {i} "
                    f"on: {found[i : i + 6]}, and {wanted[i : i + 6]} there"
                )
    return len(texts)


def check_ends(running: Running, reference: Reference, file: Path) -> list[int]:
    """Hold the tokens at which llama.cpp ends an answer against those of transformers.

    Returns:
        Those at which llama.cpp ends too: some it knows by their text, and a file cannot say otherwise.

    Raises:
        ExportError: One of transformers' is missing.
    """
    found = running.ends()
    missing = [reference.tokenizer.convert_ids_to_tokens(end) for end in reference.ends if end not in found]
    if missing:
        raise ExportError(
            f"{file.name}: transformers ends an answer at {', '.join(map(repr, missing))}, and llama.cpp goes on: a "
            "file names three such tokens at most (eos, eot, eom). What works: fewer of them as eos_token_id in "
            "generation_config.json"
        )
    return [end for end in found if end not in reference.ends]


def prove(
    file: Path, reference: Reference, new_tokens: int, coarse: bool, without_marks: bool = False
) -> dict[str, Any]:
    """Hold a float32 file against its model: tokens, ends, logits, and what both write on.

    Args:
        file: The GGUF file.
        reference: The model.
        new_tokens: How many tokens to write after the opening of the first window.
        coarse: Whether llama.cpp rounds the activation.
        without_marks: As of `check_tokens`.

    Raises:
        ExportError: They are not the same.
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
            raise ExportError(f"{file.name}: greedy, llama.cpp and transformers part ways at token {apart + 1}")
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
    """Hold the end of a text that is longer than the first context; rounding grows with the position."""
    with Running(file, len(ids)) as running:
        found = Agreement()
        found.add(ids[-LAST:], reference.logits(ids, LAST), running.logits(ids, LAST))
    _allowed(found, tolerance * max(1.0, len(ids) / _ROUNDED_AT), file, f" after {len(ids)} tokens")
    return found.difference


def _rounding(reference: Reference, coarse: bool) -> Callable[[Agreement], bool]:
    """Whether a difference is no more than rounding: measured on the model itself, since some enlarge it a lot."""
    if coarse:
        return lambda found: found.is_as_rounded_as(reference.halved(), TABLE)
    return lambda found: found.is_as_rounded_as(reference.rounding(), ENLARGED)


def _allowed(
    found: Agreement, tolerance: float, file: Path, where: str = "", rounding: Callable[[Agreement], bool] | None = None
) -> float:
    """The difference that rounding accounts for: by a usual tolerance, or by what the model's own `rounding` comes to.

    Raises:
        ExportError: The difference is larger.
    """
    allowed = tolerance * found.spread
    if not found.is_rounding(tolerance) and not (rounding and rounding(found)):
        raise ExportError(
            f"{file.name}: in float32, llama.cpp's logits{where} differ from transformers' by {found.difference:.3g}, "
            f"and rounding accounts for {allowed:.2g}; the file does not compute what the model computes. This is a "
            "fault of the export: please report it, with the config.json"
        )
    return max(allowed, found.difference)


def judge(file: Path, format_name: str, reference: Reference) -> dict[str, float]:
    """Measure what a file of fewer bits says beside its model.

    Raises:
        ExportError: It says nonsense, or more than 16 bits cost.
    """
    with Running(file, reference.context) as running:
        found = _agreement(running, reference)
    if not found.mean_kl <= LIMITS.get(format_name, np.inf):
        limit = f", and {LIMITS[format_name]:g} is what it may cost" if format_name in LIMITS else ""
        raise ExportError(f"{file.name}: KL to the model is {found.mean_kl:.3g} nats per token{limit}")
    return found.figures(reference.is_text)


def _agreement(running: Running, reference: Reference) -> Agreement:
    found = Agreement()
    for window in reference.windows:
        found.add(np.asarray(window, dtype=np.int64), reference.logits(window), running.logits(window))
    return found
