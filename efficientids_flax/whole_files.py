"""Files that appear whole: no reader finds half of one, whenever the writer is killed."""

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # of errors: there is no room for more


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Write beside the place first, then take the name.

    Args:
        path: of the file, which is replaced where it is there; its folder is there.
        content: all of it; a text is written as UTF-8.

    Raises:
        OSError: it cannot be written; what was there is unchanged.
    """
    final = epath.Path(path)
    draft = final.with_name(f".{secrets.token_hex(8)}.tmp")  # no longer than names may be
    try:
        with naming(final):
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(final)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Errors of the system in the block name this file, where they name none.

    That the disk is full is told of a file that is open, whose name the system does not say.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or not error.strerror:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
