"""Runtime options: device, precision, micro-batch, trackers. They are not part of a result's fingerprint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prunus.config import Config, Location

Tracker = Literal["tensorboard", "trackio", "wandb"]


class Runtime(Config):
    """Where and how work is done. None of it is part of a result's fingerprint."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` (CUDA if available, else the CPU), `cpu`, `cuda`, `cuda:1` or `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of matrix products. Sums and losses are in float32 or float64, and trained weights in float32. `auto`:
    bfloat16 on CUDA devices that support it; on a CPU that supports it, the faster type for one layer of the teacher's
    sizes; else float32."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the loss against the teacher with `torch.compile`: halves its time, needs a C++ compiler. `auto`: on a
    CPU, if it works and the run has at least 20 billion logits (160,000 tokens at a vocabulary of 128k)."""
    device_batch_size: int = Field(default=8, ge=1)
    """Micro-batch: sequences that one device processes at a time. Gradients accumulate up to `batch_size`."""
    shard: bool = False
    """With several processes, shard the weights, gradients and optimizer state of student and teacher (FSDP2) instead
    of replicating them. Also on when `accelerate launch` is configured for FSDP."""
    deepspeed: Location | None = None
    """DeepSpeed configuration file to train with (JSON, ZeRO up to stage 2), instead of plain replication."""
    gradient_checkpointing: bool = False
    """Recompute the trained model's activations in the backward pass instead of storing them: less memory, more
    time."""
    workers: int = Field(default=0, ge=0)
    """Data-loading processes in addition to the main one."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that training reports to, in addition to `metrics.jsonl`."""
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    """Minutes between training checkpoints: the most work that a killed run can lose."""

    @model_validator(mode="after")
    def _exclusive(self) -> Runtime:
        if self.shard and self.deepspeed:
            raise ValueError("shard and deepspeed exclude each other; set only one")
        return self
