"""Runs a model over a calibration set one layer at a time, with access to the activations inside each layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.models.families.family import Family
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime


def load_runners(
    folders: tuple[ModelFolder, ModelFolder], count: int, runtime: Runtime
) -> tuple[LayerRunner, LayerRunner]:
    """Load a teacher in the data type for inference, and its student in float32.

    Args:
        folders: Teacher and student.
        count: Sequences of the calibration set. The micro-batch is its largest divisor up to
            `device_batch_size`.
        runtime: Device, precision and batch size.
    """
    device = device_of(runtime)
    micro_batch = max(n for n in range(1, runtime.device_batch_size + 1) if count % n == 0)
    dtypes = (inference_dtype(runtime, device), torch.float32)
    teacher, student = (
        LayerRunner(load_model(folder.path, device, dtype).requires_grad_(False), folder.family, micro_batch)
        for folder, dtype in zip(folders, dtypes, strict=True)
    )
    return teacher, student


_CACHE_BYTES = 2**30  # at most, for the inputs and outputs of modules that `LayerRunner.advance` stores


class _StopForwardError(Exception):
    """Ends a forward pass once all requested activations are captured."""


@dataclass
class LayerRunner:
    """A model that is run over the calibration set one layer at a time.

    Attributes:
        model: The model.
        family: Its table.
        micro_batch: Sequences that go through a layer at a time.
        stream: [N, S, channels], the residual stream before the next layer, in float32 in CPU memory.
    """

    model: PreTrainedModel
    family: Family
    micro_batch: int
    stream: torch.Tensor = field(init=False)
    _calls: list[dict[str, Any]] = field(init=False)  # of each layer, its keyword arguments
    _cache: dict[tuple[int, int], dict[str, Any]] = field(init=False, default_factory=dict)  # by layer and first row

    @torch.no_grad()
    def start(self, ids: torch.Tensor) -> None:
        """Embed the calibration set [N, S], and record the other arguments that each layer is called with."""
        first, streams = self.layer(0), []
        self._calls = []
        layers = range(self.model.config.num_hidden_layers)
        handles = [
            self.layer(i).register_forward_pre_hook(lambda *call: self._calls.append(call[-1]), with_kwargs=True)
            for i in layers
        ]
        self.model.base_model(input_ids=ids[: self.micro_batch].to(self.model.device), use_cache=False)
        for handle in handles:
            handle.remove()

        def stop(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
            streams.append((args[0] if args else kwargs["hidden_states"]).float().cpu())
            raise _StopForwardError

        handle = first.register_forward_pre_hook(stop, with_kwargs=True)
        for rows in self.rows(ids):
            try:
                self.model.base_model(input_ids=ids[rows].to(self.model.device), use_cache=False)
            except _StopForwardError:
                continue
        handle.remove()
        self.stream = torch.cat(streams)
        self._calls = [{key: value for key, value in call.items() if key != "hidden_states"} for call in self._calls]

    def layer(self, i: int) -> nn.Module:
        """The module of layer `i`."""
        return self.model.get_submodule(self.family.layer_name(i))

    def rows(self, ids: torch.Tensor | None = None) -> Iterator[slice]:
        """The calibration set in micro-batches, as slices of its sequences."""
        count = len(self.stream if ids is None else ids)
        return (slice(start, start + self.micro_batch) for start in range(0, count, self.micro_batch))

    @torch.no_grad()
    def run(self, i: int, x: torch.Tensor, *modules: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Run layer `i` on a micro-batch.

        Args:
            i: The layer's index.
            x: The stream before the layer, [n, S, channels].
            modules: Names of modules within the layer to capture.

        Returns:
            The stream after the layer, [n, S, channels], and by module name its `(input, output)`.
        """
        captured: dict[str, Any] = {}
        with self._capture(i, modules, captured, stop=False):
            out = self._forward(i, x)
        return out, captured

    @torch.no_grad()
    def activations(self, i: int, rows: slice, *modules: str) -> dict[str, Any]:
        """By module name the `(input, output)` of modules in layer `i`, for a micro-batch of the stream.

        Taken from the cache if all are in it; otherwise the layer runs up to the last of them.
        """
        cached = self._cache.get((i, rows.start), {})
        if set(modules) <= cached.keys():
            return cached
        captured: dict[str, Any] = {}
        with self._capture(i, modules, captured, stop=True), contextlib.suppress(_StopForwardError):
            self._forward(i, self.stream[rows])
        return captured

    def _forward(self, i: int, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(i)(x.to(self.model.device, self.model.dtype), **self._calls[i])
        return out

    @contextlib.contextmanager
    def _capture(self, i: int, modules: tuple[str, ...], captured: dict[str, Any], stop: bool) -> Iterator[None]:
        """Store inputs and outputs of modules of layer `i` in `captured`; with `stop`, end the pass after the last."""

        def hook(name: str, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            captured[name] = (args[0], output)
            if stop and len(captured) == len(modules):
                raise _StopForwardError

        layer = self.layer(i)
        handles = [
            layer.get_submodule(name).register_forward_hook(lambda _, args, output, name=name: hook(name, args, output))
            for name in modules
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def advance(self, i: int, *modules: str) -> None:
        """Run layer `i` on the whole calibration set, which moves `stream` one layer on.

        On a CPU, inputs and outputs of the given modules are cached for `activations`, in place of those cached
        before, if they fit in `_CACHE_BYTES`. Otherwise, and on an accelerator, `activations` runs the layer again.
        """
        batches, streams = list(self.rows()), []
        to_cache = modules if self.model.device.type == "cpu" else ()
        self._cache = {} if modules else self._cache
        for rows in batches:
            out, captured = self.run(i, self.stream[rows], *to_cache)
            streams.append(out.float().cpu())
            if sum(x.nbytes for pair in captured.values() for x in pair) * len(batches) > _CACHE_BYTES:
                to_cache = ()
            elif captured:
                self._cache[i, rows.start] = captured
        self.stream = torch.cat(streams)  # a new tensor: the cache and callers may hold views of the old one
