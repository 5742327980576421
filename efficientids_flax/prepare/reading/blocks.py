"""Splits a stream of bytes into blocks of whole rows, each with the number of its first line."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

SIZE = 16 << 20  # bytes, about 700,000 rows of MovieLens; a block must have fewer than 2**24 rows
NEWLINE = 10
LONGEST = 64 << 20  # bytes to wait for the end of a row


@dataclass(frozen=True)
class Block:
    """Rows of a file.

    Attributes:
        data: whole lines.
        line: number of the first line, from 1.
        last: whether it is the last block of the file.
    """

    data: bytes
    line: int
    last: bool


def blocks(
    pieces: Iterable[bytes], *, quote: bytes | None = None, size: int = SIZE
) -> Iterator[Block]:
    """Yield whole lines, about `size` bytes at a time.

    Args:
        pieces: the bytes of a file, in order.
        quote: a line break between two quotes does not end a row, so no block ends there if the
            file is quoted correctly; the reader of rows checks that.
        size: size of a block in bytes.
    """
    held: list[bytes] = []
    length, line = 0, 1
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length < size:
            continue
        data = b"".join(held)
        end = _row_end(data, quote)
        if not end:
            if length > LONGEST:
                end = data.rfind(b"\n") + 1
            if not end:
                held = [data]
                continue
        yield Block(data[:end], line, last=False)
        line += int(np.count_nonzero(np.frombuffer(data, np.uint8, end) == NEWLINE))
        held, length = [data[end:]], len(data) - end
    yield Block(b"".join(held), line, last=True)


def _row_end(data: bytes, quote: bytes | None) -> int:
    """Where the last whole row ends; 0 if there is none."""
    end = data.rfind(b"\n") + 1
    if quote is None:
        return end
    open_quotes = data.count(quote, 0, end) % 2
    while end and open_quotes:
        before = data.rfind(b"\n", 0, end - 1) + 1
        open_quotes = (open_quotes + data.count(quote, before, end)) % 2
        end = before
    return end
