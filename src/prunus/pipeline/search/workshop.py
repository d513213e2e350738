"""The trials of a search, made of ordinary steps: a candidate is cut, recovered rung by rung, and measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from prunus import distributed
from prunus.console import Console
from prunus.data.config import DataConfig, TokensConfig
from prunus.data.documents import tokens_config
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
from prunus.pipeline.search.figures import block_of, unsupported
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
_RESAMPLES = 200  # few, since the intervals on the ranking text decide nothing


@dataclass(frozen=True)
class Texts:
    """The texts that candidates are recovered and ranked on, for any tokenizer."""

    recovery: tuple[TokensConfig, Given]
    ranking: tuple[TokensConfig, Given]
    root: Path

    def streams(self, tokenizer: Step | Given, suffix: str = "") -> tuple[Step, Step]:
        """The steps that tokenise the two texts."""
        return (
            tokens_step(*self.recovery, tokenizer, f"recovery{suffix}", self.root),
            tokens_step(*self.ranking, tokenizer, f"ranking{suffix}", self.root),
        )


def texts_of(config: ShapeSearch, data: DataConfig, root: Path, hub: Hub) -> Texts:
    """The texts of a search.

    Without `search.text`, documents of the corpus are set aside for ranking, as many as are held out. With it,
    candidates are recovered on the training text.
    """
    corpus = hub.given_sources(data.corpus, "data.corpus")
    joined = tokens_config(data)
    parted = joined.model_copy(update={"held_out_fraction": data.held_out_fraction})
    if config.text:
        part = "all" if data.held_out else "train"
        text = hub.given_sources(config.text, "search.text")
        ranking = joined.model_copy(update={"max_tokens": 2 * config.ranking_tokens}), text
    else:
        part = "recovery"
        # twice as many, since a document of one token has nothing to predict
        changed = {"part": "ranking", "max_tokens": 2 * config.ranking_tokens}
        ranking = parted.model_copy(update=changed), corpus
    return Texts((parted.model_copy(update={"part": part, "max_tokens": data.max_tokens}), corpus), ranking, root)


@dataclass(frozen=True)
class Trials:
    """Everything that candidates are made from.

    Attributes:
        given: The teacher (`model`), its `scores`, and the streams `tokens` and `ranking`.
        texts: The texts of the streams.
        score: Scoring options between two cuts.
        root: The folder of the run.
    """

    given: Mapping[str, Step | Given]
    texts: Texts
    score: ScoreConfig
    root: Path


@dataclass(frozen=True)
class Workshop:
    """Makes and measures candidates by ordinary steps, whose results are in `search/NAME` of the run's folder."""

    config: ShapeSearch
    trials: Trials
    runtime: Runtime
    workers: list[Child] = field(default_factory=list)

    @cached_property
    def teacher(self) -> ModelFolder:
        """The teacher's folder."""
        return ModelFolder(self.trials.given["model"].value)

    @cached_property
    def _space(self) -> Space:
        return space_of(self.config, self.teacher, self.trials.root, self.runtime)

    def space(self, teacher: Shape, fine: bool = False) -> Space:
        """All shapes that a candidate may have."""
        if not fine:
            return self._space
        sizes = sizes_of(self.config, teacher, block_of(self.config.budget), fine)
        return replace(self._space, teacher=teacher, sizes=sizes)

    def layer_choices(self, shape: Shape) -> list[tuple[int, ...]]:
        """Sets of layers to drop for a shape; the first is the one that the scores choose."""
        scores = load_file(self.trials.given["scores"].value / "scores.safetensors")
        drop = self.teacher.shape.num_hidden_layers - shape.num_hidden_layers
        return layer_choices(scores, self.config.prune, drop, self.teacher.shape)

    def tokens(self, rung: int) -> int:
        """Tokens that a candidate has been trained on after a rung."""
        return self.config.tokens_at(rung, self.config.distill.tokens)

    def sizes(self, candidate: Candidate) -> dict[str, Any]:
        """How a candidate is cut, as options of `prune`."""
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
        """A candidate's figures on the ranking text after a rung; it is cut and recovered first if necessary."""
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
            raise ArtifactError(f"{file}: damaged: it has no figures; {remedy(file.parent)}")
        return figures

    def remove_weights(self, candidate: Candidate, rung: int) -> None:
        """Remove a candidate's weights from before a rung."""
        for step in self.chain(candidate, rung - 1)[:-1]:
            if step.kind in ("prune", "distill"):
                step.artifact.remove()

    def chain(self, candidate: Candidate, rung: int) -> list[Step]:
        """The steps up to the measurement after a rung: cut, recovered rung by rung, and measured."""
        config, name = self.config, f"search/{candidate.name}"
        sizes, teacher = self.sizes(candidate), self.teacher.shape
        heal = (
            config.prune.heal if config.prune.heal.explicit else HealConfig(refit="none")
        )  # trying refits on each would be slow
        cut = {**sizes["prune"], "via": sizes["via"], "heal": heal, "check_samples": 0}
        options = config.prune.model_copy(update=cut)
        cuts_vocabulary = options.vocab_size is not None
        given = {key: one for key, one in self.trials.given.items() if key != "ranking"}
        steps = cut_steps(name, options, teacher, given, config.distill, self.trials.score, self.trials.root)
        tokens, ranking = self.trials.given["tokens"], self.trials.given["ranking"]
        if cuts_vocabulary:
            tokens, ranking = self.trials.texts.streams(steps[-1], f"-{candidate.name}")
        model = steps[-1]
        for number in range(rung + 1):
            recovery = config.recovery(number, between=bool(sizes["via"]))
            inputs = {"student": model, "teacher": self.trials.given["model"], "tokens": tokens}
            model = Step(name, f"rung-{number + 1}", recovery, inputs, self.trials.root)
            steps.append(model)
        reference = {} if cuts_vocabulary else {"teacher": self.trials.given["model"]}
        measurement = EvaluateConfig(
            sequence_length=config.distill.sequence_length, max_tokens=config.ranking_tokens, prompt_count=0,
            resamples=_RESAMPLES, seed=config.seed,
        )  # fmt: skip
        label = "ranked-cut" if rung == BEFORE else f"ranked-{rung + 1}"
        inputs = {"model": model, "tokens": ranking, **reference}
        return [*steps, Step(name, label, measurement, inputs, self.trials.root)]

    def _worker(self) -> Child:
        """The child process that does this process's share, on this process's device."""
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
    """All shapes that a candidate may have."""
    latency = latency_of(config.budget, teacher, root / "search", runtime)
    return Space(
        teacher.shape,
        sizes_of(config, teacher.shape, block_of(config.budget)),
        config.budget,
        Meter(teacher.shape, FileSizes(teacher.path, teacher.config, teacher.shape), latency),
        config.within,
        unsupported(teacher.config, config.budget),
    )
