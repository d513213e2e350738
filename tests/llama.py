"""A Llama written out in float64: slow, obvious, and with nothing of transformers' or ours in it.

S sequence, d channels, D head_dim
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor


@dataclass
class Seen:
    """What one sequence made of a model, by layers, in the order of the forward pass.

    Attributes:
        reads: What each norm reads, [S, d]; the final one is the last.
        gives: What each gives.
        neurons: What each down projection reads, [S, mlp].
        heads: What each output projection reads, [S, heads, D].
        stream: What each layer reads, and what the last one leaves.
    """

    reads: list[Tensor] = field(default_factory=list)
    gives: list[Tensor] = field(default_factory=list)
    neurons: list[Tensor] = field(default_factory=list)
    heads: list[Tensor] = field(default_factory=list)
    stream: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Llama:
    """Its weights in float64, by their names, and its config.json.

    Attributes:
        weights: By name.
        config: The settings.
        basis: The axes [d, d'] that its residual stream is held to: what a rotated cut leaves of it. None for all.
        kept: For each layer the members that stay of `mlp` and of `heads`; None for all.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]
    basis: Tensor | None = None
    kept: list[dict[str, list[int]]] | None = None

    def __call__(self, ids: Tensor, seen: Seen | None = None) -> Tensor:
        """The logits of a sequence: [S] to [S, vocabulary]."""
        seen = Seen() if seen is None else seen
        x = self.held(self.weights["model.embed_tokens.weight"][ids].requires_grad_())
        for i in range(self.config["num_hidden_layers"]):
            seen.stream.append(x)
            x = x + self.held(self.attention(i, self.norm(f"model.layers.{i}.input_layernorm", x, seen), seen))
            x = x + self.held(self.mlp(i, self.norm(f"model.layers.{i}.post_attention_layernorm", x, seen), seen))
        seen.stream.append(x)
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return self.held(self.norm("model.norm", x, seen)) @ head.T

    def held(self, x: Tensor) -> Tensor:
        return x if self.basis is None else x @ self.basis @ self.basis.T

    def norm(self, name: str, x: Tensor, seen: Seen) -> Tensor:
        width = x.shape[-1] if self.basis is None else self.basis.shape[1]
        size = (x.square().sum(-1, keepdim=True) / width + self.config["rms_norm_eps"]).sqrt()
        seen.reads.append(x)
        seen.gives.append(self.weights[f"{name}.weight"] * x / size)
        return seen.gives[-1]

    def attention(self, i: int, x: Tensor, seen: Seen) -> Tensor:
        q, k, v = (self.linear(i, f"self_attn.{n}_proj", x).unflatten(-1, (-1, self.config["head_dim"])) for n in "qkv")
        q, k = self.turned(q), self.turned(k)
        k, v = (y.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for y in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / self.config["head_dim"] ** 0.5
        later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        heads = torch.einsum("hij,jhd->ihd", scores.masked_fill(later, -torch.inf).softmax(-1), v)
        seen.heads.append(heads * self.living(i, "heads", heads.shape[1])[:, None])
        return self.linear(i, "self_attn.o_proj", seen.heads[-1].flatten(1))

    def turned(self, heads: Tensor) -> Tensor:
        """Rotary positions, on the two halves of each head: [S, heads, D]."""
        half = self.config["head_dim"] // 2
        rates = self.config["rope_parameters"]["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = (torch.arange(len(heads), dtype=torch.float64)[:, None] * rates)[:, None]
        a, b = heads[..., :half], heads[..., half:]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], dim=-1)

    def mlp(self, i: int, x: Tensor, seen: Seen) -> Tensor:
        gate, up = (self.linear(i, f"mlp.{name}_proj", x) for name in ("gate", "up"))
        seen.neurons.append(F.silu(gate) * up * self.living(i, "mlp", gate.shape[-1]))
        return self.linear(i, "mlp.down_proj", seen.neurons[-1])

    def living(self, i: int, axis: str, size: int) -> Tensor:
        """1 for each member that stays, 0 for the others."""
        numbers = torch.arange(size)
        return torch.ones(size) if self.kept is None else torch.isin(numbers, torch.tensor(self.kept[i][axis])).double()

    def linear(self, i: int, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"model.layers.{i}.{name}.weight"].T


def read_llama(folder: Path, config: dict[str, Any], **held: Any) -> Llama:
    """Of a folder with one file of weights."""
    weights = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    return Llama(weights, config, **held)
