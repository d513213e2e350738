"""Tiny models of several parts, of transformers' own classes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from tests.tiny import made_once, save_tokenizer

TEXT: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": None, "rms_norm_eps": 1e-12,
}  # fmt: skip
_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_QWEN_VISION: dict[str, Any] = {"num_heads": 2, "patch_size": 14}
_SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
_GRID = [[1, 2, 2]]  # of patches, in time, height and width
_TALL = torch.tensor([2, 1])
_TOKENS = {"image_token_id": 10, "video_token_id": 11, "vision_start_token_id": 12, "vision_end_token_id": 13}


def _usual(outer: str, inner: str, vision: str, **more: Any) -> PreTrainedConfig:
    text, seen = {**TEXT, "model_type": inner}, {**_VISION, "model_type": vision}
    if vision == "pixtral":
        seen["image_size"] = 56
    return AutoConfig.for_model(outer, text_config=text, vision_config=seen, **more)


def _qwen(outer: str, vision: dict[str, Any], more: dict[str, Any] | None = None, **rope: Any) -> PreTrainedConfig:
    text = {**TEXT, **(more or {}), "rope_parameters": {**_SECTIONS, **rope}}
    return AutoConfig.for_model(outer, text_config=text, vision_config={**_QWEN_VISION, **vision}, **_TOKENS)


def config_of(outer: str) -> PreTrainedConfig:
    """The config of a tiny model; `mistral3-old` has Mistral 3's earlier text model."""
    if outer == "gemma3":  # seven layers, one of which does not slide
        sizes = {"model_type": "gemma3_text", "sliding_window": 6, "num_hidden_layers": 7, "query_pre_attn_scalar": 8}
        vision = {**_VISION, "model_type": "siglip_vision_model"}
        text = {**TEXT, **sizes}
        return AutoConfig.for_model(
            "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=10
        )
    square = {"image_size": [28, 28], "patch_size": [14, 14]}
    makers = {
        "mistral3": lambda: _usual("mistral3", "ministral3", "pixtral", image_token_index=10),
        "mistral3-old": lambda: _usual("mistral3", "mistral", "pixtral", image_token_index=10),
        "llava": lambda: _usual("llava", "llama", "clip_vision_model", image_token_index=10),
        "llava_next": lambda: _usual(
            "llava_next", "mistral", "clip_vision_model", image_token_index=10, image_grid_pinpoints=[[28, 28]]
        ),
        "llava_onevision": lambda: _usual(
            "llava_onevision", "qwen2", "siglip_vision_model", image_token_index=10, video_token_index=11,
            image_grid_pinpoints=[[28, 28]],
        ),
        "idefics3": lambda: _usual("idefics3", "llama", "idefics3_vision", image_token_id=10, pad_token_id=2),
        "smolvlm": lambda: _usual("smolvlm", "llama", "smolvlm_vision", image_token_id=10, pad_token_id=2),
        "internvl": lambda: AutoConfig.for_model(
            "internvl", text_config={**TEXT, "model_type": "qwen2"}, image_token_id=10,
            vision_config={**_VISION, **square, "model_type": "internvl_vision"},
        ),
        "qwen2_vl": lambda: _qwen("qwen2_vl", {"depth": 1, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}),
        "qwen2_5_vl": lambda: _qwen(
            "qwen2_5_vl", {"depth": 1, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24}
        ),
        "qwen3_vl": lambda: _qwen(
            "qwen3_vl",
            {"depth": 2, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24,
             "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
            mrope_section=[2, 1, 1], mrope_interleaved=True,
        ),
        "qwen3_5": lambda: _qwen(
            "qwen3_5",
            {"depth": 1, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24,
             "num_position_embeddings": 16},
            {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
             "linear_value_head_dim": 6, "layer_types": ["full_attention", "linear_attention", "full_attention"]},
            mrope_section=[2, 1, 1], mrope_interleaved=True, partial_rotary_factor=1.0,
        ),
    }  # fmt: skip
    return makers[outer]()


CASES = (
    "gemma3", "mistral3", "mistral3-old", "llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "internvl",
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5",
)  # fmt: skip


def make_nested(folder: Path, case: str, **more: Any) -> Path:
    """Save a model of random weights with a tokenizer; `more` are arguments of `save_pretrained`."""
    folder.mkdir(parents=True)

    def make() -> None:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config_of(case), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                scale, mean = (0.2, 0) if parameter.ndim > 1 else (0.3, 1)
                parameter.copy_(torch.randn_like(parameter) * scale + mean)
        model.tie_weights()
        model.save_pretrained(folder, **more)
        save_tokenizer(folder, 300)

    return made_once(folder, f"{case} {more}", make)


def picture(case: str) -> dict[str, torch.Tensor]:
    """A random image as the model's processor would give it, and 12 tokens around the places that it takes."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 28, 28, generator=draw)
    size = torch.tensor([[28, 28]])
    forms: dict[str, tuple[int, dict[str, torch.Tensor]]] = {
        "gemma3": (4, {"pixel_values": pixels[None]}),
        "mistral3": (2, {"pixel_values": torch.cat([pixels, -pixels], 1)[None], "image_sizes": size * _TALL}),
        "llava": (4, {"pixel_values": pixels[None]}),
        "llava_next": (10, {"pixel_values": pixels.expand(1, 2, 3, 28, 28), "image_sizes": size}),
        "llava_onevision": (10, {"pixel_values": pixels.expand(1, 2, 3, 28, 28), "image_sizes": size}),
        "idefics3": (1, {"pixel_values": pixels[None, None]}),
        "internvl": (1, {"pixel_values": pixels[None]}),
        "qwen": (1, {"pixel_values": torch.randn(4, 1176, generator=draw), "image_grid_thw": torch.tensor(_GRID)}),
    }  # fmt: skip
    name = {"smolvlm": "idefics3", "mistral3-old": "mistral3"}.get(case, "qwen" if case.startswith("qwen") else case)
    places, inputs = forms[name]
    ids = torch.randint(14, 300, (1, 12 + places), generator=draw)
    ids[:, 5 : 5 + places] = 10
    kinds = {"mm_token_type_ids": (ids == 10).int()} if name == "qwen" else {}
    kinds |= {"token_type_ids": (ids == 10).int()} if case == "gemma3" else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs, **kinds}
