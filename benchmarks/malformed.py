"""Sends a server invalid requests of all kinds.

`from_schema` lets schemathesis make requests from an OpenAPI document: some violate it, others
conform but name unknown items. The rest break lower layers: JSON, sizes, timing, TCP.
"""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from benchmarks import http_load as load

CHECK_EVERY = 500
AT_ONCE = 32
WORDS = (b"null", b"-1", b"1e999", b'"\\ud800"', b"[[", b"{}", b"NaN", b"0.5", b"9" * 99)
SLOW = 64  # senders at a time, since each lasts until the server's timeout

Seen = dict[str, Counter[int]]


async def send_all(
    port: int, token: str, good: bytes, count: int, check: Callable[[], Awaitable[int]]
) -> tuple[Seen, int]:
    """Send malformed requests; gives (statuses of each kind of request, what the checks found).

    Status 0 is a connection that ended without an answer.

    Args:
        port: port of the server.
        token: its admin token.
        good: a valid request.
        count: number of requests to send.
        check: sends valid requests; gives how many answers are wrong.
    """
    client = load.Client(port)
    _, schema = await client.ask(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
    client.close()
    slow = min(SLOW, count // 20)
    shares = {"schema": count * 3 // 10, "huge": count // 20, "closed": count // 20, "slow": slow}
    moments = random.Random(0)
    made = await asyncio.to_thread(from_schema, json.loads(schema), shares["schema"], token)
    shares["schema"] = len(made)  # not every path has as many invalid requests
    shares["broken"] = count - sum(shares.values())
    seen: Seen = {kind: Counter() for kind in shares}
    work: list[tuple[str, Callable[[], Awaitable[int]]]] = []
    work += [("schema", partial(_ask, port, sent)) for sent in made]
    work += [("broken", partial(_ask, port, sent))
             for sent in broken(good, shares["broken"], moments)]  # fmt: skip
    work += [("huge", partial(_huge, port, moments.randint(1 << 20, 1 << 23)))
             for _ in range(shares["huge"])]  # fmt: skip
    work += [("closed", partial(_closed, port, good[: moments.randrange(len(good))]))
             for _ in range(shares["closed"])]  # fmt: skip
    moments.shuffle(work)
    senders = [asyncio.create_task(_slow(port, good, moments.random())) for _ in range(slow)]
    wrong = 0
    for first in range(0, len(work), CHECK_EVERY):
        part = iter(work[first : first + CHECK_EVERY])

        async def one(part: Iterator[Any] = part) -> None:
            for kind, run in part:
                seen[kind][await run()] += 1

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        wrong += await check()
    seen["slow"].update(await asyncio.gather(*senders))
    return seen, wrong


def from_schema(schema: dict[str, Any], count: int, token: str) -> list[bytes]:
    """Requests that schemathesis makes for the paths of an OpenAPI document."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    loaded: Any = schemathesis.openapi.from_dict(schema)
    found: list[bytes] = []
    every: Any = list(HealthCheck)
    operations = [one.ok() for one in loaded.get_all_operations()]
    operations = [one for one in operations if one.path != "/v1/reload"]
    ways = [(one, mode) for one in operations for mode in GenerationMode]
    each = -(-count // len(ways))
    for number, (operation, mode) in enumerate(ways):

        @seed(number)
        @settings(max_examples=each, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=every)  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def collect(case: Any) -> None:
            found.append(_bytes(case, token))

        with contextlib.suppress(Unsatisfiable):  # a path without inputs has no invalid ones
            collect()
    return found[:count]


def _bytes(case: Any, token: str) -> bytes:
    """The bytes of a schemathesis request, as `requests` would send it."""
    import requests

    given = case.as_transport_kwargs(base_url="http://bench")
    given.pop("cookies", None)
    allowed = {"method", "url", "headers", "files", "data", "params", "json"}
    given = {name: value for name, value in given.items() if name in allowed}
    headers = {**dict(given.pop("headers", None) or {}), "Authorization": f"Bearer {token}"}
    made = requests.Request(**given, headers=headers).prepare()
    body: Any = made.body or b""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"{made.method} {made.path_url} HTTP/1.1", "Host: bench"]
    lines += [f"{name}: {value}" for name, value in made.headers.items() if name != "Host"]
    if "Content-Length" not in made.headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def broken(good: bytes, count: int, moments: random.Random) -> Iterator[bytes]:
    """Yield a valid request with some bytes of its body changed, removed or doubled."""
    head, _, body = good.partition(b"\r\n\r\n")
    line = head.partition(b"Content-Length:")[0]
    for _ in range(count):
        made = bytearray(body)
        for _ in range(moments.randint(1, 4)):
            at = moments.randrange(len(made) or 1)
            way = moments.randrange(4)
            if way == 0:
                made[at : at + 1] = bytes([moments.randrange(256)])
            elif way == 1:
                del made[at : at + moments.randint(1, 9)]
            elif way == 2:
                made[at:at] = made[: moments.randint(1, 40)]
            else:
                made[at : at + 2] = moments.choice(WORDS)
        yield b"%sContent-Length: %d\r\n\r\n%s" % (line, len(made), made)


async def _ask(port: int, sent: bytes) -> int:
    client = load.Client(port)
    try:
        status, _ = await client.ask(sent)
    except (OSError, EOFError):
        return 0
    finally:
        client.close()
    return status


async def _huge(port: int, size: int) -> int:
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return await _ask(port, b"%sContent-Length: %d\r\n\r\n%s" % (head, size, b" " * size))


async def _closed(port: int, part: bytes) -> int:
    """Close the connection in the middle of a request."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(part)
    writer.close()
    return 0


async def _slow(port: int, good: bytes, pause: float) -> int:
    """Send byte by byte, for longer than the server waits."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for place in range(len(good) // 2):
            writer.write(good[place : place + 1])
            await asyncio.sleep(pause)
            if reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]
                break
        answer = await reader.read(100)
        return int(answer[9:12] or 0)
    except OSError:
        return 0
    finally:
        writer.close()
