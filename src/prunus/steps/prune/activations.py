"""Runs a model over a calibration set one layer at a time, with access to the activations inside each layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prunus.models.families.family import Family
from prunus.models.folder import ModelFolder
from prunus.models.load import device_of, inference_dtype, load_model
from prunus.runtime import Runtime
from prunus.steps.prune.heal_config import CACHE_BYTES
from prunus.steps.prune.replay import Replay, replaced_forward


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
    teacher, student = folders
    return load_runner(teacher, None, count, runtime), load_runner(student, torch.float32, count, runtime)


def load_runner(folder: ModelFolder, dtype: torch.dtype | None, count: int, runtime: Runtime) -> LayerRunner:
    """Load one model; see `load_runners`. Its data type is `dtype`, or that of inference if it is None."""
    device = device_of(runtime)
    micro_batch = max(n for n in range(1, runtime.device_batch_size + 1) if count % n == 0)
    model = load_model(folder.path, device, dtype or inference_dtype(runtime, device)).requires_grad_(False)
    return LayerRunner(model, folder.family, micro_batch)


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
    _inputs: dict[tuple[int, int], dict[str, torch.Tensor]] = field(init=False, default_factory=dict)  # the same
    _replay: Replay = field(init=False, default_factory=Replay)

    @torch.no_grad()
    def start(self, ids: torch.Tensor) -> None:
        """Embed the calibration set [N, S], and record the other arguments that each layer is called with."""
        self._calls = [{} for _ in range(self.model.config.num_hidden_layers)]
        streams = []

        def embedded(i: int, hidden_states: torch.Tensor, *_: Any, **call: Any) -> torch.Tensor:
            self._calls[i] = call
            if i == 0:
                streams.append(hidden_states.float().cpu())
            return hidden_states

        with self._replaced_layers(embedded):
            for rows in self.rows(ids):
                self.model.base_model(input_ids=ids[rows].to(self.model.device), use_cache=False)
        self.stream = torch.cat(streams)

    @torch.no_grad()
    def logits(self, rows: slice) -> torch.Tensor:
        """The logits of some sequences, [n, S, V], from the stream after the last layer."""
        stream = self.stream[rows].to(self.model.device, self.model.dtype)
        with self._replaced_layers(lambda *_, **__: stream):
            ids = torch.zeros(stream.shape[:2], dtype=torch.long, device=stream.device)
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits

    @contextlib.contextmanager
    def _replaced_layers(self, forward: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Within this context, layer `i` computes `forward(i, hidden_states, ...)`."""
        with contextlib.ExitStack() as stack:
            for i in range(self.model.config.num_hidden_layers):
                stack.enter_context(replaced_forward(self.layer(i), partial(forward, i)))
            yield

    def layer(self, i: int) -> nn.Module:
        """The module of layer `i`."""
        return self.model.get_submodule(self.family.layer_name(i))

    def rows(self, ids: torch.Tensor | None = None) -> Iterator[slice]:
        """The calibration set in micro-batches, as slices of its sequences."""
        count = len(self.stream if ids is None else ids)
        return (slice(start, start + self.micro_batch) for start in range(0, count, self.micro_batch))

    @torch.no_grad()
    def run(self, i: int, rows: slice, *modules: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """Run layer `i` on a micro-batch of the stream.

        Args:
            i: The layer's index.
            rows: The micro-batch.
            modules: Names of modules within the layer to capture.

        Returns:
            The stream after the layer, [n, S, channels], and by module name its `(input, output)`.
        """
        captured: dict[str, Any] = {}
        with self._capture(i, rows, modules, captured, stop=False):
            out = self._forward(i, rows)
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
        with self._capture(i, rows, modules, captured, stop=True), contextlib.suppress(_StopForwardError):
            self._forward(i, rows)
        return captured

    @torch.no_grad()
    def input(self, i: int, rows: slice, module: str) -> torch.Tensor:
        """The input of a module in layer `i`, for a micro-batch of the stream; the layer runs up to it."""
        captured: list[torch.Tensor] = []

        def stop(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            captured.append(self._in_sequences(args[0], rows))
            raise _StopForwardError

        handle = self.layer(i).get_submodule(module).register_forward_pre_hook(stop)
        try:
            with contextlib.suppress(_StopForwardError):
                self._forward(i, rows)
        finally:
            handle.remove()
        return captured[0]

    def keep_input(self, i: int, rows: slice, module: str, x: torch.Tensor) -> None:
        """Store the final input of the last linear layer of attention or MLP, for the next runs of layer `i`.

        Until `advance` has run the layer, its runs compute only that linear layer of the block, on `x`. On a CPU, as
        far as the inputs of all micro-batches fit in `CACHE_BYTES`.
        """
        inputs = self._inputs.setdefault((i, rows.start), {})
        stored = sum(each.nbytes for each in inputs.values()) + x.nbytes
        if self.model.device.type == "cpu" and stored * (len(self.stream) // self.micro_batch) <= CACHE_BYTES:
            inputs[module] = x

    def _in_sequences(self, values: torch.Tensor, rows: slice) -> torch.Tensor:
        """Values as [n, S, C], also in a family whose layers join batch and positions in their MLPs."""
        return values.unflatten(0, self.stream[rows].shape[:2]) if values.ndim == 2 else values

    def _forward(self, i: int, rows: slice) -> torch.Tensor:
        layer = self.layer(i)
        with self._replay.replayed(layer, self._inputs.get((i, rows.start), {})):
            out: torch.Tensor = layer(self.stream[rows].to(self.model.device, self.model.dtype), **self._calls[i])
        return out

    @contextlib.contextmanager
    def _capture(
        self, i: int, rows: slice, modules: tuple[str, ...], captured: dict[str, Any], stop: bool
    ) -> Iterator[None]:
        """Store inputs and outputs of modules of layer `i` in `captured`; with `stop`, end the pass after the last."""

        def hook(name: str, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            captured[name] = (self._in_sequences(args[0], rows), self._in_sequences(output, rows))
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
        before, if they fit in `CACHE_BYTES`. Otherwise, and on an accelerator, `activations` runs the layer again.
        """
        batches, streams = list(self.rows()), []
        to_cache = modules if self.model.device.type == "cpu" else ()
        self._cache = {} if modules else self._cache
        for rows in batches:
            out, captured = self.run(i, rows, *to_cache)
            streams.append(out.float().cpu())
            if sum(x.nbytes for pair in captured.values() for x in pair) * len(batches) > CACHE_BYTES:
                to_cache = ()
            elif captured:
                self._cache[i, rows.start] = captured
        self._inputs = {}
        self.stream = torch.cat(streams)  # a new tensor: the cache and callers may hold views of the old one
