"""Hardware, software versions and peak memory, for an artifact's record."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import shutil
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prunus.runtime import Runtime

_PACKAGES = ("prunus", "torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy")
_STATUS = Path("/proc/self/status")
_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}  # as Linux names them, on x86 and on Arm


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


def on_gpu(runtime: Runtime) -> bool:
    """Whether work will run on a GPU, as far as can be known without torch."""
    return runtime.device.startswith("cuda") or (runtime.device == "auto" and shutil.which("nvidia-smi") is not None)


def may_have_bfloat16() -> bool:
    """Whether the processor may have products in bfloat16, as far as can be known without torch."""
    features = _cpu_entry("flags", "Features")
    return features is None or not _BFLOAT16.isdisjoint(features.split())


def busy() -> str | None:
    """A warning if other programs use this machine's cores, or None."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _cores():
        return None
    return f"this machine is busy: a load of {load:.1f} on {_cores()} cores; work takes longer than on an idle machine"


def return_memory() -> None:
    """Free what is unreachable, and return it to the system: glibc keeps freed blocks of up to 32 MB for itself.

    After a training step of SmolLM2-135M that was 0.43 GB, which the next step's peak included.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


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
    return _cpu_entry("model name") or platform.processor() or platform.machine()


def _cpu_entry(*names: str) -> str | None:
    """An entry of the first processor in Linux's list; None if there is none."""
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
