"""InternLM3, which transformers and llama.cpp compute as a Llama."""

from dataclasses import replace

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import head_dim_or

assert LLAMA.gguf is not None

FAMILY = replace(
    LLAMA,
    name="InternLM3",
    model_type="internlm3",
    models="InternLM3 8B",
    about="",
    defaults={"head_dim": head_dim_or(128)},
    epsilon=1e-5,
    gguf=replace(LLAMA.gguf, recognised=lambda _: False),  # a file of it is a Llama
    onnx=False,
)
