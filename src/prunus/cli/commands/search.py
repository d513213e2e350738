"""The command `search`: find a shape under a budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from prunus import distributed
from prunus.cli.base import HUB, Flat, Single, finished, flag_of, located, sources_of
from prunus.cli.render import show_search
from prunus.config import parse_named
from prunus.console import Console
from prunus.data.config import DataConfig
from prunus.errors import ArtifactError
from prunus.files import read_object
from prunus.graph.steps import Given, Step, given_model, given_tokenizer, tokens_step
from prunus.pipeline.cutting import scored
from prunus.pipeline.search.config import RECORD, ShapeSearch
from prunus.pipeline.search.contamination import check_apart
from prunus.pipeline.search.plan import PlannedSearch, check_search, search_cuts
from prunus.pipeline.search.workshop import texts_of
from prunus.steps.evaluate.config import EvaluateConfig
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.plan import given_task
from prunus.training.plan import check_runtime


@dataclass(kw_only=True)
class Search(Single):
    """Find the best shape under a budget: candidates are pruned, briefly distilled, ranked and halved."""

    model: Annotated[Positional[str], arg(metavar="TEACHER")]
    """The teacher: folder, id on the hub, or GGUF file."""
    budget: str
    """Limits of a student, such as `q4_k_m file <= 2.0 GB, context 8192 in <= 3 GB`."""
    corpus: tuple[str, ...]
    """Text to distil candidates on. Without --text, some of its documents are set aside to rank on."""
    text: tuple[str, ...] = ()
    """Text to rank candidates on."""
    evaluation: tuple[str, ...] = ()
    """Text that students will be evaluated on, if known. Ranking on any of it is refused."""
    column: str = "text"
    """Column that holds the text."""
    append_eos: bool = True
    """End each document with the end-of-sequence token."""
    scores: str | None = None
    """Folder written by `prunus score`. If unset: score the teacher first, with the options of --score."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    config: Annotated[ShapeSearch, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        check_runtime(self.runtime, [self.config.distill])
        model = located(self.model)
        text = sources_of(self.text, self.column, "--text")
        raw = {**self.config.model_dump(), "budget": self.budget, "text": text}
        size = model.folder.shape.size()
        config = parse_named(ShapeSearch, raw, flag_of, "prunus search").model_copy(
            update={"distill": self.config.distill.with_defaults(size), "prune": self.config.prune.with_defaults(size)}
        )
        data = DataConfig(
            corpus=sources_of(self.corpus, self.column, "--corpus"),
            held_out=sources_of(self.evaluation, self.column, "--evaluation"),
            append_eos=self.append_eos,
        )
        shape = model.folder.shape
        check_search(config, shape, model.folder.path, "search")
        check_apart(config.text, data, EvaluateConfig(), HUB)
        texts = texts_of(config, data, Path(self.out).parent, HUB)
        tokenizer = given_tokenizer(model)
        corpus = tokens_step(texts.recovery[0], texts.recovery[1], tokenizer, "recovery", texts.root)
        cuts = search_cuts(config, shape)
        own_score = self.score.with_defaults(size)
        score = scored(own_score, shape, cuts)
        place = Path(f"{self.out}-trials")
        planned = PlannedSearch(config, texts, tokenizer, corpus, own_score, cuts, place)
        teacher = given_model(model)
        scores: Step | Given
        if self.scores is not None:
            scores = finished(Path(self.scores), "--scores", ScoreConfig.kind)
        else:
            scores = Step("teacher", "score", score, {"model": teacher, "tokens": corpus, **given_task(score)}, place)
        before = [corpus, *([scores] if isinstance(scores, Step) else [])]
        after = [step for step in planned.steps(teacher, scores) if step.fingerprint != corpus.fingerprint]
        self.do_all([*before, *after], console)
        if distributed.rank() == 0:
            show_search(read_object(Path(self.out) / RECORD, ArtifactError), console)
