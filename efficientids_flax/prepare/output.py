"""The place of the output: unfinished beside its name until it is whole, then there at once."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from efficientids_flax.prepared_format import FORMAT, MANIFEST


class OutputError(ValueError):
    """An output that is there already, or cannot be made."""


@contextmanager
def output(out: str | os.PathLike[str], *, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """Two folders beside `out`: the first gets its name when the block ends well.

    Args:
        out: directory to make.
        overwrite: replace one that `prepare` made.

    Yields:
        The folder to write to, and one for what is not kept; both are removed after an error.

    Raises:
        OutputError: there is something that may not be replaced.
        OSError: a folder cannot be made.
    """
    final = Path(os.path.abspath(out))  # noqa: PTH100 (a link stays the name that was given)
    check_output(final, overwrite=overwrite)
    final.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    place = final.with_name(f"{final.name}.partial-{mark}")
    scratch = final.with_name(f"{final.name}.scratch-{mark}")
    place.mkdir()
    try:
        scratch.mkdir()
        yield place, scratch
        _publish(place, final, overwrite=overwrite)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


def check_output(final: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` for what may not be replaced: all but what `prepare` made."""
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


def _is_prepared(path: Path) -> bool:
    try:
        return json.loads((path / MANIFEST).read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _publish(place: Path, final: Path, *, overwrite: bool) -> None:
    check_output(final, overwrite=overwrite)  # something may have come in between
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
