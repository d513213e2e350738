"""Tiny models in code, in Hugging Face's own form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "plum",
    "cherry",
    "almond",
    "tree",
    "that",
    "bore",
    "more",
    "fruit",
]

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def make_model(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Save a Llama of random weights, norm gains and biases too, with a byte-level tokenizer."""
    folder.mkdir(parents=True)

    def make() -> None:
        config = AutoConfig.for_model(**{**SMALL, **changes})
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                scale, mean = (0.2, 0) if parameter.ndim > 1 else (0.3, 1)
                parameter.copy_(torch.randn_like(parameter) * scale + mean)
        model.to(dtype).save_pretrained(folder)
        save_tokenizer(folder, config.vocab_size)

    return made_once(folder, f"{seed} {dtype} {changes}", make)


_MADE: dict[str, tuple[dict[str, bytes], torch.Tensor]] = {}
_KEPT_BYTES = 4 << 20


def made_once(folder: Path, key: str, make: Callable[[], None]) -> Path:
    """Fill a folder, from memory where this process has made the same before.

    Args:
        folder: The folder.
        key: What decides its content.
        make: Writes the files into it, none in folders below.

    Returns:
        The folder. Torch's random numbers go on from where `make` leaves them, in both cases.
    """
    if key in _MADE:
        files, state = _MADE[key]
        for name, content in files.items():
            (folder / name).write_bytes(content)
        torch.set_rng_state(state)
        return folder
    empty = not any(folder.iterdir())
    make()
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    if empty and sum(map(len, files.values())) <= _KEPT_BYTES:
        _MADE[key] = files, torch.get_rng_state()
    return folder


def save_tokenizer(folder: Path, vocab_size: int) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 10, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def load(folder: Path) -> Any:
    """Load as a stranger would."""
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()
