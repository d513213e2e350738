"""A model in transformers with a draft model, timed in a child process: assisted generation, greedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunus.tools.bench.engine import Timed
from prunus.tools.bench.written import Written
from prunus.worker import Child, serve


class Assisted(Child):
    """A model folder and its draft, loaded by transformers in a child process, while the context is open.

    Args:
        folder: The model.
        draft: The draft; None for the model alone.
        length: Tokens that the draft proposes at a time.
        device: See `Runtime`.
        precision: See `Runtime`.
    """

    def __init__(self, folder: Path, draft: Path | None, length: int, device: str, precision: str) -> None:
        super().__init__("prunus.tools.bench.assisted", folder.name, folder, draft, length, device, precision)


class TimedPair(Timed):
    """The two models in the child process."""

    def __init__(self, folder: Path, draft: Path | None, length: int, device: str, precision: str) -> None:
        super().__init__(folder, device, precision)
        self.draft = None if draft is None else Timed(draft, device, precision).model
        self.passes = {"model": 0, "draft": 0}
        for name, model in (("model", self.model), ("draft", self.draft)):
            if model is not None:
                model.register_forward_pre_hook(lambda *_, name=name: self._count(name))
        if self.draft is not None:
            options = self.draft.generation_config
            options.num_assistant_tokens, options.num_assistant_tokens_schedule = length, "constant"
            options.assistant_confidence_threshold = 0.0  # always so many
            options.eos_token_id = None

    def write(self, prompt: Sequence[int], count: int) -> Written:
        """Greedy decoding of `count` tokens after a prompt, which is part of the time."""
        import torch
        from transformers import GenerationConfig

        ids = torch.tensor([list(prompt)], device=self.device)
        options = GenerationConfig(do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0)
        self.passes.update(model=0, draft=0)
        assistant = {} if self.draft is None else {"assistant_model": self.draft}
        begin = self._now()
        with torch.no_grad():
            output = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=options, **assistant
            )
        seconds = self._now() - begin
        ids = output[0, len(prompt) :].tolist()
        return Written(tuple(ids), len(ids), seconds, self.passes["model"], self.passes["draft"])

    def _count(self, name: str) -> None:
        self.passes[name] += 1


if __name__ == "__main__":
    serve(TimedPair)
