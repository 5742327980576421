"""Times several ways in turns, so that other load on the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def turns(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each way, round by round; the first round, which compiles, is left out.

    Args:
        ways: name -> function; its result is waited for.
        rounds: rounds that count.
        clock: the clock to use.
        pause: seconds before each way, in which threads of the previous one come to rest.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            time.sleep(pause)
            start = clock()
            jax.block_until_ready(run())
            times[name].append(clock() - start)
    return {name: values[1:] for name, values in times.items()}
