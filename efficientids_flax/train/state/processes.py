"""Communication between the processes of a run."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from efficientids_flax.moved import left_names
from efficientids_flax.text import in_a_line


class InAll:
    """An error that all processes raise, at the same place."""


class ProcessFault(ValueError, InAll):
    """One of several processes failed; raised in all of them."""


def is_primary() -> bool:
    """Whether this process writes files and messages for all."""
    return jax.process_index() == 0


def all_states(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON values of every process, in order; all must call it."""
    if jax.process_count() == 1:
        return [state]
    from jax.experimental import multihost_utils

    content = np.frombuffer(json.dumps(state).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(content.size))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: content.size] = content
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [
        json.loads(row[:size].tobytes().decode()) for row, size in zip(rows, sizes, strict=True)
    ]


def own_state(states: list[dict[str, Any]]) -> dict[str, Any]:
    """This process's entry of `all_states`; if the number of processes changed, the common one.

    Processes that read shares of the same batches are all at the same position.

    Raises:
        ValueError: the processes were at different positions, and their number has changed.
    """
    if len(states) == jax.process_count():
        return states[jax.process_index()]
    places = [{key: value for key, value in state.items() if key != "facts"} for state in states]
    if any(place != places[0] for place in places):
        raise ValueError(
            f"data: the checkpoint holds different positions of {len(states)} processes, this run"
            f" has {jax.process_count()}; go on with {len(states)}, or with another checkpoint_dir"
        )
    return states[0]


def agreed(problem: str | None) -> str | None:
    """Return one process's problem in all processes, so that none waits for one that failed."""
    if jax.process_count() == 1:
        return problem
    return next((found["is"] for found in all_states({"is": problem}) if found["is"]), None)


def problems_of_all(own: Exception | None) -> list[str | None]:
    """The problem of each process (None: no problem), in order; all processes must call it.

    Args:
        own: the error of this process.
    """
    told = None if own is None else in_words(own)
    return [found["is"] for found in all_states({"is": told})]


def in_words(error: BaseException) -> str:
    """An error's message in one line; for foreign kinds of errors with the type."""
    if isinstance(error, ValueError) and str(error):
        return str(error)
    told, name = in_a_line(error), type(error).__name__
    return told if told == name else f"{name}: {told}"


def shared_fault(problems: Sequence[str | None], where: str = "") -> ProcessFault:
    """The error that all processes raise.

    Args:
        problems: of each, see `problems_of_all`.
        where: put before them.
    """
    told = [f"process {number}: {one}" for number, one in enumerate(problems) if one is not None]
    return ProcessFault(where + "; ".join(told))


@contextmanager
def together() -> Iterator[None]:
    """If the block fails in one process it fails in all; all processes must enter it.

    Raises:
        Exception: with a single process, its error.
        ProcessFault: with several processes, in all of them.
    """
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    if problem is not None and jax.process_count() == 1:
        raise problem
    problems = problems_of_all(problem)
    if any(one is not None for one in problems):
        raise shared_fault(problems) from problem


__getattr__ = left_names(__name__)
