"""What goes wrong with checkpoints on disk, in one line each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST = 300  # letters of an error of the libraries below


class CheckpointMismatch(ValueError):
    """The checkpoint is of another model, optimizer or freezing."""


class UnwrittenCheckpoint(OSError):
    """A checkpoint could not be written; those before it are whole."""


class DamagedCheckpoint(ValueError):
    """A checkpoint cannot be read, though it is there."""


# Not the checkpoint's fault: reading it again may go well.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "Permission denied", "UNAVAILABLE")


def in_a_line(error: BaseException) -> str:
    """What an error says, without the pages that tensorstore adds."""
    text = str(error) or type(error).__name__
    text = re.sub(r"\s*\[(source locations|tensorstore_spec)=.*", "", text, flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


@contextmanager
def reading(where: Any) -> Iterator[None]:
    """Errors in the block are those of a damaged checkpoint.

    Raises:
        DamagedCheckpoint: naming it. Errors that say nothing of it are raised as they are.
    """
    try:
        yield
    except (CheckpointMismatch, MemoryError, PermissionError, DamagedCheckpoint):
        raise
    except Exception as error:
        if any(word in str(error) for word in _NOT_DAMAGE):
            raise
        raise DamagedCheckpoint(f"{where}: damaged, cannot be read: {in_a_line(error)}") from error


@contextmanager
def writing(directory: Any, newest: Any) -> Iterator[None]:
    """Errors in the block, or in the background before it, are those of a failed write.

    Args:
        directory: of the run.
        newest: gives the newest step that is whole, None without one.

    Raises:
        UnwrittenCheckpoint: naming the directory and what is left.
    """
    try:
        yield
    except UnwrittenCheckpoint:
        raise
    except Exception as error:
        step = newest()
        left = "no checkpoint is there" if step is None else f"the newest whole one is step {step}"
        raise UnwrittenCheckpoint(
            f"{directory}: a checkpoint could not be written: {in_a_line(error)}; {left}. With room"
            " and permission to write there, the same command goes on from it"
        ) from error
