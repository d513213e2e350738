"""Numbers of quantised types: those of ggml's own quantiser, bit for bit, on random and on extreme rows."""

import numpy as np
import pytest
import torch

from prunus.gguf import rounding
from prunus.gguf.rounding import K_QUANTS, decoded, encoded, rounded
from prunus.llamacpp import ggml

IN_TORCH = (ggml.Q4_0, ggml.Q5_0, ggml.Q5_1, ggml.Q8_0)


def rows(name: str) -> torch.Tensor:
    torch.manual_seed(0)
    normal = torch.randn(300, 512)
    return {
        "normal": lambda: normal,
        "bfloat16, with ties": lambda: normal.bfloat16().float(),
        "float16": lambda: normal.half().float(),
        "whole numbers, with ties of both signs": lambda: torch.randint(-8, 9, (300, 512)).float(),
        "halves": lambda: torch.randint(-16, 17, (300, 512)) / 2,
        "a scale that is denormal in float16": lambda: normal * 1e-7,
        "a scale that is denormal in float32": lambda: normal * 1e-40,
        "the smallest numbers": lambda: normal * 1e-44,
        "large": lambda: normal * 1e4,
        "a scale that float16 does not hold": lambda: normal * 1e7,
        "of very different sizes": lambda: normal * torch.exp(4 * torch.randn(300, 512)),
        "zeros": lambda: torch.zeros(4, 512),
        "zeros of both signs": lambda: torch.zeros(4, 512).copysign(normal[:4]),
        "blocks of zeros among others": lambda: normal * (torch.rand(300, 16, 1) > 0.5).expand(-1, -1, 32).flatten(1),
        "equal": lambda: torch.full((4, 512), -0.37),
        "alone": lambda: torch.nn.functional.one_hot(torch.arange(300), 512) * normal,
        "positive": normal.abs,
    }[name]()


NAMES = (
    "normal", "bfloat16, with ties", "float16", "whole numbers, with ties of both signs", "halves",
    "a scale that is denormal in float16", "a scale that is denormal in float32", "the smallest numbers", "large",
    "a scale that float16 does not hold", "of very different sizes", "zeros", "zeros of both signs",
    "blocks of zeros among others", "equal", "alone", "positive",
)  # fmt: skip

needs_ggml = pytest.mark.skipif(not ggml.can_quantise(), reason="the extra `gguf` is not installed")


def by_ggml(values: torch.Tensor, kind: int) -> torch.Tensor:
    return torch.from_numpy(ggml.dequantise(ggml.quantise(values.contiguous().numpy(), kind), kind))


@needs_ggml
@pytest.mark.parametrize("kind", IN_TORCH, ids=ggml.NAMES.get)
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_ggmls(kind: int, name: str) -> None:
    values = rows(name)
    before = values.clone()
    torch.testing.assert_close(rounded(values, kind), by_ggml(values, kind), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(values, before)


@pytest.mark.parametrize("kind", IN_TORCH, ids=ggml.NAMES.get)
def test_numbers_are_those_of_ggufs_numpy_where_it_writes_the_file(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quants = pytest.importorskip("gguf", reason="the extra `gguf` is not installed").quants
    monkeypatch.setattr(ggml, "can_quantise", lambda: False)
    rounding._is_fused.cache_clear()
    try:
        for name in ("normal", "bfloat16, with ties", "halves", "zeros"):
            values = rows(name)
            data = quants.quantize(values.numpy(), quants.GGMLQuantizationType(kind))
            there = quants.dequantize(data, quants.GGMLQuantizationType(kind))
            assert torch.equal(rounded(values, kind), torch.from_numpy(there)), name
    finally:
        rounding._is_fused.cache_clear()


@needs_ggml
@pytest.mark.parametrize("kind", K_QUANTS, ids=ggml.NAMES.get)
def test_k_quants_are_ggmls_however_many_rows_are_made_at_once(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quants = pytest.importorskip("gguf", reason="the extra `gguf` is not installed").quants
    values = rows("normal")[:60]
    monkeypatch.setattr(rounding, "_PIECE", 7 * 512)
    monkeypatch.setattr(ggml, "workers", lambda: 3)
    data = encoded(values, kind)
    whole = ggml.quantise(values.numpy(), kind)
    assert np.array_equal(data.numpy(), whole)
    there = quants.dequantize(whole, quants.GGMLQuantizationType(kind))
    torch.testing.assert_close(decoded(data, kind, values.device), torch.from_numpy(there), rtol=1e-6, atol=1e-7)
    assert torch.equal(rounded(values, kind), by_ggml(values, kind))


@pytest.mark.parametrize("kind", [ggml.F32, ggml.F16, ggml.BF16], ids=ggml.NAMES.get)
def test_floats_are_rounded_to_nearest(kind: int) -> None:
    dtype = {ggml.F32: torch.float32, ggml.F16: torch.float16, ggml.BF16: torch.bfloat16}[kind]
    values = rows("normal")
    assert torch.equal(rounded(values, kind), values.to(dtype).float())
    assert torch.equal(rounded(values[0], kind), values[0].to(dtype).float())


def test_a_compiler_that_fuses_products_and_sums_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """-8.25 / (-12 / -8) + 8.5 is 2.9999998 with one rounding, and 3 with two."""
    values = torch.zeros(1, 32)
    values[0, :2] = torch.tensor([-12.0, -8.25])
    found = {}
    for fused in (True, False):
        monkeypatch.setattr(rounding, "_is_fused", lambda fused=fused: fused)
        found[fused] = rounded(values, ggml.Q4_0)[0, 1].item()
    assert found == {True: -9.0, False: -7.5}


def test_rows_do_not_depend_on_each_other() -> None:
    values = rows("bfloat16, with ties")
    order = torch.randperm(len(values))
    for kind in IN_TORCH:
        assert torch.equal(rounded(values[order], kind), rounded(values, kind)[order])
