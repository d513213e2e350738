"""The keys of a GGUF file as the config.json of an equivalent model: the inverse of gguf/metadata.py."""

from __future__ import annotations

from typing import Any

from prunus.errors import ModelError
from prunus.llamacpp.reading import GgufFile
from prunus.models.families.family import Family
from prunus.models.families.gguf import Gguf
from prunus.models.families.table import FAMILIES
from prunus.steps.unpack.keys import Keys
from prunus.steps.unpack.positions import rope_of

_NO_WINDOW = 0
_ROWS = 4096  # rows of two tensors that are compared at a time


def check_kind(file: GgufFile) -> None:
    """Refuse a file that is not a language model, or has an unknown family.

    Raises:
        ModelError: Names its kind or family, and the allowed ones.
    """
    kind, name = file.keys.get("general.type", "model"), file.architecture
    if kind == "mmproj" or name == "clip":
        raise ModelError(
            f"{file.path}: a vision or audio projector (mmproj), not a language model; give the model's file"
        )
    if kind != "model":
        raise ModelError(f"{file.path}: general.type is {kind!r:.40}, not a model")
    if not name:
        raise ModelError(f"{file.path}: not a GGUF file of a language model: general.architecture is missing")
    known = sorted({there.architecture for _, there in _supported()})
    if name not in known:
        raise ModelError(f"{file.path}: general.architecture is {name!r:.40}; allowed: {', '.join(known)}")


def settings_of(file: GgufFile) -> dict[str, Any]:
    """The config.json, without the dtype of weights and the ids of tokens.

    Raises:
        ModelError: A key is missing, has a value that the family does not support, or is unknown.
    """
    keys = Keys(file)
    hidden, heads = keys.whole("embedding_length"), keys.whole("attention.head_count")
    family, there = _family_of(file, keys, hidden, heads)
    sizes = _sizes(file, keys, family, hidden, heads)
    config: dict[str, Any] = {"model_type": family.model_type, "architectures": [family.class_name]}
    for size, value in sizes.items():
        config |= dict.fromkeys(family.config_keys(size)[:1], value)
    if there.square and sizes["head_dim"] * heads == hidden and "head_dim" not in family.defaults:
        config.pop("head_dim", None)  # their stock configs omit it
    kind = "layer_norm" if family.layer_norm else "layer_norm_rms"
    config[family.epsilon_key] = keys.number(f"attention.{kind}_epsilon")
    config |= _flags(file, family)
    config[family.activation_key] = there.activations[0]
    config |= {needed.key: needed.value for needed in there.required if needed.value is not None}
    if family.rotary is not None:
        context = sizes["max_position_embeddings"]
        config["rope_parameters"] = rope_of(file, keys, sizes["head_dim"], context, family.rotary.partial)
    config |= there.read(keys, config, sizes)
    keys.only("attention.causal", True)
    _check_window(keys, sizes["max_position_embeddings"])
    keys.check_all_taken()
    return config


def _supported() -> list[tuple[Family, Gguf]]:
    """The families that llama.cpp supports, and how it stores them."""
    return [(family, family.gguf) for family in FAMILIES.values() if family.gguf is not None]


def _family_of(file: GgufFile, keys: Keys, hidden: int, heads: int) -> tuple[Family, Gguf]:
    """The family; if several share llama.cpp's architecture, the one that the file's keys indicate."""
    values = {**keys.left, "embedding_length": hidden, "attention.head_count": heads}
    same = [(family, there) for family, there in _supported() if there.architecture == file.architecture]
    special = [pair for pair in same if pair[1].recognised is not None and pair[1].recognised(values)]
    return special[0] if special else next(pair for pair in same if pair[1].recognised is None)


def _sizes(file: GgufFile, keys: Keys, family: Family, hidden: int, heads: int) -> dict[str, int]:
    """Every size, by `Shape`'s names."""
    key = "attention.head_count_kv"
    kv_heads = keys.largest(key) if isinstance(keys.left.get(key), list) and family.pattern else keys.whole(key, heads)
    if not heads or not hidden:
        raise ModelError(f"{file.path}: {heads} heads and {hidden} channels; expected at least one")
    head_dim = keys.whole("attention.key_length", hidden // heads)
    values = keys.whole("attention.value_length", head_dim)
    if values != head_dim or ("head_dim" in family.absent and head_dim * heads != hidden):
        raise ModelError(
            f"{file.path}: {heads} heads with {head_dim} dimensions for queries and {values} for values, in "
            f"{hidden} channels; {family.name} does not support that"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelError(f"{file.path}: the tensor token_embd.weight is missing, or not a matrix")
    wide = keys.whole("feed_forward_length")
    experts = keys.whole("expert_count", 0)
    inner = keys.whole("expert_feed_forward_length", 0)
    sizes = {
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": inner or wide,
        "max_position_embeddings": keys.whole("context_length"),
    }
    if bool(experts) != ("num_experts" not in family.absent):
        raise ModelError(f"{file.path}: {keys.prefix}expert_count is {experts}, which {family.name} does not support")
    if experts:
        sizes |= {"num_experts": experts, "num_experts_per_tok": keys.whole("expert_used_count")}
        if "dense_intermediate_size" in family.keys:
            sizes["dense_intermediate_size"] = wide
        if "shared_expert_intermediate_size" in family.keys:
            sizes["shared_expert_intermediate_size"] = keys.whole("expert_shared_feed_forward_length")
    return sizes


def _flags(file: GgufFile, family: Family) -> dict[str, bool]:
    """The flags on which the family's weights depend, from the tensors in the file."""
    assert family.gguf is not None
    flags = {
        flag: any(family.gguf.name_of(key, 0) in file.tensors for key in keys) for flag, keys in family.optional.items()
    }
    return {**flags, "tie_word_embeddings": not _has_head(file)}


def _has_head(file: GgufFile) -> bool:
    """Whether there is an LM head that is not a copy of the embedding, which llama.cpp needs for some families."""
    head, embedding = file.tensors.get("output.weight"), file.tensors["token_embd.weight"]
    if head is None or (head.shape, head.kind) != (embedding.shape, embedding.kind):
        return head is not None
    ours, theirs = head.stored(), embedding.stored()
    parts = (slice(start, start + _ROWS) for start in range(0, len(ours), _ROWS))
    return any((ours[part] != theirs[part]).any() for part in parts)


def _check_window(keys: Keys, context: int) -> None:
    """Refuse a sliding window that was not read by the family, unless it is not below the context."""
    window = keys.whole("attention.sliding_window", _NO_WINDOW)
    if _NO_WINDOW < window < context:
        raise ModelError(
            f"{keys.where}: {keys.prefix}attention.sliding_window is {window}, below the context of {context}; Prunus "
            "does not know which layers of this architecture use it"
        )
