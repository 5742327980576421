"""What one client may ask for, and how much may wait: memory and time are bounded by these."""

from dataclasses import dataclass, fields

SETS = 31  # bits of a uint32, the highest of which stays free
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server; what is above them is refused by name.

    Attributes:
        max_batch: histories that are computed at once.
        max_delay_ms: milliseconds that a history waits for others.
        max_queue: histories that may wait; more are told to come again.
        max_histories: of one request.
        max_length: ids of one history.
        max_exclude: items that a request and a history leave out, together.
        max_k: items that are found.
        max_candidates: items that are scored for one history.
        max_body: bytes of a request.
        max_set_body: bytes of a request that puts a set.
        max_buffered: bytes of all requests that are being read.
        max_connections: at once.
        timeout: seconds from the first byte of a request to its answer, and that a connection may
            take to send the head of one.
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
