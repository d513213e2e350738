"""A CUDA device that a CPU pretends to be: tensors say that they are on `cuda:0`, and are computed on the CPU.

An operation on tensors of two devices fails here as it would on a GPU, and so does reading a tensor as an array. What
this does not show: kernels that CUDA lacks, autocast, memory, and code that runs only if `torch.cuda.is_available()`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import accelerate
import torch
import transformers
from torch.overrides import _get_current_function_mode_stack as modes
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda:0")
_BYTES = 10**10  # of its memory


class OnDevice(torch.Tensor):
    """A tensor there; `host` has its values. To autograd it is a `meta` tensor, which a build without CUDA knows."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_meta = property(lambda _: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnDevice:
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "dtype": host.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, host.shape, device="meta", **layout)
        made.host = host
        return made

    def tolist(self) -> Any:
        """As of any tensor, which subclasses must define."""
        return self.host.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """As of a tensor of a GPU."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __getitem__(self, index: Any) -> Any:
        """A list becomes a tensor here, since torch would make a `meta` tensor of it."""
        return super().__getitem__(torch.as_tensor(index) if isinstance(index, list) else index)

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Also takes operations that make tensors there."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do one operation on the CPU, if a GPU would."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    here = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
    name = func._schema.name
    moves = name in ("aten::_to_copy", "aten::copy_") or (name.startswith("aten::index") and there[:1] == tensors[:1])
    scalars = torch.Tag.pointwise in func.tags  # these take a number from the CPU
    if there and not moves and any(tensor.ndim or not scalars for tensor in here):
        sizes = [(str(tensor.device), tuple(tensor.shape)) for tensor in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} of {sizes}")
    target = bool(there) if name != "aten::copy_" else isinstance(args[0], OnDevice)
    if kwargs.get("device") is not None:
        target = torch.device(kwargs["device"]).type in ("cuda", "meta")
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(_host, args), tree_map(_host, kwargs)
    if name == "aten::mm" and "dtype" in func._overloadname:  # products in bfloat16 with sums in float32: CUDA's alone
        result = kwargs["out"].copy_(args[0].float() @ args[1].float())
    elif name == "aten::histc":  # of whole numbers, which the CPU does not count
        result = func(args[0].float(), *args[1:], **kwargs).to(args[0].dtype)
    else:
        result = func(*args, **kwargs)
    known = {id(tensor.host): tensor for tensor in there}  # operations in place return what they were given

    def placed(value: Any) -> Any:
        return known.get(id(value), OnDevice(value) if target else value) if isinstance(value, torch.Tensor) else value

    return tree_map(placed, result)


def _host(value: Any) -> Any:
    return value.host if isinstance(value, OnDevice) else value


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Within this context there is a CUDA device, which it gives."""
    memory = {
        "mem_get_info": (_BYTES, _BYTES),
        "max_memory_allocated": 1,
        "current_device": 0,
        "get_device_capability": (9, 0),
    }
    nothing = ("_lazy_init", "synchronize", "reset_peak_memory_stats", "empty_cache", "set_device")
    model = transformers.PreTrainedModel
    with ExitStack() as stack:
        for name, value in {**memory, **dict.fromkeys(nothing), "is_bf16_supported": True}.items():
            stack.enter_context(patch.object(torch.cuda, name, _always(value)))
        stack.enter_context(patch.object(torch.cuda, "Event", _Event))
        for name in ("tensor", "as_tensor"):  # these make tensors past every mode
            stack.enter_context(patch.object(torch, name, _moved(getattr(torch, name))))
        stack.enter_context(patch.object(model, "save_pretrained", _saved(model.save_pretrained)))
        stack.enter_context(patch.object(accelerate.PartialState, "default_device", DEVICE))
        stack.enter_context(patch("transformers.training_args.is_torch_bf16_gpu_available", _always(True)))
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", _always(False)))
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters get another class
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, False)
        stack.enter_context(_Mode())
        yield DEVICE


class _Event:
    """A moment on the device."""

    def __init__(self, **_: Any) -> None:
        self.seconds = 0.0

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, later: _Event) -> float:
        """In milliseconds."""
        return 1000 * (later.seconds - self.seconds)


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _moved(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function that makes tensors on the CPU and moves them to `device`."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        device = device or next((mode.device for mode in modes() if isinstance(mode, DeviceContext)), None)
        if device is None or torch.device(device).type != "cuda":
            return make(*args, device=device, **kwargs)
        tensor = make(*args, **kwargs) if isinstance(args[0], torch.Tensor) else make(*args, device="cpu", **kwargs)
        return tensor.to(device)

    return made


def _saved(save: Callable[..., None]) -> Callable[..., None]:
    """`save_pretrained`, which tells tied weights by their memory, of the weights on the CPU."""

    def saved(self: Any, folder: Any, **options: Any) -> None:
        tied = ("lm_head.weight",) if self.config.tie_word_embeddings else ()
        state = {name: value.cpu() for name, value in self.state_dict().items() if name not in tied}
        save(self, folder, state_dict=state, **options)

    return saved
