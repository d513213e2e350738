"""Generation as a plan sees it: its inputs, and what it costs."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.steps.generate.config import GenerateConfig

_WRITTEN = 16  # bytes a token: its id and its text, both as kept while at work and as saved


def given_prompts(config: GenerateConfig, hub: Hub) -> dict[str, Step | Given]:
    """The prompts that the teacher answers, as an input, where they are not the corpus's openings."""
    if not config.prompts:
        return {}
    return {"prompts": hub.given_sources(config.prompts, "generate.prompts")}


def cost(config: GenerateConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate it, every answer as long as it may be, without prompts, whose lengths are not known.

    What a server does is done elsewhere.
    """
    length = config.max_new_tokens + (0 if config.prompts else config.prompt_tokens)
    tokens = config.samples * length
    if config.server.url:
        return Cost(tokens, disk_bytes=tokens * _WRITTEN)
    cache = context.micro_batch(config.samples) * length * shape.kv_cache_bytes(4)
    return Cost(tokens, tokens * shape.flops_per_token(length), shape.parameters * 4 + cache, tokens * _WRITTEN)
