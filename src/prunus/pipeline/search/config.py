"""The options of a search in a recipe: the search's own, and how its candidates are cut and recovered."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from prunus.config import parse
from prunus.distill.config import DistillConfig
from prunus.models.shape import PRUNABLE
from prunus.prune.config import PruneConfig
from prunus.search.config import SearchConfig


class ShapeSearch(SearchConfig):
    """Which shape: candidates under a budget, each cut and briefly recovered, and ranked by the loss after that."""

    kind: ClassVar[str] = "search"
    revision: ClassVar[int] = 3

    prune: PruneConfig = PruneConfig()
    """How candidates are cut, but for their sizes; and so is the student that takes the best."""
    distill: DistillConfig
    """How candidates are recovered: what the recipe's `distill` says, but for `tokens`, which are those of the first
    rung, `data` and `targets`."""

    @model_validator(mode="after")
    def _recovers(self) -> ShapeSearch:
        taken = [key for key in (*PRUNABLE, "like", "shape") if getattr(self.prune, key) is not None]
        if taken or self.prune.via or self.prune.init == "random" or isinstance(self.prune.drop_layers, tuple):
            name = (taken or ["via" if self.prune.via else "init" if self.prune.init == "random" else "drop_layers"])[0]
            raise ValueError(f"prune.{name}: the search decides what is left, cut from the teacher; leave it out")
        if self.layer_choices > 1 and self.prune.importance.layers in ("random", "refit"):
            raise ValueError("layer_choices: the scores say which are tried; not with layers by `random` or `refit`")
        if not self.distill.tokens:
            raise ValueError("distill.tokens: 0 would rank candidates before recovery, which ranks them wrongly")
        if self.distill.data != "corpus" or self.distill.targets != "online":
            raise ValueError("distill: candidates are recovered on the corpus, with the teacher beside: "
                             "data: corpus, targets: online")  # fmt: skip
        for rung in range(1 if self.rungs > 1 else 0):
            self.recovery(rung + 1)
        if self.ways != ("once",):
            self.recovery(0, between=True)
        return self

    def recovery(self, rung: int, between: bool = False) -> DistillConfig:
        """The distillation of a rung: what it has more than the rung before, on the text in another order.

        Args:
            rung: Counted from 0.
            between: Whether half of the first rung's tokens go between two cuts.

        Raises:
            RecipeError: So few tokens make no step behind the warm-up.
        """
        first = self.distill.tokens
        tokens = self.tokens_at(rung, first) - (self.tokens_at(rung - 1, first) if rung else 0)
        if between and not rung:
            tokens -= first // 2
        changed = {"tokens": tokens, "seed": (self.distill.seed + rung) % 2**32}
        return parse(DistillConfig, {**self.distill.model_dump(), **changed}, "search.distill")
