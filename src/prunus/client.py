"""Requests to an OpenAI-compatible server: each ends in an answer, a retry, or a `HubError`.

One time limit covers a whole request, headers included, and one size limit the answer. The key is sent to the given
address and to no other, and is removed from every message.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
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
"""Tries at a server that is busy or cannot be reached."""

TRIES_OF_ANSWERS = 2
"""Tries at a server that takes too long or gives no usable answer."""

PAUSE = 1.0
"""Seconds before the second try; each later one waits twice as long."""

MAX_BYTES = 32 << 20
"""Size limit of an answer; reading stops there."""

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BAD_REQUEST = (400, 413, 422)  # the fault is in this request: too long, or with a field unknown to the server
_MOVED = (307, 308)  # redirects that keep the method, so that a POST remains a POST
_MAX_REDIRECTS = 3
_SURROGATES = re.compile("[\ud800-\udfff]")


class RefusedError(HubError):
    """The server rejects this request; others may succeed."""


class BadAnswerError(Exception):
    """An answer that cannot be used. The message says what is wrong with it, without repeating all of it."""


class _BusyError(Exception):
    """The server is busy."""


@dataclass(frozen=True)
class Server:
    """A server and the settings of requests to it.

    Attributes:
        url: Its address, with or without `/v1`.
        path: The endpoint, such as `chat/completions`; from the server's root if it begins with a slash.
        where: The option's path that errors name, such as `evaluate.judge`.
        key: The bearer token, if there is one.
        patience: Timeout in seconds for one answer, from the connection to the last byte.
        concurrency: The most requests at a time.
        answer_bytes: Size of a usual answer, if that may be more than `MAX_BYTES`, to which answers are limited.
    """

    url: str
    path: str
    where: str
    key: str | None
    patience: float
    concurrency: int
    answer_bytes: int = 0

    @property
    def endpoint(self) -> httpx2.URL:
        """The full address of the endpoint; a query in the server's address is kept."""
        url = httpx2.URL(self.url)
        root = url.path.rstrip("/").removesuffix("/v1")
        return url.copy_with(path=f"{root}{self.path}" if self.path.startswith("/") else f"{root}/v1/{self.path}")

    @property
    def shown(self) -> str:
        """The endpoint for messages, without what may be secret in it."""
        return hide(as_written(str(self.endpoint.copy_with(query=None, fragment=None))), self.key)


class Client:
    """Sends requests to one server concurrently, from a separate thread; closing cancels those in flight.

    Args:
        server: The server.

    Raises:
        HubError: The address is invalid, or the key does not fit into a header.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if server.key and server.key.strip():
            if not re.fullmatch(r"[!-~]+", server.key.strip()):
                raise HubError(f"{server.where}: the key holds characters that are not allowed in an HTTP header")
            headers["Authorization"] = f"Bearer {server.key.strip()}"
        limits = httpx2.Limits(max_connections=server.concurrency)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        try:
            self.url = server.endpoint
            self.http = httpx2.AsyncClient(headers=headers, timeout=None, limits=limits, cookies=no_cookies)
        except (httpx2.InvalidURL, ValueError) as error:  # also for an invalid proxy in the environment
            raise HubError(f"{server.where}.url: invalid address: {hide(str(error), server.key)}") from None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="prunus-client", daemon=True)
        self.slots = asyncio.Semaphore(server.concurrency)
        self.closed, self.closing = False, threading.Lock()

    def __enter__(self) -> Client:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self.closing:  # what was posted before is cancelled, and nothing is posted after
            self.closed = True
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

    def post(self, body: dict[str, Any], read: Callable[[Any], T]) -> Future[T]:
        """Send a request; retry while the server is busy.

        Args:
            body: The request, as JSON.
            read: Extracts the result from the JSON of the answer, or raises `BadAnswerError`.

        Returns:
            A future of what `read` returns. It fails with a `HubError`; with a `RefusedError` if the server rejects
            this request.

        Raises:
            CancelledError: The client is closed.
        """
        with self.closing:
            if self.closed:
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(self._post(body, read), self.loop)

    async def _post(self, body: dict[str, Any], read: Callable[[Any], T]) -> T:
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
        """Send one request and read its answer, following redirects within the server."""
        url = self.url
        for _ in range(1 + _MAX_REDIRECTS):
            request = self.http.build_request("POST", url, content=content)
            response = await self.http.send(request, stream=True)
            try:
                if not 300 <= response.status_code < 400:
                    return self._usable(await self._body(response), response)
                url = self._redirected(url, response)
            finally:
                await response.aclose()
        raise self._refused(f"redirects more than {_MAX_REDIRECTS} times")

    async def _body(self, response: httpx2.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise BadAnswerError("answers in a content encoding that was not requested")
        parts, size, limit = [], 0, max(MAX_BYTES, self.server.answer_bytes)
        async for part in response.aiter_raw():
            size += len(part)
            if size > limit:
                raise BadAnswerError(f"answers more than {limit >> 20} MiB")
            parts.append(part)
        return b"".join(parts)

    def _usable(self, body: bytes, response: httpx2.Response) -> Any:
        """Parse the JSON of an answer; every text in it is valid UTF-8, and none contains the key."""
        if response.status_code in _BUSY:
            raise _BusyError(f"{response.status_code} {self._start(body)}")
        if not 200 <= response.status_code < 300:
            reason = f"{response.status_code} {self._safe(response.reason_phrase)}: {self._start(body)}"
            raise self._refused(reason, RefusedError if response.status_code in _BAD_REQUEST else HubError)
        try:
            value = _clean(parse_json(body, HubError, "the answer"))
        except HubError as error:
            raise BadAnswerError(f"answers {self._start(body)[:200]!r}; expected JSON ({error})") from None
        key = self.server.key
        if key and len(key) >= SECRET and any(form in json.dumps(value) for form in forms(key)):
            raise BadAnswerError("repeats the key in its answer")
        return value

    def _start(self, body: bytes) -> str:
        """The first characters of an answer for a message."""
        return self._safe(body.decode(errors="replace"))[:300]

    def _redirected(self, url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
        """Resolve a redirect; one to another server is refused."""
        try:
            there = url.join(response.headers.get("Location", ""))
        except (httpx2.InvalidURL, ValueError):
            raise self._refused(f"{response.status_code} redirects to an invalid address") from None
        if response.status_code not in _MOVED:
            raise self._refused(
                f"{response.status_code} redirects without keeping the request's method; allowed: 307, 308"
            )
        if _origin(there) != _origin(self.url) or there.userinfo != self.url.userinfo:
            shown = self._safe(str(there.copy_with(path="/", query=None, fragment=None)))[:200]
            raise self._refused(f"{response.status_code} redirects to {shown}, another server, which is not followed")
        return there

    def _refused(self, reason: str, kind: type[HubError] = HubError) -> HubError:
        return kind(f"{self.server.where}: {self.server.shown} refuses the request: {reason}")

    def _safe(self, text: str) -> str:
        """A server's text for a message, without keys."""
        return hide(as_written(_SURROGATES.sub("\ufffd", text)), self.server.key)


def shown_answer(value: Any, expected: str) -> BadAnswerError:
    """The error for an answer in an unexpected form, which it shows."""
    return BadAnswerError(f"answers {hide(json.dumps(value))[:200]!r}; expected {expected}")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _clean(value: Any) -> Any:
    """A JSON value with lone surrogates replaced by U+FFFD: neither a tokenizer nor a UTF-8 file accepts them."""
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return _SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value
