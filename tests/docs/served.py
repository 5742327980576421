"""`efficientids serve ... &` of a page, in a thread of this process, and the few of curl's options.

A process would cost the imports once more.
"""

import asyncio
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

PATIENCE = 240  # seconds, on a busy machine too
_running: list["_Server"] = []


class _Server(threading.Thread):
    """A server until `end`."""

    def __init__(self, settings: Any, listener: Any) -> None:
        super().__init__(daemon=True)
        self._settings, self._listener = settings, listener
        self.ready, self.error = threading.Event(), None

    def run(self) -> None:
        from efficientids_flax.serve.listening import listen

        async def serving() -> None:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            await listen(
                self._settings, self._listener, grace=5, stop=self._over,
                told=lambda _: self.ready.set(),
            )  # fmt: skip

        try:
            asyncio.run(serving())
        except Exception as error:
            self.error = error
        self.ready.set()

    def end(self) -> None:
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self.join(PATIENCE)


def start(command: click.Command, arguments: list[str]) -> tuple[int, str]:
    """(0, what it prints) once it answers."""
    from efficientids_flax.serve.commands.serve import settings_of
    from efficientids_flax.serve.sockets import bind, url_of

    context = command.make_context("serve", arguments)
    given = dict(context.params)
    out = given["checkpoint"]
    listener = bind(given["host"], given["port"])
    url = url_of(listener)
    server = _Server(settings_of(out, given), listener)
    server.start()
    _running.append(server)
    assert server.ready.wait(PATIENCE)
    if server.error is not None:
        raise server.error
    return 0, f"{out}: listening at {url}\n"


@contextmanager
def ended() -> Iterator[None]:
    """What a page has started is ended behind it."""
    try:
        yield
    finally:
        while _running:
            _running.pop().end()


def curl(*words: str) -> str:
    """-sS, -X METHOD, -H 'NAME: VALUE', -d BODY, URL; the body of the answer."""
    method, headers, body, url = None, {}, None, ""
    rest = iter(words)
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = os.path.expandvars(value)
        elif word == "-d":
            body = next(rest).encode()
        elif word != "-sS":
            url = word
    asked = urllib.request.Request(url, body, headers, method=method)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return f"{answer.read().decode()}\n"
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > until:
                return f"{error.read().decode()}\n"
            time.sleep(0.05)
