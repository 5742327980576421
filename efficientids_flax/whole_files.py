"""Writes files atomically: readers never find half a file, even if the writer is killed."""

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # errors that mean there is no space left


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Write to a temporary file in the same folder, then rename it.

    Args:
        path: path of the file, which is replaced if it exists; its folder must exist.
        content: the whole content; text is written as UTF-8.

    Raises:
        OSError: writing failed; an existing file is unchanged.
    """
    final = epath.Path(path)
    draft = final.with_name(f".{secrets.token_hex(8)}.tmp")  # short: name lengths are limited
    try:
        with naming(final):
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(final)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Add this file's name to an `OSError` in the block that names no file.

    A full disk, for example, is reported for an open file, without its name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or not error.strerror:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
