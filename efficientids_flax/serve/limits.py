"""What one client may ask for and how much may wait. These limits bound memory and time."""

from dataclasses import dataclass, fields

SETS = 31  # bits of a uint32; the highest stays free
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server. A request above one is refused with an error that names the limit.

    Attributes:
        max_batch: histories that are computed at once.
        max_delay_ms: milliseconds that a history waits for others.
        max_queue: histories that may wait; further requests get status 429.
        max_histories: histories in one request.
        max_length: ids in one history.
        max_exclude: excluded items per history, including those for the whole request.
        max_k: items to recommend.
        max_candidates: items to score for one history.
        max_body: bytes of a request body.
        max_set_body: bytes of the body of a request that puts a set.
        max_buffered: total bytes of all request bodies being read.
        max_connections: open connections.
        timeout: seconds from the first byte of a request to its answer; also the seconds within
            which a connection must send the head of a request.
        keep_alive: seconds that a connection may be idle.
    """

    max_batch: int = 64
    max_delay_ms: float = 2.0
    max_queue: int = 1024
    max_histories: int = 64
    max_length: int = 512
    max_exclude: int = 512
    max_k: int = 100
    max_candidates: int = 256
    max_body: int = MEBIBYTE
    max_set_body: int = 16 * MEBIBYTE
    max_buffered: int = 256 * MEBIBYTE
    max_connections: int = 1024
    timeout: float = 10.0
    keep_alive: float = 75.0

    def __post_init__(self) -> None:
        problems = [
            f"{one.name}: expected above 0, found {getattr(self, one.name)}"
            for one in fields(self)
            if getattr(self, one.name) <= 0 and one.name != "max_delay_ms"
        ]
        if self.max_delay_ms < 0:
            problems.append(f"max_delay_ms: expected 0 or more, found {self.max_delay_ms}")
        if self.max_queue < self.max_histories:
            problems.append(
                f"`max_queue`: {self.max_queue} has no room for one request of "
                f"{self.max_histories} histories (`max_histories`)"
            )
        if problems:
            raise ValueError("\n  ".join(["limits:", *problems]))
