"""One conversion by several processes: who takes part, and where they wait for each other."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

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

    Its barriers need no device and no collective operation, which would give up after half an hour:
    the processes may finish their shares hours apart.
    """
    from jax._src import distributed

    return distributed.global_state


_FINE = "fine"
_PATIENCE = 30 * 24 * 3600 * 1000  # milliseconds; that a process is gone is noticed much sooner
_meetings = itertools.count()  # a barrier is used once, also by several conversions of one process
