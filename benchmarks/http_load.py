"""HTTP clients on this machine that send requests as fast as possible, or at a fixed rate."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Seen:
    """What came back.

    Attributes:
        statuses: count of each status.
        seconds: time of each answer with status 200.
        wall: seconds from the first to the last.
        lost: requests whose connection ended before the answer.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    lost: int = 0

    def quantile(self, share: float) -> float:
        """A quantile of the answers' times."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return len(self.seconds) / self.wall


def request(path: str, body: Any, token: str | None = None, method: str = "POST") -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", "Content-Type: application/json",
             f"Content-Length: {len(content)}"]  # fmt: skip
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + content


class Client:
    """One connection, which is reopened if the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """(status, body).

        Raises:
            OSError, EOFError: the connection ended.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            self._writer.write(sent)
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            body = await self._reader.readexactly(int(length or 0))
        except (OSError, EOFError):
            self.close()
            raise
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def closed_loop(port: int, requests: Sequence[bytes], clients: int) -> Seen:
    """Each client sends its next request once it has an answer, until all requests are sent."""
    seen, left = Seen(), iter(requests)

    async def one() -> None:
        client = Client(port)
        for sent in left:
            await _timed(client, sent, seen, time.perf_counter())
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    seen.wall = time.perf_counter() - start
    return seen


async def at_rate(
    port: int, make: Callable[[int], bytes], rate: float, count: int, clients: int, *,
    moments: random.Random | None = None,
) -> Seen:  # fmt: skip
    """Send requests at a fixed rate, whatever the server does.

    The time of an answer counts from when its request was due, even if all clients were busy then.

    Args:
        port: port of the server.
        make: gives the n-th request.
        rate: requests per second.
        count: number of requests.
        clients: number of connections.
        moments: draws random times (a Poisson process); None: evenly spaced.
    """
    seen = Seen()
    free = [Client(port) for _ in range(clients)]
    every, tasks = list(free), set()
    start = due = time.perf_counter()

    async def one(client: Client, sent: bytes, since: float) -> None:
        await _timed(client, sent, seen, since)
        free.append(client)

    for number in range(count):
        due += 1 / rate if moments is None else moments.expovariate(rate)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        elif number % 64 == 0:
            await asyncio.sleep(0)
        while not free:
            await asyncio.sleep(0.001)
        task = asyncio.create_task(one(free.pop(), make(number), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    seen.wall = time.perf_counter() - start
    for client in every:
        client.close()
    return seen


async def _timed(client: Client, sent: bytes, seen: Seen, since: float) -> None:
    try:
        status, _ = await client.ask(sent)
    except (OSError, EOFError):
        seen.lost += 1
        return
    seen.statuses[status] += 1
    if status == 200:
        seen.seconds.append(time.perf_counter() - since)
