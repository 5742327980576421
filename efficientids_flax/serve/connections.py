"""Limits of one connection: the time and the bytes of a request's head."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import time
from typing import Any

from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.service import Service
from efficientids_flax.serve.web import CONTENT_TYPE, ProblemError

LONGEST_HEAD = 1 << 16  # bytes of a request before its body
LINGER = 1.0  # seconds that a refused client has to read the reason


def bounded_protocol(limits: Limits, service: Service) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol class, with limits for each connection.

    Uses httptools if it is installed: h11, which is pure Python, takes four times as long.
    """
    fast = importlib.util.find_spec("httptools") is not None
    module, name = ("httptools_impl", "HttpToolsProtocol") if fast else ("h11_impl", "H11Protocol")
    base: Any = getattr(importlib.import_module(f"uvicorn.protocols.http.{module}"), name)

    class Bounded(base):
        """A connection whose requests must begin in time, with a head of limited size."""

        head = 0  # bytes since the last request began
        refused = False
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            service.heard = time.monotonic()
            service.metrics.connections.set(len(self.connections))
            self._wait()
            if len(self.connections) > limits.max_connections:
                self._refuse(ProblemError(429, "too many connections",
                                          headers={"Retry-After": "1"}))  # fmt: skip

        def connection_lost(self, exc: Exception | None) -> None:
            self._known()
            super().connection_lost(exc)
            service.metrics.connections.set(len(self.connections))

        def data_received(self, data: bytes) -> None:
            if self.refused or self.transport.is_closing():
                return
            service.heard = time.monotonic()
            before = self.cycle
            if before is None or before.response_complete:
                if not self.head:
                    self._wait()
                self.head += len(data)
            super().data_received(data)
            if self.cycle is not before:
                self.head = 0
                self._known()
            elif self.head > LONGEST_HEAD:
                self.send_400_response("")

        def send_400_response(self, msg: str) -> None:
            problem = ProblemError(400, "this is not HTTP")
            if self.head > LONGEST_HEAD:
                problem = ProblemError(431, f"a head of more than {LONGEST_HEAD} bytes")
            self._refuse(problem)

        def _wait(self) -> None:
            self._known()
            self.timer = self.loop.call_later(limits.timeout, self._late)

        def _known(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _late(self) -> None:
            told = f"no request within {limits.timeout:g} s"
            self._refuse(ProblemError(408, told))

        def _refuse(self, problem: ProblemError) -> None:
            if self.refused or self.transport.is_closing():
                return
            self.refused = True
            body = problem.document()
            lines = [
                f"HTTP/1.1 {problem.status} {json.loads(body)['title']}",
                f"content-type: {CONTENT_TYPE}", f"content-length: {len(body)}",
                *(f"{name.lower()}: {value}" for name, value in problem.headers.items()),
                "connection: close", "", "",
            ]  # fmt: skip
            self.transport.write("\r\n".join(lines).encode() + body)
            # Closing a socket with unread bytes would lose the answer, so go on reading a while.
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.close)

    return Bounded
