"""Runtime: how a result is made (where, in what portions, watched by whom), which never changes its name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.config import Config, Path

Tracker = Literal["tensorboard", "trackio", "wandb"]


class Runtime(Config):
    """Where the work is done. None of this is part of a result's identity."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` (CUDA where there is any, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`."""
    precision: Literal["auto", "float32", "bfloat16", "probe"] = "auto"
    """Arithmetic; `auto` is bfloat16 on CUDA that has it, else float32; `probe` trains in what is faster here, which a
    few passes tell before training, and is `auto` otherwise."""
    compile: bool | Literal["auto"] = "auto"
    """Whether losses by a teacher are compiled by `torch.compile`, which halves their time and takes a C++ compiler;
    `auto` does where it pays (on a CPU, from 20 billion logits on: 160,000 tokens of a vocabulary of 128k) and it
    works."""
    device_batch_size: int = Field(default=8, ge=1)
    """Sequences that one device holds at a time; gradients accumulate up to the step's batch size."""
    shard: bool = False
    """Of several processes, give each a share of the weights, gradients and optimizer state of student and teacher
    (FSDP2) in place of a copy; also where `accelerate launch` was told to use FSDP."""
    deepspeed: Path | None = None
    """A configuration of DeepSpeed's (JSON, ZeRO up to stage 2) to train under, in place of plain copies."""
    gradient_checkpointing: bool = False
    """Compute activations of the trained model again in the backward pass in place of keeping them."""
    workers: int = Field(default=0, ge=0)
    """Processes that load data besides the main one."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers to report training to, besides `metrics.jsonl`."""
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    """Minutes between training checkpoints; what a killed run can lose."""

    @model_validator(mode="after")
    def _one_way_to_share(self) -> Runtime:
        if self.shard and self.deepspeed:
            raise ValueError("shard and deepspeed are two ways of sharing out; give one")
        return self
