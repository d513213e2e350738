"""Hardware, software versions and peak memory, for an artifact's record."""

from __future__ import annotations

import os
import platform
import resource
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("prunus", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy")
_STATUS = Path("/proc/self/status")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect results."""
    return {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}}


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def hardware() -> str:
    """The processor, the usable cores, and the GPU if torch is loaded and sees one."""
    text = f"{_processor()}, {_cores()} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        text += f", {torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return text


def busy() -> str | None:
    """A warning if other programs use this machine's cores, or None."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _cores():
        return None
    return f"this machine is busy: a load of {load:.1f} on {_cores()} cores; work takes longer than on an idle machine"


def reset_peak_memory() -> None:
    """Restart the measurement of peak memory, if the system supports that."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # not Linux: the peak since the process started, an upper bound
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_memory() -> dict[str, int]:
    """Peak memory since the last reset, in bytes: of the process, and of the GPU if there is one."""
    peak = {"process": _peak_resident()}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["gpu"] = int(torch.cuda.max_memory_allocated())
    return peak


def _peak_resident() -> int:
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
