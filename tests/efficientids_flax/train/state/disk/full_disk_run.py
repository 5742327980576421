"""A run whose disk is full after its fifth step: `full_disk_run.py DIRECTORY`.

Files that may not grow stand for the disk; the write fails in the background. Prints how many
batches were read then, and the error; and the error of an export, whose folder is then not there.
Run by test_faults.py.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored import save_model
from efficientids_flax.train.state.disk.faults import UnwrittenCheckpoint
from efficientids_flax.tree import unflatten
from tests.efficientids_flax.train.networks import batches, begin, trainer

MODEL = Decoder(
    BackboneConfig(
        vocab_size=500, num_layers=1, model_dims=8, hidden_dims=8, num_heads=1, num_kv_heads=1,
        head_dim=8,
    )
)  # fmt: skip
PARAMS = {
    path: np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for path, shape in parameter_shapes(MODEL.config).items()
}


def main(directory: Path) -> None:
    made = trainer(directory, save_every=4, log_every=1, tensorboard=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    read = []

    def source():
        for number, batch in enumerate(batches()):
            if number == 5:
                while not (directory / "4").is_dir():  # it is written in the background
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
            if number > 5:
                time.sleep(0.05)
            read.append(number)
            yield batch

    try:
        made.train(begin(made), source, num_steps=500)
    except UnwrittenCheckpoint as error:
        try:
            save_model(directory / "out", MODEL, unflatten(PARAMS))
        except OSError as other:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert not (directory / "out").exists()
            sys.stdout.write(f"{len(read)}\n{error}\n{other}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
