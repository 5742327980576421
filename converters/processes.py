"""One conversion by several processes: who takes part, and where they wait for each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from converters.errors import ConversionError

T = TypeVar("T")


class Processes(Protocol):
    """The processes of one conversion.

    Attributes:
        index: of this one; 0 is the primary, which finalizes.
        count: of all.
    """

    @property
    def index(self) -> int: ...

    @property
    def count(self) -> int: ...

    def meet(self, place: str, error: Exception | None) -> None:
        """Wait for all; raise on all if one comes with an error.

        Raises:
            Exception: `error`, where this process has one.
            ConversionError: another process failed.
        """
        ...


def together(processes: Processes, place: str, action: Callable[[], T]) -> T:
    """Do one stage on every process; what fails on one fails on all, so that none waits in vain.

    Args:
        processes: those that take part.
        place: name of the stage.
        action: what this process does in it.

    Returns:
        What `action` returns.

    Raises:
        Exception: what `action` raises.
        ConversionError: another process failed.
    """
    try:
        result = action()
    except Exception as error:
        processes.meet(place, error)
        raise
    processes.meet(place, None)
    return result


@dataclass(frozen=True)
class OneProcess:
    """No others to wait for."""

    index: int = 0
    count: int = 1

    def meet(self, place: str, error: Exception | None) -> None:
        """See `Processes.meet`."""
        del place
        if error is not None:
            raise error


@dataclass(frozen=True)
class JaxProcesses:
    """The processes of `jax.distributed`, as Orbax itself uses them."""

    index: int
    count: int

    @classmethod
    def start(
        cls, coordinator: str | None = None, count: int | None = None, index: int | None = None
    ) -> "JaxProcesses":
        """Join the other processes; what is not given is taken from the launcher's environment.

        Raises:
            ConversionError: JAX cannot find or reach the others.
        """
        import jax

        try:
            jax.distributed.initialize(coordinator, count, index)
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"the processes cannot join: {error}. Give --coordinator HOST:PORT, --processes N "
                "and --process I, or start under a launcher that JAX knows."
            ) from error
        return cls(jax.process_index(), jax.process_count())

    def meet(self, place: str, error: Exception | None) -> None:
        """See `Processes.meet`."""
        import numpy as np
        from jax.experimental import multihost_utils

        try:
            failed = np.asarray(multihost_utils.process_allgather(np.int32(error is not None)))
        except (RuntimeError, ValueError) as lost:
            if error is not None:
                raise error from lost
            cause = str(lost).splitlines()[0]
            raise ConversionError(f"another process is gone (until '{place}'): {cause}") from lost
        if error is not None:
            raise error
        if failed.any():
            others = ", ".join(map(str, np.flatnonzero(failed.reshape(-1))))
            raise ConversionError(f"process {others} failed; its own output says why")
