"""Asking a server that speaks OpenAI's API: whatever it sends is an answer, a reason to ask again, or a `HubError`.

A request has one time limit for all of it, its headers too, and an answer one limit of size. The key goes to the
address that was given and to no other, and is taken out of every message.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, TypeVar

import httpx2

from prunus.environment import as_written
from prunus.errors import HubError
from prunus.files import parse_json
from prunus.keys import SECRET, forms, hide

T = TypeVar("T")

TRIES = 6
"""How often a server that is busy, or cannot be reached, is asked."""

TRIES_OF_ANSWERS = 2
"""How often one that takes too long, or gives no usable answer, is asked."""

PAUSE = 1.0
"""Seconds before the second try; each later one waits twice as long."""

MAX_BYTES = 32 << 20
"""A longer answer is not read to its end."""

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_NOT_THIS = (400, 413, 422)  # of the request itself: too long, or with what the server does not know
_MOVED = (307, 308)  # the redirects after which a POST is still a POST
_HOPS = 3
_SURROGATES = re.compile("[\ud800-\udfff]")


class RefusedError(HubError):
    """The server does not take this request, though it may take others."""


class BadAnswerError(Exception):
    """What a server answered cannot be used. The message says what is wrong with it, without the answer."""


class _BusyError(Exception):
    """The server cannot answer now."""


@dataclass(frozen=True)
class Server:
    """A server, and how it is asked.

    Attributes:
        url: Its address, with or without `/v1`.
        path: What is asked for, such as `chat/completions`.
        where: The option's path that errors name, such as `evaluate.judge`.
        key: Sent as the bearer token, if there is one.
        patience: Seconds for one answer, from the connection to the last byte.
        concurrency: Requests under way at a time.
    """

    url: str
    path: str
    where: str
    key: str | None
    patience: float
    concurrency: int

    @property
    def endpoint(self) -> httpx2.URL:
        """The full address of what is asked for; what follows a `?` in the address stays behind it."""
        url = httpx2.URL(self.url)
        base = url.path.rstrip("/")
        return url.copy_with(path=f"{base if base.endswith('/v1') else f'{base}/v1'}/{self.path}")

    @property
    def shown(self) -> str:
        """The same for messages: without what may be secret in it."""
        return hide(as_written(str(self.endpoint.copy_with(query=None, fragment=None))), self.key)


class Client:
    """Asks one server, many requests at a time, from a thread of its own; what is under way at the end is dropped.

    Args:
        server: Whom, and how.

    Raises:
        HubError: The address or the key can be sent nowhere.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if server.key and server.key.strip():
            if not re.fullmatch(r"[!-~]+", server.key.strip()):
                raise HubError(f"{server.where}: the key holds characters that no header can carry")
            headers["Authorization"] = f"Bearer {server.key.strip()}"
        limits = httpx2.Limits(max_connections=server.concurrency)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        try:
            self.url = server.endpoint
            self.http = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits, cookies=no_cookies)
        except (httpx2.InvalidURL, ValueError) as error:  # of a proxy in the environment, too
            raise HubError(f"{server.where}.url: cannot be asked: {hide(str(error), server.key)}") from None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="prunus-client", daemon=True)
        self.slots = asyncio.Semaphore(server.concurrency)

    def __enter__(self) -> Client:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.http.aclose()

    def ask(self, body: dict[str, Any], read: Callable[[Any], T]) -> Future[T]:
        """Ask, again and again while the server is busy.

        Args:
            body: The request.
            read: Takes what is wanted out of the JSON that is answered, or raises `BadAnswerError`.

        Returns:
            What `read` gives, when it comes; or a `HubError`, which is a `RefusedError` where the server refuses this
            request.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(body, read), self.loop)

    async def _ask(self, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        async with self.slots:
            content = json.dumps(body).encode()
            tries = unanswered = 0
            while True:
                tries += 1
                try:
                    async with asyncio.timeout(self.server.patience):
                        answer = await self._answer(content)
                    return read(answer)
                except TimeoutError:
                    reason, unanswered = f"timed out after {self.server.patience:g} s", unanswered + 1
                except BadAnswerError as error:
                    reason, unanswered = str(error), unanswered + 1
                except (_BusyError, httpx2.HTTPError, OSError) as error:
                    reason = self._safe(str(error) or type(error).__name__)
                if tries >= TRIES or unanswered >= TRIES_OF_ANSWERS:
                    break
                await asyncio.sleep(PAUSE * 2 ** (tries - 1))
        count = "1 try" if tries == 1 else f"{tries} tries"
        where, shown = self.server.where, self.server.shown
        raise HubError(f"{where}.url: {shown} gives no usable answer after {count}: {reason}")

    async def _answer(self, content: bytes) -> Any:
        """One request and its answer, through redirects within the server."""
        url = self.url
        for _ in range(1 + _HOPS):
            request = self.http.build_request("POST", url, content=content)
            response = await self.http.send(request, stream=True)
            try:
                if not 300 <= response.status_code < 400:
                    return self._usable(await self._body(response), response)
                url = self._elsewhere(url, response)
            finally:
                await response.aclose()
        raise self._refused(f"redirects more than {_HOPS} times")

    async def _body(self, response: httpx2.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise BadAnswerError("answers in a coding that was not asked for")
        parts, size = [], 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > MAX_BYTES:
                raise BadAnswerError(f"answers more than {MAX_BYTES >> 20} MiB")
            parts.append(part)
        return b"".join(parts)

    def _usable(self, body: bytes, response: httpx2.Response) -> Any:
        """The JSON of an answer, every text in it whole UTF-8 and none with the key."""
        said = self._safe(body.decode(errors="replace"))[:300]
        if response.status_code in _BUSY:
            raise _BusyError(f"{response.status_code} {said}")
        if not 200 <= response.status_code < 300:
            reason = f"{response.status_code} {self._safe(response.reason_phrase)}: {said}"
            raise self._refused(reason, RefusedError if response.status_code in _NOT_THIS else HubError)
        try:
            value = _clean(parse_json(body, HubError, "the answer"))
        except HubError as error:
            raise BadAnswerError(f"answers {said[:200]!r}; JSON is expected ({error})") from None
        key = self.server.key
        if key and len(key) >= SECRET and any(form in json.dumps(value) for form in forms(key)):
            raise BadAnswerError("repeats the key in its answer")
        return value

    def _elsewhere(self, url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
        """Where a redirect leads: to the same server, or it is refused."""
        try:
            there = url.join(response.headers.get("Location", ""))
        except (httpx2.InvalidURL, ValueError):
            raise self._refused(f"{response.status_code} redirects to what is no address") from None
        if response.status_code not in _MOVED:
            raise self._refused(f"{response.status_code} redirects in a way that keeps no request; allowed: 307, 308")
        if _origin(there) != _origin(self.url) or there.userinfo != self.url.userinfo:
            shown = self._safe(str(there.copy_with(path="/", query=None, fragment=None)))[:200]
            raise self._refused(f"{response.status_code} redirects to {shown}, another server, which is not followed")
        return there

    def _refused(self, reason: str, kind: type[HubError] = HubError) -> HubError:
        return kind(f"{self.server.where}: {self.server.shown} refuses the request: {reason}")

    def _safe(self, text: str) -> str:
        """What a server said, for a message."""
        return hide(as_written(_SURROGATES.sub("\ufffd", text)), self.server.key)


def shown_answer(value: Any, expected: str) -> BadAnswerError:
    """The error for an answer of another form."""
    return BadAnswerError(f"answers {hide(json.dumps(value))[:200]!r}; {expected} is expected")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _clean(value: Any) -> Any:
    """A value of JSON with U+FFFD for each half of a surrogate pair: no tokenizer takes it, nor a UTF-8 file."""
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value
