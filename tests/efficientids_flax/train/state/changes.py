"""Runs that go on with a change."""

import shutil

from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.optimizer import create_optimizer
from tests.efficientids_flax.train.networks import BATCH, batches, begin, data, loss_fn, trainer

CREATED = create_optimizer(1e-2)


def go_on(directory, source=None, steps=5, **options):
    made = trainer(directory, **{"optimizer": CREATED, **options})
    return made, made.train(begin(made), batches() if source is None else source, num_steps=steps)


def other_size():
    return ShuffledBatches(data(), 2 * BATCH, seed=3)


def as_list(size=BATCH, seed=0):
    arrays = data(seed=seed)
    rows = range(0, len(arrays["x"]), size)
    return [{name: value[row : row + size] for name, value in arrays.items()} for row in rows]


def smoothed(share):
    def loss(*given):
        value, metrics, model_state = loss_fn(*given)
        return value * (1 - share), metrics, model_state

    return loss


def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")
