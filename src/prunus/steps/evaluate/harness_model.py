"""The model as lm-evaluation-harness runs it: contexts computed once, with a line that shows progress."""

from __future__ import annotations

from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from prunus.console import Console, Progress
from prunus.steps.evaluate.likelihood import likelihoods

_NO_LINE = Progress("", None, "")


class HarnessModel(HFLM):
    """A loaded model whose log-likelihoods are those of `likelihoods`; all else is as in the harness."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, context: int, batch_size: int, name: str, console: Console
    ) -> None:
        """Wrap a model; `context` is its maximum sequence length, and `name` the task's, for the progress line."""
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=context)
        self._name, self._console, self._line = name, console, _NO_LINE

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Results of (key, context, continuation); each is cached under its key as soon as it is known."""
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        pairs = [(context, continuation) for _, context, continuation in requests]
        with self._console.progress(self._name, len(requests), "requests") as line:
            for done, (number, result) in enumerate(
                likelihoods(self.model, pairs, override_bs or self.batch_size, self.max_length), start=1
            ):
                found[number] = (result.value, result.greedy)
                if requests[number][0] is not None:  # None: a window of a rolling likelihood
                    self.cache_hook.add_partial("loglikelihood", requests[number][0], found[number])
                line.update(done)
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Generated answers."""
        with self._console.progress(self._name, len(requests), "answers") as self._line:
            answers: list[str] = super().generate_until(requests, disable_tqdm)
        return answers

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        generated = super()._model_generate(context, max_length, stop, **options)
        self._line.update(self._line.done + len(context))
        return generated
