"""Loading and saving models with stock transformers: device, dtype, and a check that the saved files are right."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from prunus.errors import ModelError, RecipeError
from prunus.models.checkpoint import DTYPES
from prunus.models.compatible import make_compatible
from prunus.models.folder import ModelFolder
from prunus.models.foreign import check_no_adapter
from prunus.models.pretrained import load_part
from prunus.models.settings import dtype_name
from prunus.models.texts import read_model_json
from prunus.runtime import Runtime

disable_progress_bar()  # the console shows one progress line per step


def device_of(runtime: Runtime) -> torch.device:
    """The device selected by `runtime.device`.

    Raises:
        RecipeError: The device does not exist.
    """
    if runtime.device == "auto":  # with several CUDA devices, this process's
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(runtime.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(chr(10))[0]
        raise RecipeError(f"runtime.device: {runtime.device!r} cannot be used here: {reason}") from None
    return device


def inference_dtype(runtime: Runtime, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: that of forward passes without gradients, and of training under autocast.

    `precision: auto` is bfloat16 on CUDA devices that support it, else float32; for a CPU, a run replaces `auto` by the
    faster one first (`pipeline/precision.py`).
    """
    if runtime.precision != "auto":
        return torch.float32 if runtime.precision == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model with stock classes and no code from the folder.

    Raises:
        ModelError: Transformers refuses the folder, or had to initialise or to drop weights; there is an adapter; or
            the weights overflow the dtype named in config.json.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder")
    check_no_adapter(folder)
    model, info = load_part(AutoModelForCausalLM, folder, "it", dtype=dtype, output_loading_info=True)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(fault):
            raise ModelError(f"{folder}: {fault.replace('_', ' ')} on loading: {sorted(map(str, info[fault]))[:4]}")
    check_holds(model, folder)
    return ready(model.to(device))


def ready(model: Any) -> PreTrainedModel:
    """A model in evaluation mode, with implementations that compute what its config says."""
    loaded: PreTrainedModel = model.eval()
    _run_experts(loaded)
    _cap_attention(loaded)
    return loaded


def _run_experts(model: PreTrainedModel) -> None:
    """Run experts one by one if torch's grouped matmul does not support them: it needs rows of whole 16 bytes."""
    for module in model.modules() if getattr(model.config, "num_experts_per_tok", None) else ():
        stacked = [value for value in module.parameters(recurse=False) if value.ndim == 3]
        if any(value.shape[-1] * value.itemsize % 16 for value in stacked):
            model.set_experts_implementation("eager")
            return


def _cap_attention(model: PreTrainedModel) -> None:
    """Use eager attention if its logits are capped: transformers before 5.21 uses SDPA, which leaves the cap out."""
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) is not None and config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def save_model(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> float:
    """Save in `dtype` (bfloat16 if the weights overflow it), reload with stock transformers, and compare the logits.

    Returns:
        The largest difference between a logit of the model in memory and of the reloaded one.

    Raises:
        ModelError: The reloaded model gives other logits.
    """
    dtype = dtype_that_holds(model, dtype)
    cast(model, dtype)
    model.save_pretrained(folder)
    make_compatible(folder)
    probe = torch.arange(3, 67, device=model.device).remainder(model.config.vocab_size)[None]
    reopened = load_model(folder, model.device, dtype)
    with torch.no_grad():
        difference = (model(probe).logits.float() - reopened(probe).logits.float()).abs().max().item()
    if not difference <= 1e-5:
        raise ModelError(f"{folder}: reopened, its logits differ from the model in memory by {difference:.3g}")
    return difference


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast what is saved; buffers recomputed on loading, such as rotary frequencies, keep their dtype."""
    tables = [
        (module, name, module._buffers[name])
        for module in model.modules()
        for name in module._non_persistent_buffers_set
    ]
    model.to(dtype=dtype)
    for module, name, table in tables:
        module._buffers[name] = table


def config_dtype(config: Mapping[str, Any], default: str = "float32") -> torch.dtype:
    """The dtype that a config.json names for its weights; `default` if it names none."""
    dtype: torch.dtype = getattr(torch, dtype_name(config) or default)
    return dtype


def saved_dtype(folder: ModelFolder) -> torch.dtype:
    """The dtype in which a model trained from `folder` is saved: config.json's, else that of its weights."""
    if dtype_name(folder.config) is not None:
        return config_dtype(folder.config)
    return next(getattr(torch, name) for name, stored in DTYPES.items() if stored == folder.dtype)


def dtype_that_holds(model: PreTrainedModel, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or bfloat16 with a warning if a finite weight would overflow in it, so that training is not lost."""
    name = _too_large(model, dtype)
    if name is None:
        return dtype
    warnings.warn(f"{name} has grown beyond {dtype}; the model is saved in bfloat16", stacklevel=2)
    return torch.bfloat16


def check_holds(model: PreTrainedModel, folder: Path) -> None:
    """Refuse weights that overflow the dtype named in config.json, before any work.

    Raises:
        ModelError: The message names the first such weight, and the remedy.
    """
    dtype = config_dtype(read_model_json(folder / "config.json"))
    name = _too_large(model, dtype)
    if name is not None:
        raise ModelError(
            f"{folder}: config.json: dtype is {str(dtype).removeprefix('torch.')}, in which {name} would be infinite "
            f"(its largest value is {torch.finfo(dtype).max:g}); write the dtype of the weights, such as bfloat16"
        )


def _too_large(model: torch.nn.Module, dtype: torch.dtype) -> str | None:
    """The first parameter with a finite value that overflows `dtype`; only float16 has so small a range."""
    if dtype != torch.float16:
        return None
    limit = torch.finfo(dtype).max
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if values.dtype != dtype and bool(((values.abs() > limit) & values.isfinite()).any()):
            return name
    return None
