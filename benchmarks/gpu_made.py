"""The models, text and places that the checks of gpu_checks.py share; made once, on the CPU.

The teacher is `builtin:sapling`, or with `small` a tiny Llama with random weights; the student has half of its width.
Text is `builtin:world`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from transformers import PreTrainedModel

from prunus.console import Console
from prunus.data.config import Source, TokensConfig
from prunus.data.step import Inputs as DataInputs
from prunus.data.step import run as tokenise
from prunus.data.tokens import Tokens
from prunus.models.draw import draw_model
from prunus.models.folder import ModelFolder
from prunus.models.load import load_model
from prunus.models.locate import locate_model
from prunus.runtime import Runtime
from prunus.steps.prune.config import PruneConfig
from prunus.steps.prune.step import Inputs as PruneInputs
from prunus.steps.prune.step import run as prune
from prunus.steps.score.config import ScoreConfig
from prunus.steps.score.step import Inputs as ScoreInputs
from prunus.steps.score.step import run as score

QUIET = Console(quiet=True)
CPU = torch.device("cpu")
TINY = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 1152, "hidden_size": 48,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 12, "max_position_embeddings": 256, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
    "initializer_range": 0.1, "dtype": "float32",
}  # fmt: skip


@dataclass(frozen=True)
class Where:
    """Where a check runs: the device, and the dtype of its matrix products."""

    device: torch.device
    dtype: torch.dtype
    made: Made

    @property
    def runtime(self) -> Runtime:
        """The options of a step that runs there."""
        return Runtime(device=str(self.device), precision=str(self.dtype).removeprefix("torch."), compile=False)

    def model(self, folder: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
        """A model there, in the dtype of products unless another is given."""
        return load_model(folder, self.device, dtype or self.dtype)

    def autocast(self) -> torch.autocast:
        """The context of training in that dtype with weights in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def normal(self, *size: int, seed: int = 0) -> torch.Tensor:
        """Normal random numbers, the same on every device."""
        return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).to(self.device)


@dataclass(frozen=True)
class Made:
    """What all checks share, made once on the CPU: folders of a teacher, its tokens and scores, and a student."""

    root: Path
    teacher: Path
    small: bool

    @classmethod
    def reopen(cls, root: Path, small: bool) -> Made:
        """What `make` has made there."""
        return cls(root, root / "teacher" if small else sapling(), small)

    @property
    def tokens(self) -> Path:
        """The folder of the stream of tokens."""
        return self.root / "tokens"

    @property
    def scores(self) -> Path:
        """The folder of the teacher's scores."""
        return self.root / "scores"

    @property
    def student(self) -> Path:
        """The folder of a student of half of the teacher's width."""
        return self.root / "student"

    @property
    def width(self) -> dict[str, int]:
        """The student's sizes."""
        shape = ModelFolder(self.teacher).shape
        return {"hidden_size": shape.hidden_size // 2, "intermediate_size": shape.intermediate_size // 2}

    def folder(self) -> Path:
        """A new empty folder."""
        return Path(mkdtemp(dir=self.root))

    def ids(self, count: int, length: int) -> torch.Tensor:
        """Tokens of the stream, [count, length]."""
        return torch.from_numpy(Tokens.open(self.tokens).ids[: count * length].astype(np.int64)).view(count, length)


def sapling() -> Path:
    """The folder of `builtin:sapling`."""
    return locate_model("builtin:sapling", None, "gpu").folder.path


def make(root: Path, small: bool) -> Made:
    """Make everything that the checks share in the folder `root`."""
    made = Made.reopen(root, small)
    for name in ("tokens", "scores", "student"):
        (root / name).mkdir()
    if small:
        made.teacher.mkdir()
        for file in sapling().glob("*token*"):
            shutil.copy(file, made.teacher)
        draw_model(TINY, made.teacher, seed=0)
    cpu = Where(CPU, torch.float32, made).runtime
    source = Source.model_validate({"path": "builtin:world", "name": "stories"})
    tokenise(TokensConfig(max_tokens=40_000), DataInputs((source,), made.teacher), made.tokens, cpu, QUIET)
    score(score_config(made), ScoreInputs(made.teacher, made.tokens), made.scores, cpu, QUIET)
    config = PruneConfig.model_validate({**made.width, "heal": "none", "check_samples": 0})
    prune(config, PruneInputs(made.teacher, made.scores, made.tokens), made.student, cpu, QUIET)
    return made


def score_config(made: Made) -> ScoreConfig:
    """All statistics but accuracy."""
    collect = ("mean", "l2", "variance", "gradients", "covariance", "gradient_covariance", "lm_loss", "logit_nmse")
    samples = 4 if made.small else 16
    return ScoreConfig(samples=samples, sequence_length=64, collect=collect, layer_samples=2)
