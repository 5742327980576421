"""A real process: senders that are slow or send nonsense, SIGHUP, SIGTERM."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.running import PATIENCE, running

TIMEOUT = 2.5  # seconds that the server gives a sender
BODY = json.dumps({"histories": [{"items": ["tt001", "tt002"]}], "k": 3}).encode()
ASK = (
    b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Process(NamedTuple):
    process: Any
    port: int
    log: list[bytes]
    reader: threading.Thread


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Process]:
    command = [
        sys.executable, "-c", "from efficientids_flax.commands.program import main; main()",
        "serve", model, "--port", "0", "--json", "--max-batch", "1", "--max-history", "5",
        "--timeout", TIMEOUT, "--grace", "30",
    ]  # fmt: skip
    with running(command) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["pid"] == process.pid
        port = int(told["url"].rpartition(":")[2])
        # A pipe that nobody reads would be full after some hundred requests, and stop the server.
        log: list[bytes] = []
        reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
        reader.start()
        wait_for(port, b"200 OK", b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        yield Process(process, port, log, reader)
        process.kill()
        reader.join(PATIENCE)


def wait_for(port: int, wanted: bytes, asked: bytes) -> None:
    until = time.monotonic() + PATIENCE
    while wanted not in (got := exchange(port, asked)):
        assert time.monotonic() < until, got
        time.sleep(0.05)


def exchange(port: int, *parts: bytes, close: bool = False) -> bytes:
    """Send, and read to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while not close and (part := connection.recv(1 << 16)):
            found += part
        return found


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    found = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % found["status"])
    return found


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/rec", 408),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
         b"Content-Length: 9\r\n\r\n{", 408),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (1 << 17), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
    ids=["slow head", "slow body", "large head", "not HTTP", "nothing there", "large body"],
)  # fmt: skip
def test_senders_get_a_problem_in_time(server: Process, sent: bytes, status: int):
    start = time.monotonic()
    found = exchange(server.port, sent)
    assert problem(found)["status"] == status
    slow = status == 408
    assert (time.monotonic() - start >= TIMEOUT - 0.5) == slow


def test_connections_that_are_closed_early_do_no_harm(server: Process):
    for sent in (b"", b"GET", ASK[:-5], ASK):
        for _ in range(20):
            exchange(server.port, sent, close=True)
    assert exchange(server.port, HEALTH).endswith(b'{"status": "ok"}')


@pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")
def test_the_page_in_a_browser(server: Process, tmp_path: Path):
    """It asks for the history behind # and shows titles, which are text and not markup."""
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
         "--timeout=20000", "--virtual-time-budget=20000", "--dump-dom",
         f"http://127.0.0.1:{server.port}/#tt001,tt002,tt003"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    ).stdout  # fmt: skip
    cells = re.findall(r"<tr><td>(\d+)</td><td>tt(\d+)</td><td>(.*?)</td><td>(.*?)</td>", shown)
    assert [int(rank) for rank, *_ in cells] == list(range(1, 11)), shown
    assert {"001", "002", "003"}.isdisjoint(item for _, item, *_ in cells)
    assert [title for *_, title, _ in cells] == [
        f"Title &lt;{int(item)}&gt; é" for _, item, *_ in cells
    ]
    assert '<p id="told" role="alert"></p>' in shown


class Load:
    """Clients that ask on and on: some on connections that are kept, some on new ones."""

    def __init__(self, port: int) -> None:
        self.port, self.seen = port, Counter[str]()

    async def one(self, kept: bool) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return  # it was not accepted
            with closing(writer):
                last = False
                while not last:
                    writer.write(ASK)
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                    body = json.loads(await reader.readexactly(length))
                    last = b"connection: close" in head or not kept
                    self.seen[f"{head[9:12].decode()} of {body.get('generation')}"] += 1

    async def run(self, number: int, server: Process, until_ended: bool) -> None:
        """A signal to the server while all ask."""
        clients = [asyncio.create_task(self.one(kept=i % 2 == 0)) for i in range(8)]
        while not self.seen:
            await asyncio.sleep(0.01)
        server.process.send_signal(number)
        while not until_ended and len(self.seen) < 2:
            await asyncio.sleep(0.01)
        if not until_ended:
            for client in clients:
                client.cancel()
        ends = await asyncio.gather(*clients, return_exceptions=True)
        assert [end for end in ends if isinstance(end, Exception)] == []


def test_a_new_export_on_sighup(server: Process):
    load = Load(server.port)
    asyncio.run(asyncio.wait_for(load.run(signal.SIGHUP, server, False), PATIENCE))
    assert set(load.seen) == {"200 of 1", "200 of 2"}


def test_sigterm_ends_it_once_all_is_answered(server: Process):
    load, start = Load(server.port), time.monotonic()
    asyncio.run(asyncio.wait_for(load.run(signal.SIGTERM, server, True), PATIENCE))
    assert set(load.seen) == {"200 of 2"}, "and not one connection that was reset"
    assert server.process.wait(timeout=PATIENCE) == 0
    server.reader.join(PATIENCE)
    log = b"".join(server.log)
    assert time.monotonic() - start < 30
    lines = [json.loads(line) for line in log.decode().splitlines()]
    assert {"loaded", "ready", "ending", "request"} <= {one["message"].split()[0] for one in lines}
    assert b"tt001" not in log
