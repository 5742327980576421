"""A run whose disk is full after its third step: `full_disk_run.py DIRECTORY`.

Files that may not grow stand for the disk; the write fails in the background. Prints how many
batches were read then, and the error. Run by test_faults.py.
"""

import resource
import sys
import time
from pathlib import Path

from efficientids_flax.train.state.disk.faults import UnwrittenCheckpoint
from tests.efficientids_flax.train.networks import batches, begin, trainer


def main(directory: Path) -> None:
    made = trainer(directory, save_every=2, log_every=1, tensorboard=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    read = []

    def source():
        for number, batch in enumerate(batches()):
            if number == 3:
                while not (directory / "2").is_dir():  # it is written in the background
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            if number > 3:
                time.sleep(0.05)
            read.append(number)
            yield batch

    try:
        made.train(begin(made), source, num_steps=500)
    except UnwrittenCheckpoint as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.stdout.write(f"{len(read)}\n{error}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
