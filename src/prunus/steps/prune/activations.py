"""A model on its way through a calibration set, one layer at a time."""

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


def sides(folders: tuple[ModelFolder, ModelFolder], count: int, runtime: Runtime) -> tuple[Side, Side]:
    """A teacher, in the type that it is asked in, and its student, in float32.

    Args:
        folders: Where the two are.
        count: Sequences of the calibration set; so many go through a layer at a time as divide it.
        runtime: Where.
    """
    device = device_of(runtime)
    portion = max(n for n in range(1, runtime.device_batch_size + 1) if count % n == 0)
    dtypes = (inference_dtype(runtime, device), torch.float32)
    teacher, student = (
        Side(load_model(folder.path, device, dtype).requires_grad_(False), folder.family, portion)
        for folder, dtype in zip(folders, dtypes, strict=True)
    )
    return teacher, student


_KEPT = 2**30  # bytes of what the modules of a layer were given and gave


class _ReachedError(Exception):
    """A forward pass has come as far as is wanted."""


@dataclass
class Side:
    """One of the two models on its way through the calibration set.

    Attributes:
        model: The model.
        family: Its table.
        portion: Sequences that go through a layer at a time.
        stream: [N, S, channels], the residual stream before the next layer, in float32 in the memory of the CPU.
    """

    model: PreTrainedModel
    family: Family
    portion: int
    stream: torch.Tensor = field(init=False)
    _calls: list[dict[str, Any]] = field(init=False)
    _kept: dict[tuple[int, int], dict[str, Any]] = field(init=False, default_factory=dict)  # by layer and portion

    @torch.no_grad()
    def start(self, ids: torch.Tensor) -> None:
        """Embed the calibration set [N, S], and keep what else each layer is called with."""
        first, streams = self.layer(0), []
        self._calls = []
        layers = range(self.model.config.num_hidden_layers)
        handles = [
            self.layer(i).register_forward_pre_hook(lambda *call: self._calls.append(call[-1]), with_kwargs=True)
            for i in layers
        ]
        self.model.base_model(input_ids=ids[: self.portion].to(self.model.device), use_cache=False)
        for handle in handles:
            handle.remove()

        def stop(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
            streams.append((args[0] if args else kwargs["hidden_states"]).float().cpu())
            raise _ReachedError

        handle = first.register_forward_pre_hook(stop, with_kwargs=True)
        for rows in self.rows(ids):
            try:
                self.model.base_model(input_ids=ids[rows].to(self.model.device), use_cache=False)
            except _ReachedError:
                continue
        handle.remove()
        self.stream = torch.cat(streams)
        self._calls = [{key: value for key, value in call.items() if key != "hidden_states"} for call in self._calls]

    def layer(self, i: int) -> nn.Module:
        """A layer."""
        return self.model.get_submodule(self.family.layer_name(i))

    def rows(self, ids: torch.Tensor | None = None) -> Iterator[slice]:
        """The calibration set in portions."""
        count = len(self.stream if ids is None else ids)
        return (slice(start, start + self.portion) for start in range(0, count, self.portion))

    @torch.no_grad()
    def run(self, i: int, x: torch.Tensor, *watched: str) -> tuple[torch.Tensor, dict[str, Any]]:
        """One portion through layer `i`: [n, S, channels] to the same, and of each watched module `(input, output)`."""
        seen: dict[str, Any] = {}
        with self._watching(i, watched, seen, stop=False):
            out = self._forward(i, x)
        return out, seen

    @torch.no_grad()
    def look(self, i: int, rows: slice, *watched: str) -> dict[str, Any]:
        """A portion into layer `i`, as far as the last of the watched modules: `(input, output)` of each."""
        kept = self._kept.get((i, rows.start), {})
        if set(watched) <= kept.keys():
            return kept
        seen: dict[str, Any] = {}
        with self._watching(i, watched, seen, stop=True), contextlib.suppress(_ReachedError):
            self._forward(i, self.stream[rows])
        return seen

    def _forward(self, i: int, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(i)(x.to(self.model.device, self.model.dtype), **self._calls[i])
        return out

    @contextlib.contextmanager
    def _watching(self, i: int, watched: tuple[str, ...], seen: dict[str, Any], stop: bool) -> Iterator[None]:
        """Have what the watched modules are given and give put into `seen`; with `stop`, end when all are there."""

        def hook(name: str, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = (args[0], output)
            if stop and len(seen) == len(watched):
                raise _ReachedError

        layer = self.layer(i)
        handles = [
            layer.get_submodule(name).register_forward_hook(lambda _, args, output, name=name: hook(name, args, output))
            for name in watched
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def advance(self, i: int, *kept: str) -> None:
        """The whole calibration set through layer `i`.

        What the `kept` modules were given and give stays in memory for `look`, until others are kept, if that is
        little; else, and on an accelerator, `look` runs the layer again.
        """
        portions, streams = list(self.rows()), []
        watched = kept if self.model.device.type == "cpu" else ()
        self._kept = {} if kept else self._kept
        for rows in portions:
            out, seen = self.run(i, self.stream[rows], *watched)
            streams.append(out.float().cpu())
            if sum(x.nbytes for pair in seen.values() for x in pair) * len(portions) > _KEPT:
                watched = ()
            elif seen:
                self._kept[i, rows.start] = seen
        self.stream = torch.cat(streams)  # and not written over: what was kept, and who holds it, may be part of it
