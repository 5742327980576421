"""Errors of reading and writing checkpoints, each in one line."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from efficientids_flax.stored.echoes import without_echoes
from efficientids_flax.text import in_a_line


class CheckpointMismatch(ValueError):
    """The checkpoint has another model, optimizer or set of frozen parameters."""


class UnwrittenCheckpoint(OSError):
    """A checkpoint could not be written; earlier ones are intact."""


class DamagedCheckpoint(ValueError):
    """A checkpoint exists, but cannot be read."""


# Errors that are not the checkpoint's fault: reading it again may succeed.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "Permission denied", "UNAVAILABLE")


@contextmanager
def reading(where: Any) -> Iterator[None]:
    """Turn errors in the block into `DamagedCheckpoint`.

    Raises:
        DamagedCheckpoint: names the checkpoint. Errors with another cause are not converted.
    """
    try:
        with without_echoes():
            yield
    except (CheckpointMismatch, MemoryError, PermissionError, DamagedCheckpoint):
        raise
    except Exception as error:
        if any(word in str(error) for word in _NOT_DAMAGE):
            raise
        if not epath.Path(where).exists():
            raise DamagedCheckpoint(
                f"{where}: was removed while it was read; a run that is training keeps the newest"
                " ones alone: try again"
            ) from error
        raise DamagedCheckpoint(f"{where}: damaged, cannot be read: {in_a_line(error)}") from error


@contextmanager
def writing(directory: Any, newest: Any) -> Iterator[None]:
    """Turn errors in the block, also those of earlier background writes, into failed writes.

    Args:
        directory: directory of the run.
        newest: returns the newest complete step; None if there is none.

    Raises:
        UnwrittenCheckpoint: names the directory and what is left.
    """
    try:
        yield
    except UnwrittenCheckpoint:
        raise
    except Exception as error:
        # Orbax leaves coroutines behind; a warning of them would help nobody.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        step = newest()
        left = "no checkpoint is there" if step is None else f"the newest whole one is step {step}"
        raise UnwrittenCheckpoint(
            f"{directory}: a checkpoint could not be written: {in_a_line(error)}; {left}. With room"
            " and permission to write there, the same command goes on from it"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Orbax' warning that a directory opened for reading is read-only."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
