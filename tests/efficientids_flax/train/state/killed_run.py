"""Trains in processes that kill themselves at a step: `killed_run.py DIRECTORY STEPS KILL_AT...`.

Run by test_resume.py. Each goes on in the directory of the one before, and prints its exit code.
One that comes to its end writes the last state's numbers to `DIRECTORY/end.npz`. They are forked
before JAX computes, since to import it takes longer than to train.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from tests.efficientids_flax.train.networks import batches, begin, trainer


def main(directory: Path, steps: int, kill_at: int) -> None:
    made = trainer(directory / "run", save_every=3)
    source = batches()

    class Deadly:
        """The batches, until the process dies; a checkpoint may be half written then."""

        def __iter__(self):
            inner = iter(source)

            class Reader:
                def __next__(self):
                    if inner.epoch * len(source) + inner.read == kill_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return next(inner)

                get_state, set_state = inner.get_state, inner.set_state

            return Reader()

    state = made.train(begin(made), Deadly(), num_steps=steps)
    leaves = {str(index): np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}
    np.savez(directory / "end.npz", **leaves)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    for kill_at in sys.argv[3:]:
        child = os.fork()
        if not child:
            main(Path(sys.argv[1]), int(sys.argv[2]), int(kill_at))
            break
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()
