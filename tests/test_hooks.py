"""What Prunus overrides, sets or calls of other libraries that they do not promise: gone, it must be noticed here."""

import importlib
import inspect
import re
from importlib.metadata import version

import pytest
import torch
import transformers.trainer
from packaging.version import Version

from prunus.training.loop import ObjectiveTrainer
from prunus.training.plan import _SHARDS

CALLED = (
    ("torch.distributed.distributed_c10d", "_get_default_store"),  # processes: the others are told through it
    ("torch._dynamo", "mark_dynamic"),  # training.compiled: one code for all numbers of rows
    ("transformers.utils.chat_template_utils", "render_jinja_template"),  # data.rendering: as a tokenizer renders
)


SHARDS = Version(version("transformers")) >= _SHARDS
"""Whether this Trainer trains what is sharded already; with an older one `runtime.shard` is refused."""


def overridden() -> list[str]:
    names = [name for name in vars(ObjectiveTrainer) if name.startswith("_") and not name.startswith("__")]
    return [name for name in names if SHARDS or name != "_defer_fsdp_gradient_reduction"]


def test_every_overridden_method_exists_in_transformers_trainer() -> None:
    assert overridden()
    for name in overridden():
        assert callable(getattr(transformers.Trainer, name, None)), f"transformers' Trainer has no {name} any more"


def test_the_trainer_still_calls_what_is_overridden() -> None:
    source = inspect.getsource(transformers.trainer)
    for name in overridden():
        assert re.search(rf"self\.{name}\b", source), f"transformers' Trainer calls {name} no more"


@pytest.mark.parametrize(("module", "name"), CALLED)
def test_called_functions_of_libraries_exist(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_a_module_names_the_buffers_that_are_not_saved() -> None:
    """What models.load casts around."""
    module = torch.nn.Module()
    module.register_buffer("table", torch.zeros(1), persistent=False)
    assert module._non_persistent_buffers_set == {"table"}
    assert "table" in module._buffers


@pytest.mark.skipif(not SHARDS, reason="this transformers' Trainer trains nothing that is sharded already")
def test_the_trainer_does_not_move_a_sharded_model() -> None:
    """What training.loop sets on an objective whose weights are shared out, so that they are not wrapped once more."""
    assert "is_distributed_loading_by_transformers" in inspect.getsource(transformers.trainer)


def test_the_harness_shares_its_requests_out_by_what_is_set() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    source = inspect.getsource(HFLM) + inspect.getsource(HFLM.__mro__[1])
    assert all(name in source for name in ("_rank", "_world_size", "self.accelerator"))
