"""What goes wrong with checkpoints on disk, in one line each."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from efficientids_flax.stored.echoes import without_echoes
from efficientids_flax.text import in_a_line


class CheckpointMismatch(ValueError):
    """The checkpoint is of another model, optimizer or freezing."""


class UnwrittenCheckpoint(OSError):
    """A checkpoint could not be written; those before it are whole."""


class DamagedCheckpoint(ValueError):
    """A checkpoint cannot be read, though it is there."""


# Not the checkpoint's fault: reading it again may go well.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "Permission denied", "UNAVAILABLE")


@contextmanager
def reading(where: Any) -> Iterator[None]:
    """Errors in the block are those of a damaged checkpoint.

    Raises:
        DamagedCheckpoint: naming it. Errors that say nothing of it are raised as they are.
    """
    try:
        with without_echoes():
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
        # What Orbax leaves behind then is of nobody's interest.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        step = newest()
        left = "no checkpoint is there" if step is None else f"the newest whole one is step {step}"
        raise UnwrittenCheckpoint(
            f"{directory}: a checkpoint could not be written: {in_a_line(error)}; {left}. With room"
            " and permission to write there, the same command goes on from it"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without Orbax's warning that a directory to be read is read only."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
