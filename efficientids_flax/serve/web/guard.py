"""Wraps the application: checks tokens, sizes and times, assigns request ids, and logs requests.

A request is read completely, within its limits, before the application gets it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.logs import ABOUT, LOGGER
from efficientids_flax.serve.web.metrics import Metrics
from efficientids_flax.serve.web.problems import CONTENT_TYPE, ProblemError
from efficientids_flax.serve.web.tokens import Secrets

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"}
JSON = re.compile(rb"application/json\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
LINGER, LINGER_BYTES = 1.0, 1 << 24  # read on so that the sender gets the refusal
ASKING = {("POST", "/v1/recommend"), ("POST", "/v1/score")}
RELOAD = ("POST", "/v1/reload")  # may take as long as a model takes to load
GONE = 499  # status in logs and metrics if the client has left
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
log = logging.getLogger(LOGGER)


class _GoneError(Exception):
    """The client has closed the connection."""


class Guard:
    """An ASGI application around another.

    Args:
        app: the application.
        limits: limits of requests.
        secrets: tokens of those who may ask.
        metrics: counts each request.
        check_room: raises a `ProblemError` if no further history can wait. It is called before the
            application parses the request, so that refusing costs little.

    Attributes:
        closing: whether connections are closed after their next answer.
        busy: number of requests that are not answered yet.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        secrets: Secrets,
        metrics: Metrics,
        check_room: Callable[[], None],
    ) -> None:
        self._app, self._limits, self._secrets, self._metrics = app, limits, secrets, metrics
        self._check_room = check_room
        self._buffered = 0
        self.closing = False
        self.busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        call = _Call(self, scope, send)
        self.busy += 1
        try:
            await self._answer(call, receive)
        finally:
            self.busy -= 1
            self._buffered -= call.buffered
            seconds = time.monotonic() - call.start
            self._metrics.answered(call.method, call.route, call.status, seconds)
            log.info("request", extra={ABOUT: call.about(seconds)})

    async def _answer(self, call: _Call, receive: Receive) -> None:
        try:
            self._secrets.check(call.method, call.path, call.headers.get(b"authorization"))
            body = await self._body(call, receive)
            call.read = True
            if (call.method, call.path) in ASKING:
                call.asked = True
                self._check_room()
            if log.isEnabledFor(logging.DEBUG):
                about = {"request_id": call.id, "body": body.decode(errors="replace")}
                log.debug("body", extra={ABOUT: about})
            loads = (call.method, call.path) == RELOAD
            async with asyncio.timeout_at(None if loads else call.deadline):
                await self._app(call.scope, _replayed(body, receive), call.send)
        except _GoneError:
            call.status = GONE
        except ProblemError as problem:
            await call.refuse(problem)
        except TimeoutError:
            await call.refuse(
                ProblemError(503, f"no answer within {self._limits.timeout:g} s",
                             headers={"Retry-After": "1"})
            )  # fmt: skip
        except asyncio.CancelledError:
            await call.refuse(
                ProblemError(503, "the server has ended", headers={"Retry-After": "1"})
            )
            raise
        except Exception:
            log.exception("a fault of this server", extra={ABOUT: {"request_id": call.id}})
            await call.refuse(ProblemError(500, "a fault of this server; its log tells more"))

    async def _body(self, call: _Call, receive: Receive) -> bytes:
        """Read the whole body.

        Raises:
            ProblemError: it is too large, comes too slowly, or is not declared as JSON.
        """
        most = self._limits.max_body
        if call.method == "PUT" and call.path.startswith("/v1/sets/"):
            most = self._limits.max_set_body
        announced = call.headers.get(b"content-length", b"0")
        large = ProblemError(413, f"the body has more than {most} bytes")
        if announced.isdigit() and int(announced) > most:
            await self._linger(receive)
            raise large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout_at(call.deadline):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    call.buffered += len(part)
                    self._buffered += len(part)
                    if size > most:
                        await self._linger(receive)
                        raise large
                    if not message.get("more_body"):
                        break
                    if self._buffered > self._limits.max_buffered:
                        raise ProblemError(
                            429, "too many bodies are being read", headers={"Retry-After": "1"}
                        )
        except TimeoutError:
            raise ProblemError(
                408, f"the body was not complete within {self._limits.timeout:g} s"
            ) from None
        if size and call.path.startswith("/v1/"):
            kind = call.headers.get(b"content-type", b"")
            if JSON.fullmatch(kind) is None:
                raise ProblemError(415, "expected a body of Content-Type: application/json")
        return b"".join(parts)

    @staticmethod
    async def _linger(receive: Receive) -> None:
        """Read on for a moment: closing a connection with unread bytes would lose the answer."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
        except TimeoutError:
            pass


class _Call:
    """One request and its outcome."""

    def __init__(self, guard: Guard, scope: Scope, send: Send) -> None:
        self.scope, self._guard, self._send = scope, guard, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method = scope["method"] if scope["method"] in METHODS else "other"
        self.path: str = scope["path"]
        given = self.headers.get(b"x-request-id", b"")
        known = REQUEST_ID.fullmatch(given) is not None
        self.id = given.decode() if known else uuid.uuid4().hex
        scope["request_id"] = self.id
        self.start = time.monotonic()
        self.deadline = asyncio.get_running_loop().time() + guard._limits.timeout
        self.status, self.started = 0, False
        self.read, self.buffered = False, 0  # whether the whole body was read; its bytes so far
        self.asked = False  # whether it is one of `ASKING`

    @property
    def route(self) -> str:
        """The path pattern of the application, "none" if none matched, so labels stay few."""
        return self.path if self.asked else getattr(self.scope.get("route"), "path", "none")

    def about(self, seconds: float) -> dict[str, Any]:
        """The fields of its log line."""
        return {
            "request_id": self.id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "ms": round(1000 * seconds, 2),
            **self.scope.get("about", {}),
        }

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on the application's answer, with the common headers."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = [*message.get("headers", []), *HEADERS, (b"x-request-id", self.id.encode())]
            if self._guard.closing:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.started:
            return
        body = problem.document(self.id)
        headers = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
        ]
        if not (self.read or self._guard.closing):
            headers.append((b"connection", b"close"))  # do not parse the rest as a request
        await self.send(
            {"type": "http.response.start", "status": problem.status, "headers": headers}
        )
        # uvicorn leaves out the body in an answer to HEAD.
        await self.send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that first gives a body that was already read."""
    given = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
