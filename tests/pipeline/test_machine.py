"""What is said about this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from prunus.pipeline import machine
from prunus.pipeline.machine import busy, hardware, may_have_bfloat16, peak_memory, reset_peak_memory, return_memory


def test_a_load_of_all_cores_is_busy(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.9, 9.0, 9.0))
    assert busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert busy() is not None
    assert "3.0 on 3 cores" in busy()


@pytest.mark.parametrize(
    ("content", "able"),
    [
        ("processor : 0\nmodel name\t: Xeon\nflags\t\t: fpu sse avx512_bf16 amx_tile\n", True),
        ("processor : 0\nmodel name\t: EPYC\nflags\t\t: fpu avx2\n", False),
        ("processor : 0\nFeatures : fp asimd bf16 i8mm\n", True),
        ("processor : 0\nFeatures : fp asimd\n", False),
        ("processor : 0\n", True),
        (None, True),
    ],
)
def test_what_linux_says_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, able: bool
) -> None:
    if content is not None:
        (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert may_have_bfloat16() is able
    named = "model name" in (content or "")
    assert not named or hardware().startswith(("Xeon, ", "EPYC, "))


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps freed blocks")
def test_freed_memory_is_no_part_of_the_next_peak() -> None:
    return_memory()
    reset_peak_memory()
    before = peak_memory()["process"]
    blocks, kept = [], []
    for _ in range(2000):
        blocks.append(np.ones(12_000))  # 96 kB: smaller than what glibc maps by itself
        kept.append(np.ones(100))  # between them, so that no end of the heap is free
    del blocks
    return_memory()
    reset_peak_memory()
    assert len(kept) == 2000
    assert peak_memory()["process"] < before + 100e6
