"""What is said about this machine."""

from __future__ import annotations

import os

from prunus.pipeline.machine import busy


def test_a_load_of_all_cores_is_busy(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.9, 9.0, 9.0))
    assert busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert busy() is not None
    assert "3.0 on 3 cores" in busy()
