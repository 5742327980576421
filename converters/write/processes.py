"""A conversion that several processes share: who takes part, and how they wait for each other."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from converters.errors import ConversionError

T = TypeVar("T")


class Processes(Protocol):
    """The processes that share one conversion.

    Attributes:
        index: number of this process; 0 is the primary, which publishes the output.
        count: number of processes.
    """

    @property
    def index(self) -> int: ...

    @property
    def count(self) -> int: ...

    def meet(self, place: str, error: Exception | None) -> None:
        """Wait for all processes; if any of them has an error, raise on all.

        Raises:
            Exception: `error`, if this process has one.
            ConversionError: another process failed.
        """
        ...


def together(processes: Processes, place: str, action: Callable[[], T]) -> T:
    """Do one stage on every process; an error on one raises on all, so that none waits forever.

    Args:
        processes: the processes that take part.
        place: name of the stage.
        action: what this process does in the stage.

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
    """A single process, which waits for no other."""

    index: int = 0
    count: int = 1

    def meet(self, place: str, error: Exception | None) -> None:
        """See `Processes.meet`."""
        del place
        if error is not None:
            raise error


@dataclass(frozen=True)
class JaxProcesses:
    """The processes of `jax.distributed`, which Orbax uses too."""

    index: int
    count: int

    @classmethod
    def start(
        cls, coordinator: str | None = None, count: int | None = None, index: int | None = None
    ) -> "JaxProcesses":
        """Join the other processes; missing arguments are taken from the launcher's environment.

        Raises:
            ConversionError: JAX cannot find or reach the other processes.
        """
        import jax

        try:
            jax.distributed.initialize(coordinator, count, index)
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"the processes cannot join: {error}. Give --coordinator HOST:PORT, --processes N "
                "and --process I, or start under a launcher that JAX knows."
            ) from error
        return cls(_state().process_id, _state().num_processes)

    def meet(self, place: str, error: Exception | None) -> None:
        """See `Processes.meet`."""
        client = _state().client
        name = f"convert-paxml/{next(_meetings)}/{place}"
        told: list[tuple[str, str]] = []
        try:
            client.key_value_set(f"{name}/{self.index}", _FINE if error is None else str(error))
            client.wait_at_barrier(name, _PATIENCE)
            told = client.key_value_dir_get(f"{name}/")
        except RuntimeError as lost:
            if error is None:
                cause = str(lost).splitlines()[0]
                raise ConversionError(
                    f"another process is gone (until '{place}'): {cause}"
                ) from lost
        if error is not None:
            raise error
        failed = sorted((int(key.rpartition("/")[2]), text) for key, text in told if text != _FINE)
        if failed:
            raise ConversionError("\n".join(f"process {n} failed: {text}" for n, text in failed))


def _state() -> Any:
    """JAX's connection to the other processes, which Orbax uses as well.

    Its barriers need neither a device nor a collective operation, which would time out after half
    an hour. The processes may finish their shares hours apart.
    """
    from jax._src import distributed

    return distributed.global_state


_FINE = "fine"
_PATIENCE = 30 * 24 * 3600 * 1000  # milliseconds; a process that died is noticed much sooner
_meetings = itertools.count()  # each barrier has a new name, since a process may convert repeatedly
