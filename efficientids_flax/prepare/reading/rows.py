"""Reads all rows of a file, part by part, in order; blocks are read on several threads."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from efficientids_flax.prepare.forms import IDS, Columnar, Delimited, Field, JsonLines
from efficientids_flax.prepare.reading.blocks import SIZE, Block, blocks
from efficientids_flax.prepare.reading.columnar import ColumnarReader
from efficientids_flax.prepare.reading.delimited import DelimitedReader
from efficientids_flax.prepare.reading.lines import LinesReader
from efficientids_flax.prepare.reading.look import Look
from efficientids_flax.prepare.reading.part import Part
from efficientids_flax.prepare.reading.streams import chunks
from efficientids_flax.prepare.reading.times import Times

THREADS = 2  # for parsing blocks; one more thread reads the file


def rows_of(
    look: Look, fields: tuple[Field, ...], times: Times, *, size: int = SIZE
) -> Iterator[Part]:
    """Read the rows of a file.

    Args:
        look: the first rows of the file.
        fields: what is read; the file must have the columns.
        times: how times are read.
        size: bytes of a block.

    Yields:
        Parts, in the order of the file.

    Raises:
        UnreadableError: the file is damaged.
        OSError: the file cannot be read.
    """
    form = look.form
    if isinstance(form, Columnar):
        yield from ColumnarReader(look.path, fields, times).parts()
        return
    quote = None
    if isinstance(form, Delimited):
        quote = form.quote.encode() if form.quote else None
        read = DelimitedReader(form, look.columns, fields, times, form.columns is None).read
    else:
        read = _lines_reader(form, look, fields, times).read
    pieces = chunks(look.path, look.encoding)
    yield from _in_order(blocks(pieces, quote=quote, size=size), read)


def _lines_reader(
    form: JsonLines, look: Look, fields: tuple[Field, ...], times: Times
) -> LinesReader:
    numeric = {
        field.columns[0]
        for field in fields
        if field.role in IDS and any(type(one) is int for one in look.values(field.columns[0]))
    }
    return LinesReader(form, fields, times, frozenset(numeric))


def _in_order(found: Iterator[Block], read: Callable[[Block], Part]) -> Iterator[Part]:
    """Read blocks ahead; a row cut off by the end of a block is read again with the next one."""
    with ThreadPoolExecutor(THREADS) as threads:
        ahead: deque[tuple[Block, Future[Part]]] = deque()
        try:
            while True:
                while len(ahead) <= THREADS and (block := next(found, None)) is not None:
                    ahead.append((block, threads.submit(read, block)))
                if not ahead:
                    return
                part = ahead.popleft()[1].result()
                if part.rest is not None and ahead:
                    after, _ = ahead.popleft()
                    whole = Block(part.rest.data + after.data, part.rest.line, after.last)
                    ahead.appendleft((whole, threads.submit(read, whole)))
                yield part
        finally:
            for _, future in ahead:
                future.cancel()
