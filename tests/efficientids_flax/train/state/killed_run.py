"""Trains in a process that kills itself at a step: `killed_run.py DIRECTORY STEPS KILL_AT`.

Run by test_resume.py. Writes the last state's numbers to `DIRECTORY/end.npz` if it gets so
far.
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
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
