"""Models in memory, through stock transformers: where they go, in what type, and whether they came back whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from prunus.errors import ModelError, RecipeError
from prunus.models.checkpoint import DTYPES
from prunus.models.compatible import make_compatible
from prunus.models.folder import ModelFolder
from prunus.models.foreign import check_no_adapter
from prunus.models.settings import named_dtype
from prunus.models.texts import read_model_json
from prunus.models.token_rows import guarded
from prunus.runtime import Runtime

disable_progress_bar()  # the console shows progress, one line a step


def device_of(runtime: Runtime) -> torch.device:
    """The device that a runtime names.

    Raises:
        RecipeError: It names CUDA, and there is none.
    """
    if runtime.device == "auto":  # of several CUDA devices that of this process
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(runtime.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition(chr(10))[0]
        raise RecipeError(f"runtime.device: {runtime.device!r} cannot be used here: {reason}") from None
    return device


def inference_dtype(runtime: Runtime, device: torch.device) -> torch.dtype:
    """The type of forward passes without gradients: float32 on a CPU, bfloat16 where CUDA has it."""
    if runtime.precision not in ("auto", "probe"):
        return torch.float32 if runtime.precision == "float32" else torch.bfloat16
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load_model(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model as a stranger would: stock classes, no code from the folder.

    Raises:
        ModelError: Transformers refuses the folder, or had to invent or to drop weights; there is an adapter; or the
            type that config.json names cannot hold the weights.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder")
    check_no_adapter(folder)
    model, info = _loaded(AutoModelForCausalLM, folder, "it", dtype=dtype, output_loading_info=True)
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(fault):
            raise ModelError(f"{folder}: {fault.replace('_', ' ')} on loading: {sorted(map(str, info[fault]))[:4]}")
    check_holds(model, folder)
    loaded: PreTrainedModel = model.to(device).eval()
    _run_experts(loaded)
    return loaded


def _run_experts(model: PreTrainedModel) -> None:
    """Experts whose rows torch's grouped product does not take, whole 16 bytes, run one after the other."""
    for module in model.modules() if getattr(model.config, "num_experts_per_tok", None) else ():
        stacked = [value for value in module.parameters(recurse=False) if value.ndim == 3]
        if any(value.shape[-1] * value.itemsize % 16 for value in stacked):
            model.set_experts_implementation("eager")
            return


def load_config(folder: Path) -> PreTrainedConfig:
    """Load a config.json as a stranger would, with transformers' defaults filled in.

    Raises:
        ModelError: Transformers refuses it.
    """
    found = _loaded(AutoConfig, folder, "its config.json")
    assert isinstance(found, PreTrainedConfig)
    return found


def chat_templates(tokenizer: Any) -> dict[str, str]:
    """The chat templates of a loaded tokenizer by name; the usual one is `default`."""
    found = tokenizer.chat_template
    if found is None:
        return {}
    return dict(found) if isinstance(found, Mapping) else {"default": str(found)}


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer as a stranger would; text with tokens that the model's embedding has no row for it refuses.

    Raises:
        ModelError: Transformers refuses it.
    """
    return guarded(_loaded(AutoTokenizer, folder, "its tokenizer"), folder)


def _loaded(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    """What one of transformers' Auto classes loads from a folder, with none of its code.

    Raises:
        ModelError: Transformers refuses it.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # a folder can be wrong in as many ways as transformers reads it
        raise ModelError(f"{folder}: transformers does not load {what}: {type(error).__name__}: {error}") from None


def save_model(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> float:
    """Save in `dtype` (bfloat16 where it cannot hold the weights), reopen as a stranger would, and compare the answers.

    Returns:
        The largest difference between any logit of the model in memory and of the one reopened.

    Raises:
        ModelError: The reopened model does not say the same.
    """
    dtype = dtype_that_holds(model, dtype)
    _cast(model, dtype)
    model.save_pretrained(folder)
    make_compatible(folder)
    probe = torch.arange(3, 67, device=model.device).remainder(model.config.vocab_size)[None]
    reopened = load_model(folder, model.device, dtype)
    with torch.no_grad():
        difference = (model(probe).logits.float() - reopened(probe).logits.float()).abs().max().item()
    if not difference <= 1e-5:
        raise ModelError(f"{folder}: reopened, its logits differ from the model in memory by {difference:.3g}")
    return difference


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast what is saved; tables that are computed anew on loading, such as rotary frequencies, stay as they are."""
    tables = [
        (module, name, module._buffers[name])
        for module in model.modules()
        for name in module._non_persistent_buffers_set
    ]
    model.to(dtype=dtype)
    for module, name, table in tables:
        module._buffers[name] = table


def dtype_named(config: Mapping[str, Any], default: str = "float32") -> torch.dtype:
    """The type that a config.json names for its weights; `default` where it names none."""
    dtype: torch.dtype = getattr(torch, named_dtype(config) or default)
    return dtype


def saved_dtype(folder: ModelFolder) -> torch.dtype:
    """The type that a model trained from `folder` is saved in: as transformers, config.json's, else its weights'."""
    if named_dtype(folder.config) is not None:
        return dtype_named(folder.config)
    return next(getattr(torch, name) for name, stored in DTYPES.items() if stored == folder.dtype)


def dtype_that_holds(model: PreTrainedModel, dtype: torch.dtype) -> torch.dtype:
    """`dtype`, or bfloat16 where a finite weight would be infinite in it, with a warning: nothing trained is lost."""
    name = _too_large(model, dtype)
    if name is None:
        return dtype
    warnings.warn(f"{name} has grown beyond {dtype}; the model is saved in bfloat16", stacklevel=2)
    return torch.bfloat16


def check_holds(model: PreTrainedModel, folder: Path) -> None:
    """Refuse weights that the type named in config.json cannot hold, before anything is made of them.

    Raises:
        ModelError: Names the first such weight, and what to write.
    """
    dtype = dtype_named(read_model_json(folder / "config.json"))
    name = _too_large(model, dtype)
    if name is not None:
        raise ModelError(
            f"{folder}: config.json: dtype is {str(dtype).removeprefix('torch.')}, in which {name} would be infinite "
            f"(it ends at {torch.finfo(dtype).max:g}); write the type that the weights are in, such as bfloat16"
        )


def _too_large(model: torch.nn.Module, dtype: torch.dtype) -> str | None:
    """The first parameter with a finite value that `dtype` cannot hold; only float16 is that short."""
    if dtype != torch.float16:
        return None
    limit = torch.finfo(dtype).max
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        if values.dtype != dtype and bool(((values.abs() > limit) & values.isfinite()).any()):
            return name
    return None
