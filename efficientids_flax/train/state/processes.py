"""Several processes of one run: how they find each other, and what each tells the others."""

import json
from typing import Any

import jax
import numpy as np


def initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes; before anything else of jax.

    Args:
        coordinator: 'host:port' of process 0; None: as the cluster says, or its environment.
        processes, process: how many there are, and which this is.
    """
    jax.distributed.initialize(coordinator, processes, process)


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
    """This process' own of `all_states`.

    Raises:
        ValueError: they are of another number of processes, each of which read its own share.
    """
    if len(states) != jax.process_count():
        raise ValueError(
            f"data: the checkpoint holds the positions of {len(states)} processes, this run has"
            f" {jax.process_count()}; give the data of one process to each, or restore=False"
        )
    return states[jax.process_index()]
