"""The trials of a search, each made of ordinary steps: cut, recovered rung by rung, measured, and looked up again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from prunus import distributed
from prunus.console import Console
from prunus.data.config import DataConfig, TokensConfig
from prunus.errors import ArtifactError
from prunus.files import read_object
from prunus.gguf.size import FileSizes
from prunus.graph.hub import Hub
from prunus.graph.integrity import check_artifact
from prunus.graph.records import remedy
from prunus.graph.steps import Given, Step, tokens_step
from prunus.models.folder import ModelFolder
from prunus.models.shape import PRUNABLE, Shape
from prunus.pipeline.cutting import cut_steps
from prunus.pipeline.search.budget import Meter
from prunus.pipeline.search.candidates import Candidate
from prunus.pipeline.search.config import ShapeSearch
from prunus.pipeline.search.figures import block_of, refused
from prunus.pipeline.search.latency import latency_of
from prunus.pipeline.search.space import Space, sizes_of
from prunus.pipeline.search.worker import ensure
from prunus.runtime import Runtime
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.prune.choose import layer_choices
from prunus.steps.prune.heal_config import HealConfig
from prunus.steps.score.config import ScoreConfig
from prunus.worker import Child

BEFORE = -1
"""The rung before any recovery."""
_RESAMPLES = 200  # of the intervals on the ranking text, which decide nothing


@dataclass(frozen=True)
class Texts:
    """What candidates are recovered and ranked on: two streams in the words of any tokenizer."""

    recovery: tuple[TokensConfig, Given]
    ranking: tuple[TokensConfig, Given]
    root: Path

    def streams(self, tokenizer: Step | Given, suffix: str = "") -> tuple[Step, Step]:
        """The steps that tokenise them."""
        return (
            tokens_step(*self.recovery, tokenizer, f"recovery{suffix}", self.root),
            tokens_step(*self.ranking, tokenizer, f"ranking{suffix}", self.root),
        )


def texts_of(config: ShapeSearch, data: DataConfig, root: Path, hub: Hub) -> Texts:
    """The texts of a search.

    Without a text of its own, as many documents as are held out are set aside of the others; with one, candidates are
    recovered on what everything else is trained on.
    """
    corpus = hub.given_sources(data.corpus, "data.corpus")
    parted = TokensConfig(append_eos=data.append_eos, held_out_fraction=data.held_out_fraction)
    if config.text:
        part = "all" if data.held_out else "train"
        own = hub.given_sources(config.text, "search.text")
        ranking = TokensConfig(append_eos=data.append_eos, max_tokens=2 * config.ranking_tokens), own
    else:
        part = "recovery"
        said = {"part": "ranking", "max_tokens": 2 * config.ranking_tokens}  # some documents are of one token
        ranking = parted.model_copy(update=said), corpus
    return Texts((parted.model_copy(update={"part": part, "max_tokens": data.max_tokens}), corpus), ranking, root)


@dataclass(frozen=True)
class Trials:
    """What candidates are made of and from.

    Attributes:
        given: The teacher (`model`), its `scores`, and the streams `tokens` and `ranking`.
        texts: What the streams are made of.
        score: How a candidate that is cut in two steps is scored between them.
        root: The folder of the run.
    """

    given: Mapping[str, Step | Given]
    texts: Texts
    score: ScoreConfig
    root: Path


@dataclass(frozen=True)
class Workshop:
    """Makes and measures candidates out of ordinary steps, whose results lie in `search/NAME` of the run's folder."""

    config: ShapeSearch
    trials: Trials
    runtime: Runtime
    workers: list[Child] = field(default_factory=list)

    @cached_property
    def teacher(self) -> ModelFolder:
        """The folder of what is cut."""
        return ModelFolder(self.trials.given["model"].value)

    @cached_property
    def _space(self) -> Space:
        return space_of(self.config, self.teacher, self.trials.root, self.runtime)

    def space(self, teacher: Shape, fine: bool = False) -> Space:
        """All that a candidate may be."""
        if not fine:
            return self._space
        sizes = sizes_of(self.config, teacher, block_of(self.config.budget), fine)
        found = self._space
        return Space(teacher, sizes, found.budget, found.meter, found.within, found.refuses)

    def layer_choices(self, shape: Shape) -> list[tuple[int, ...]]:
        """The layers that a shape may do without, from what the scores choose on."""
        scores = load_file(self.trials.given["scores"].value / "scores.safetensors")
        drop = self.teacher.shape.num_hidden_layers - shape.num_hidden_layers
        return layer_choices(scores, self.config.prune, drop)

    def tokens(self, rung: int) -> int:
        """Tokens that a candidate has been recovered on after a rung."""
        return self.config.tokens_at(rung, self.config.distill.tokens)

    def sizes(self, candidate: Candidate) -> dict[str, Any]:
        """How the candidate is cut, as options of `prune`."""
        teacher = self.teacher.shape

        def cut(shape: Shape) -> dict[str, int]:
            return {size: getattr(shape, size) for size in PRUNABLE if getattr(shape, size) != getattr(teacher, size)}

        if candidate.via is None:
            layers = {"drop_layers": candidate.dropped} if candidate.dropped else {}
            return {"prune": {**cut(candidate.shape), **layers}, "via": {}}
        return {
            "prune": cut(candidate.shape),
            "via": {**cut(candidate.via), "tokens": self.config.distill.tokens // 2},
        }

    def measure(self, candidate: Candidate, rung: int) -> dict[str, dict[str, float]]:
        """A candidate's figures on the ranking text after a rung; it is cut and recovered first where it was not."""
        *_, last = self.chain(candidate, rung)
        if not last.artifact.is_done():
            if distributed.count() == 1:
                ensure(last, self.runtime)
            else:
                self._worker().call("ensure", last)
        check_artifact(last.artifact.path, Console(quiet=True))
        file = last.artifact.path / "results.json"
        figures = read_object(file, ArtifactError).get("figures")
        if not isinstance(figures, dict):
            raise ArtifactError(f"{file}: has no figures; {remedy(file.parent)}")
        return figures

    def forget(self, candidate: Candidate, rung: int) -> None:
        """Remove the weights that a candidate had before a rung."""
        for step in self.chain(candidate, rung - 1)[:-1]:
            if step.kind in ("prune", "distill"):
                step.artifact.remove()

    def chain(self, candidate: Candidate, rung: int) -> list[Step]:
        """The steps up to the measurement after a rung: cut, recovered rung by rung, and measured."""
        config, name = self.config, f"search/{candidate.name}"
        sizes, teacher = self.sizes(candidate), self.teacher.shape
        heal = config.prune.heal if config.prune.heal.asked else HealConfig(refit="none")  # to try one on each is long
        cut = {**sizes["prune"], "via": sizes["via"], "heal": heal, "check_samples": 0}
        options = config.prune.model_copy(update=cut)
        words = options.vocab_size is not None
        given = {key: one for key, one in self.trials.given.items() if key != "ranking"}
        steps = cut_steps(name, options, teacher, given, config.distill, self.trials.score, self.trials.root)
        tokens, ranking = self.trials.given["tokens"], self.trials.given["ranking"]
        if words:
            tokens, ranking = self.trials.texts.streams(steps[-1], f"-{candidate.name}")
        model = steps[-1]
        for number in range(rung + 1):
            recovery = config.recovery(number, between=bool(sizes["via"]))
            inputs = {"student": model, "teacher": self.trials.given["model"], "tokens": tokens}
            model = Step(name, f"rung-{number + 1}", recovery, inputs, self.trials.root)
            steps.append(model)
        beside = {} if words else {"teacher": self.trials.given["model"]}
        look = EvaluateConfig(
            sequence_length=config.distill.sequence_length, max_tokens=config.ranking_tokens, prompt_count=0,
            resamples=_RESAMPLES, seed=config.seed,
        )  # fmt: skip
        label = "ranked-cut" if rung == BEFORE else f"ranked-{rung + 1}"
        return [*steps, Step(name, label, look, {"model": model, "tokens": ranking, **beside}, self.trials.root)]

    def _worker(self) -> Child:
        """The process that does this one's share, on its own device."""
        if not self.workers:
            runtime = self.runtime
            if runtime.device in ("auto", "cuda"):
                import torch

                if torch.cuda.is_available():
                    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
                    runtime = runtime.model_copy(update={"device": device})
            self.workers.append(Child("prunus.pipeline.search.worker", "search", runtime))
        return self.workers[0]


def space_of(config: ShapeSearch, teacher: ModelFolder, root: Path, runtime: Runtime) -> Space:
    """All that a candidate may be."""
    latency = latency_of(config.budget, teacher, root / "search", runtime)
    return Space(
        teacher.shape,
        sizes_of(config, teacher.shape, block_of(config.budget)),
        config.budget,
        Meter(teacher.shape, FileSizes(teacher.path, teacher.config, teacher.shape), latency),
        config.within,
        refused(teacher.config, config.budget),
    )
