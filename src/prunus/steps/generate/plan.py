"""Planning of generation: its inputs and cost."""

from __future__ import annotations

from prunus.costs import Cost, CostContext
from prunus.graph.hub import Hub
from prunus.graph.steps import Given, Step
from prunus.models.shape import Shape
from prunus.steps.generate.config import GenerateConfig

_WRITTEN = 16  # bytes per token: id and text, both in the temporary and in the final files


def given_prompts(config: GenerateConfig, hub: Hub) -> dict[str, Step | Given]:
    """The sources of prompts as an input of the step; empty if prompts are openings of the corpus."""
    if not config.prompts:
        return {}
    return {"prompts": hub.given_sources(config.prompts, "generate.prompts")}


def cost(config: GenerateConfig, shape: Shape, context: CostContext) -> Cost:
    """Estimate the cost with answers of maximum length, and without prompts from files, whose lengths are unknown.

    With a server, only disk counts.
    """
    length = config.max_new_tokens + (0 if config.prompts else config.prompt_tokens)
    tokens = config.samples * length
    if config.server.url:
        return Cost(tokens, disk_bytes=tokens * _WRITTEN)
    cache = context.micro_batch(config.samples) * length * shape.kv_cache_bytes(context.frozen)
    return Cost(
        tokens, tokens * shape.flops_per_token(length), shape.parameters * context.frozen + cache, tokens * _WRITTEN
    )
