"""The process: a socket, uvicorn, signals; how it ends without an answer that is missing.

uvicorn alone closes connections on SIGTERM while requests are on their way to it, and waits for
ever for the head of a request. So a server that is to end first lets nobody new in, closes each
connection after its next answer, and hands over to uvicorn once nothing was heard for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.logs import ABOUT, LOGGER
from efficientids_flax.serve.service import MISTAKES, ReloadingError, Service, Settings
from efficientids_flax.serve.web import CONTENT_TYPE, Guard, ProblemError, make_app

SHARE = 0.8  # of the grace in which answers are made; the rest is for the end of the process
QUIET = 0.3  # seconds without a request after which none is on its way
LONGEST_HEAD = 1 << 16  # bytes of a request before its body
LINGER = 1.0  # seconds in which a sender that is refused can read why
BACKLOG = 1024
OTHER_FILES = 256  # than connections
SO_ATTACH_FILTER = 26  # Linux; Python has no name for it
log = logging.getLogger(LOGGER)


async def listen(
    settings: Settings,
    listener: socket.socket,
    *,
    grace: float,
    told: Callable[[Service], None] = lambda service: None,
    stop: asyncio.Event | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, or until `stop` is set; take another export on SIGHUP.

    Args:
        settings: what is served.
        listener: a bound socket that listens; it is closed.
        grace: seconds that requests have to be answered in once it is to end.
        told: called once it answers.
        stop: given, no signal is looked at, so that it may run in any thread.

    Returns:
        Whether all threads have ended; not where it ends while a model is loaded.

    Raises:
        FileNotFoundError, ValueError, MemoryError: the model cannot be served.
    """
    service = Service(settings, settled if stop is None else lambda: None)
    app = make_app(service, MISTAKES, ReloadingError)
    server = _Server(settings.limits, app, service, grace)
    starting = asyncio.create_task(service.start())
    starting.add_done_callback(lambda task: server.started_or_failed(task, told))
    ending = None
    with _signals(server, service) if stop is None else contextlib.nullcontext():
        if stop is not None:
            ending = asyncio.create_task(stop.wait())
            ending.add_done_callback(lambda _: server.drain())
        try:
            await server.serve([listener])
        finally:
            if ending is not None:
                ending.cancel()
    if not starting.done():
        return False
    await starting
    await service.stop()
    return True


def settled() -> None:
    """Let the garbage collector pass over what stays: a pass over a model's objects takes long."""
    gc.unfreeze()  # what a former export has left
    gc.collect()
    gc.freeze()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: naming the address that cannot be had.
    """
    try:
        kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.create_server(address[:2], family=kind, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"{host}:{port}: cannot listen there: {error.strerror or error}") from error
    made.setblocking(False)
    return made


def allow_connections(count: int) -> None:
    """Raise this process's bound of open files to what so many connections take, if it may be."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such bound
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def url_of(listener: socket.socket) -> str:
    """Where a server can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server with another end."""

    def __init__(self, limits: Limits, app: Guard, service: Service, grace: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_protocol(limits, service),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=int(max(limits.keep_alive, 1)),
                backlog=BACKLOG,
            )
        )
        self._app, self._service, self._grace = app, service, grace
        self._draining: asyncio.Task[None] | None = None
        self.must_end: Callable[[float], None] = lambda seconds: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are those of `_signals`."""
        yield

    def started_or_failed(self, task: asyncio.Task[None], told: Callable[[Service], None]) -> None:
        """What becomes of a server whose model is loaded, or cannot be."""
        if task.cancelled() or task.exception() is not None:
            self.should_exit = True
        else:
            told(self._service)

    def drain(self) -> None:
        """End once all that was asked is answered, or after the grace."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        start = time.monotonic()
        self.must_end(self._grace)
        log.info("ending", extra={ABOUT: {"in_flight": self._app.busy}})
        self._service.closing()
        self._app.closing = True
        if self.started:
            for one in self.servers:
                for sock in one.sockets:
                    refuse_new(sock.fileno())
        self._service.heard = start
        while time.monotonic() < start + SHARE * self._grace:
            await asyncio.sleep(0.02)
            if time.monotonic() - self._service.heard > QUIET and not self._app.busy:
                break
        left = start + SHARE * self._grace - time.monotonic()
        # uvicorn hands it to `asyncio.wait_for`, which takes parts of seconds.
        self.config.timeout_graceful_shutdown = max(left, 0.1)  # pyright: ignore[reportAttributeAccessIssue]
        self.should_exit = True


@contextlib.contextmanager
def _signals(server: _Server, service: Service) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    reloading: set[asyncio.Task[Any]] = set()

    def reload() -> None:
        if service.ready:
            task = loop.create_task(_reloaded(service))
            reloading.add(task)
            task.add_done_callback(reloading.discard)

    def must_end(seconds: float) -> None:
        """Whatever is computed then, the process ends."""
        last = threading.Timer(seconds, os._exit, (1,))
        last.daemon = True
        last.start()

    server.must_end = must_end
    handlers = {signal.SIGTERM: server.drain, signal.SIGINT: server.drain}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = reload
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def _reloaded(service: Service) -> None:
    """SIGHUP: what goes wrong is told in the log."""
    try:
        await service.reload()
    except ReloadingError as error:
        log.warning("%s", error)
    except MISTAKES:
        pass  # is told there


def refuse_new(listener: int) -> None:
    """Have the kernel let no further connection in, and none that is in be lost.

    A socket that is closed resets the connections that wait to be accepted. A filter that drops
    packets with the SYN flag leaves them, and whoever comes later comes again and finds the socket
    closed. Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux":
        return
    program = (  # of the classic BPF: code, jump if true, jump if false, number
        (0x30, 0, 0, 13),  # load the byte of the flags in TCP's header
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    descriptor = struct.pack("HP", len(program), ctypes.addressof(code))
    with socket.socket(fileno=os.dup(listener)) as own, contextlib.suppress(OSError):
        own.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, descriptor)


def _protocol(limits: Limits, service: Service) -> type[asyncio.Protocol]:
    """uvicorn's HTTP over a connection that has bounds.

    httptools parses where it is installed: h11, which is plain Python, takes four times as long.
    """
    fast = importlib.util.find_spec("httptools") is not None
    module, name = ("httptools_impl", "HttpToolsProtocol") if fast else ("h11_impl", "H11Protocol")
    base: Any = getattr(importlib.import_module(f"uvicorn.protocols.http.{module}"), name)

    class Bounded(base):
        """A connection whose requests have to begin in time, and with a head of a bounded size."""

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
            # One that is closed over unread bytes loses what was written; so they are read a while.
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.close)

    return Bounded
