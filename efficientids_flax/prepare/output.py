"""The output directory: written under another name, and renamed once it is complete.

The remains of a killed run stay beside it. The next run with the same output removes them; a lock,
which the system releases when the process ends, tells them from a run in progress.
"""

import json
import logging
import os
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from efficientids_flax.prepared_format import FORMAT, MANIFEST
from efficientids_flax.whole_files import FULL

log = logging.getLogger(__name__)
LOCK = "lock"  # in the scratch folder, held during a run
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class OutputError(ValueError):
    """The output exists already, or cannot be made."""


@contextmanager
def output(out: str | os.PathLike[str], *, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """Make two folders beside `out`; the first is renamed to `out` if the block succeeds.

    Args:
        out: directory to make.
        overwrite: replace an earlier output of `prepare`.

    Yields:
        The folder to write to, and one for temporary files. Both are removed after an error,
        SIGTERM or SIGHUP.

    Raises:
        OutputError: something is there that may not be replaced.
        OSError: a folder cannot be made.
    """
    final = Path(os.path.abspath(out))  # noqa: PTH100 (a link stays the name that was given)
    check_output(final, overwrite=overwrite)
    if final.parent.exists() and not final.parent.is_dir():
        raise OutputError(f"{final}: cannot be made, {final.parent} is a file")
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(final)
    mark = secrets.token_hex(4)
    place = final.with_name(f"{final.name}.partial-{mark}")
    scratch = final.with_name(f"{final.name}.scratch-{mark}")
    scratch.mkdir()
    lock = None
    with _ended_by_signals():
        try:
            lock = _locked(scratch / LOCK)
            place.mkdir()
            yield place, scratch
            _publish(place, final, overwrite=overwrite)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise OutputError(
                f"{final}: {os.strerror(error.errno).lower()}; nothing of it is left. Make room"
                " there, for temporary files as well, or choose another place"
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(scratch, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def check_output(final: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if `final` may not be replaced; only outputs of `prepare` may."""
    if not os.path.lexists(final):
        return
    if not final.is_dir():
        raise OutputError(f"{final}: is a file; OUT is a directory to be made")
    if not any(final.iterdir()):
        return
    if not _is_prepared(final):
        raise OutputError(
            f"{final}: is there and was not made by prepare, so it is not replaced; remove it"
            " yourself, or choose another place"
        )
    if not overwrite:
        raise OutputError(f"{final}: is there; give --overwrite to replace it, or another place")


def _remove_unfinished(final: Path) -> None:
    """Remove what killed runs left of this output."""
    pattern = re.compile(re.escape(final.name) + r"\.scratch-([0-9a-f]{8})")
    for scratch in final.parent.iterdir():
        mark = pattern.fullmatch(scratch.name)
        if mark is None or not (scratch / LOCK).exists():
            continue
        lock = _locked(scratch / LOCK)
        if lock is not None:
            log.info("removing %s, of a run that was killed", scratch)
            shutil.rmtree(final.with_name(f"{final.name}.partial-{mark[1]}"), ignore_errors=True)
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(lock)


def _locked(path: Path) -> int | None:
    """Open and lock a file; None if another process holds the lock, or there are no locks."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        return None
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within the block, let SIGTERM and SIGHUP raise `SystemExit`, so that cleanup runs.

    Signals that the caller handles or ignores are left alone.
    """
    alone = threading.current_thread() is threading.main_thread()
    heard = [one for one in ENDING if alone and signal.getsignal(one) is signal.SIG_DFL]
    for one in heard:
        signal.signal(one, _end)
    try:
        yield
    finally:
        for one in heard:
            signal.signal(one, signal.SIG_DFL)


def _end(number: int, _frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _is_prepared(path: Path) -> bool:
    try:
        return json.loads((path / MANIFEST).read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _publish(place: Path, final: Path, *, overwrite: bool) -> None:
    check_output(final, overwrite=overwrite)  # it may have appeared meanwhile
    old = None
    if os.path.lexists(final):
        old = final.with_name(f"{final.name}.old-{secrets.token_hex(4)}")
        final.rename(old)
    try:
        place.rename(final)
    except OSError:
        if old is not None:
            old.rename(final)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
