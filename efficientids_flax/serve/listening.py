"""The process: uvicorn, signals, and a shutdown that leaves no request unanswered.

On SIGTERM, uvicorn alone closes connections while requests are on their way, and waits forever for
the head of a request. So this server first refuses new connections and closes each connection after
its next answer. Once no data has arrived for a moment, it hands over to uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from efficientids_flax.serve.connections import bounded_protocol
from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.logs import ABOUT, LOGGER
from efficientids_flax.serve.service import MISTAKES, ReloadingError, Service, Settings
from efficientids_flax.serve.sockets import BACKLOG, refuse_new
from efficientids_flax.serve.web import Guard, make_app

SHARE = 0.8  # share of the grace period for answers; the rest is for the process to exit
QUIET = 0.3  # seconds without data after which no request is assumed to be on its way
log = logging.getLogger(LOGGER)


async def listen(
    settings: Settings,
    listener: socket.socket,
    *,
    grace: float,
    told: Callable[[Service], None] = lambda service: None,
    stop: asyncio.Event | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, or until `stop` is set; reload the export on SIGHUP.

    Args:
        settings: what is served.
        listener: a bound, listening socket; it is closed at the end.
        grace: seconds within which pending requests must be answered at shutdown.
        told: called once the server is ready to answer.
        stop: ends the server when set. If given, signals are not handled, so any thread can call.

    Returns:
        Whether all threads have ended; False if it was stopped while the model was loading.

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
    """Exempt all live objects from garbage collection: scanning a model's objects takes long."""
    gc.unfreeze()  # include what an earlier export left
    gc.collect()
    gc.freeze()


class _Server(uvicorn.Server):
    """uvicorn's server with another shutdown."""

    def __init__(self, limits: Limits, app: Guard, service: Service, grace: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(limits, service),
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
        """Do nothing: `_signals` handles signals."""
        yield

    def started_or_failed(self, task: asyncio.Task[None], told: Callable[[Service], None]) -> None:
        """Call `told` once the model is loaded; exit if loading failed."""
        if task.cancelled() or task.exception() is not None:
            self.should_exit = True
        else:
            told(self._service)

    def drain(self) -> None:
        """Shut down once all requests are answered or the grace is over; called again, at once."""
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
        # Declared int, but uvicorn passes it to `asyncio.wait_for`, which takes fractions.
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
        """Exit the process after this time, even in the middle of a computation."""
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
    """Reload on SIGHUP; errors go to the log."""
    try:
        await service.reload()
    except ReloadingError as error:
        log.warning("%s", error)
    except MISTAKES:
        pass  # `reload` has logged it
