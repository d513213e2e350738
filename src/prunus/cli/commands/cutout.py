"""The command `cutout`: write one size of a nest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from prunus.cli.base import Flat, Single, located
from prunus.config import parse
from prunus.console import Console
from prunus.errors import RecipeError, ShapeError
from prunus.gguf.size import FileSizes
from prunus.graph.steps import given_model
from prunus.models.between import between, shapes_between
from prunus.models.nest import Nest, read_nest
from prunus.models.shape import Shape
from prunus.models.sizes import Sizes
from prunus.pipeline.search.budget import Meter, describe
from prunus.pipeline.search.config import Limit
from prunus.pipeline.search.figures import block_of, check_budget
from prunus.pipeline.search.limits import parse_budget
from prunus.steps.cutout.config import CutoutConfig


@dataclass(kw_only=True)
class Cutout(Single):
    """Write one size of a nest as a plain model folder: one that was trained, or one between two of them."""

    nest: Annotated[Positional[str], arg(metavar="NEST")]
    """Folder of the nest, which `prune` made and `distill` trained."""
    budget: str | None = None
    """Write the largest size within this budget instead, also one between, such as `q4_k_m file <= 60 MB`."""
    config: Annotated[CutoutConfig, Flat]

    def __call__(self, console: Console) -> None:
        """Run the step."""
        model = located(self.nest, "NEST")
        nest = read_nest(model.folder.path)
        config = self.config
        if self.budget is not None:
            if config != CutoutConfig():
                raise RecipeError("--budget: cannot be combined with --shape or sizes, which it chooses")
            config = config.model_copy(update=_sizes_of(_largest_within(nest, self.budget, console)))
        between(nest, config.target(nest, "cutout"), "cutout")
        self.do(config, {"model": given_model(model)}, console)


def _sizes_of(shape: Shape) -> dict[str, int]:
    """A shape's dimensions as options."""
    return {name: getattr(shape, name) for name in Sizes.model_fields if getattr(shape, name)}


def _largest_within(nest: Nest, text: str, console: Console) -> Shape:
    """The shape with the most parameters that meets a budget.

    Raises:
        RecipeError: The budget cannot be read, or limits a latency.
        ShapeError: Even the smallest size does not meet it.
    """
    try:
        limits = tuple(parse(Limit, limit, "--budget") for limit in parse_budget(text))
    except ValueError as error:
        raise RecipeError(f"--budget: {error}") from None
    check_budget(limits, "--budget")
    if any(limit.what == "latency" for limit in limits):
        raise RecipeError(
            "--budget: a latency must be measured, which only `prunus search` does; allowed: other limits"
        )
    folder = nest.folder

    def no_latency(limit: Limit, shape: Shape) -> float:
        raise AssertionError

    meter = Meter(folder.shape, FileSizes(folder.path, folder.config, folder.shape), no_latency)
    fitting = [shape for shape in shapes_between(nest, block_of(limits)) if meter.fill(limits, shape) <= 1]
    if not fitting:
        least = nest.sizes[-1]
        raise ShapeError(f"--budget: {least.name}, the smallest size, has {describe(limits, meter, least.shape)}")
    best = max(fitting, key=lambda shape: shape.parameters)
    console.say(describe(limits, meter, best))
    return best
