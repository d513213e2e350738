"""Chat models: a GGUF file in llama.cpp, or a folder in transformers. Without a chat template they continue a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from prunus.errors import ModelError
from prunus.inference.prompts import rendered
from prunus.llamacpp.header import read_header
from prunus.llamacpp.server import start_server
from prunus.models.folder import ModelFolder, has_chat_template
from prunus.models.locate import locate_runnable
from prunus.runtime import Runtime
from prunus.tools.chat.config import ChatConfig

Message = dict[str, str]


class Voice(Protocol):
    """A model that answers.

    Attributes:
        name: Its name in the terminal.
        chats: Whether it has a chat template; without one, it continues the last text and ignores earlier ones.
    """

    name: str
    chats: bool

    def reply(self, messages: list[Message], on_text: Callable[[str], None]) -> str:
        """Answer a conversation, calling `on_text` with each piece of text."""


def voice_of(path: str, config: ChatConfig, runtime: Runtime) -> Voice:
    """Load a GGUF file or a model folder for chat.

    Raises:
        ModelError: It does not exist, or cannot be loaded.
    """
    file = locate_runnable(path, "MODEL")
    return FolderVoice(file, config, runtime) if file.is_dir() else GgufVoice(file, config)


class GgufVoice:
    """A GGUF file in llama.cpp."""

    def __init__(self, file: Path, config: ChatConfig) -> None:
        self.name, self.config, self.chats = file.stem, config, read_header(file).has_template
        self.server = start_server(file, config.context).native

    def reply(self, messages: list[Message], on_text: Callable[[str], None]) -> str:
        """Answer, streaming."""
        parts: list[str] = []
        faults: list[str] = []

        def take(piece: str | dict[str, Any]) -> bool:
            data = json.loads(piece) if isinstance(piece, str) else piece
            if "error" in data:
                faults.append(str(data["error"].get("message", data["error"])))
                return True
            for choice in data.get("choices", []):
                text = choice.get("delta", {}).get("content") if self.chats else choice.get("text")
                if text:
                    parts.append(text)
                    on_text(text)
            return False

        request: dict[str, Any] = {
            "stream": True,
            "max_tokens": self.config.max_new_tokens,
            "temperature": self.config.temperature,
            "top_p": self.config.top_p,
            "seed": self.config.seed,
        }
        if self.chats:
            self.server.handle_chat_completions({**request, "messages": messages}, take)
        else:
            self.server.handle_completions({**request, "prompt": messages[-1]["content"]}, take)
        if faults:
            raise ModelError(f"{self.name}: llama.cpp does not answer: {faults[0]}")
        return "".join(parts)


class FolderVoice:
    """A model folder in transformers."""

    def __init__(self, folder: Path, config: ChatConfig, runtime: Runtime) -> None:
        ModelFolder(folder).check()
        from prunus.models.load import device_of, inference_dtype, load_model
        from prunus.models.pretrained import load_tokenizer

        device = device_of(runtime)
        self.name, self.config, self.chats = folder.name, config, has_chat_template(folder)
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, device, inference_dtype(runtime, device)).requires_grad_(False)

    def reply(self, messages: list[Message], on_text: Callable[[str], None]) -> str:
        """Answer, streaming."""
        import torch
        from transformers import TextStreamer

        parts: list[str] = []

        class Streamer(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                parts.append(text)
                on_text(text)

        _, ids = rendered(messages if self.chats else messages[-1]["content"], self.tokenizer, self.name)
        input_ids = torch.tensor([ids], device=self.model.device)
        sampling = (
            {"temperature": self.config.temperature, "top_p": self.config.top_p} if self.config.temperature else {}
        )
        torch.manual_seed(self.config.seed)
        self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=self.config.max_new_tokens,
            do_sample=bool(sampling),
            pad_token_id=self.tokenizer.eos_token_id,
            streamer=Streamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True),
            **sampling,
        )
        return "".join(parts)
