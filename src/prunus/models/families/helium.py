"""Helium: a Llama with interleaved rotary pairs; llama.cpp does not have it."""

from dataclasses import replace

from prunus.models.families.llama import FAMILY as LLAMA
from prunus.models.families.parts import ATTENTION, GATED_MLP, INPUT_BIAS, MLP_BIAS, PRE_NORMS
from prunus.models.families.rotary import Rotary

FAMILY = replace(
    LLAMA,
    name="Helium",
    model_type="helium",
    class_name="HeliumForCausalLM",
    models="Helium 1",
    about="adjacent rotary pairs",
    layered={**PRE_NORMS, **ATTENTION, **INPUT_BIAS, **GATED_MLP, **MLP_BIAS},
    defaults={"head_dim": lambda _: 128},
    divisible=(),
    square=True,
    rotary=Rotary(theta=1e5, interleaved=True),
    epsilon=1e-8,
    gguf=None,
    onnx=False,
)
