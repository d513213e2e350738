"""A model in transformers, timed in a child process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from prunus.worker import Child, serve


class Transformers(Child):
    """A model folder loaded by transformers in a child process, while the context is open."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        super().__init__("prunus.tools.bench.engine", folder.name, folder, device, precision)

    def peak_bytes(self) -> int | None:
        """Peak memory in bytes: of the GPU if there is one, else of the process."""
        return self.call("gpu_bytes") or super().peak_bytes()


class Timed:
    """The model in the child process."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        from prunus.models.load import device_of, inference_dtype, load_model
        from prunus.runtime import Runtime

        runtime = Runtime.model_validate({"device": device, "precision": precision})
        self.device = device_of(runtime)
        self.model = load_model(folder, self.device, inference_dtype(runtime, self.device)).requires_grad_(False)

    def speed(self, prompt: Sequence[int], count: int) -> tuple[float, float]:
        """Seconds to process a prompt, and to generate `count` tokens after it one by one."""
        import torch

        ids = torch.tensor([list(prompt)], device=self.device)
        with torch.no_grad():
            begin = self._now()
            output = self.model(input_ids=ids, use_cache=True, logits_to_keep=1)
            token = output.logits[:, -1:].argmax(-1)
            read = self._now()
            for _ in range(count):
                output = self.model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
                token = output.logits[:, -1:].argmax(-1)
            return read - begin, self._now() - read

    def gpu_bytes(self) -> int:
        """Peak GPU memory in bytes; 0 without a GPU."""
        import torch

        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else 0

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


if __name__ == "__main__":
    serve(Timed)
