"""Grain's loaders: their position is in the checkpoint, and goes on without reading again."""

import grain.python as grain
import numpy as np
import pytest

from tests.efficientids_flax.train.networks import BATCH, begin, data, same, trainer

READ_AHEAD = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
STEPS = 9  # a pass over the data has six batches


class Rows:
    """A source of single rows, counting what is read."""

    def __init__(self):
        self.arrays, self.read = data(), 0

    def __repr__(self):
        return "Rows"  # Grain compares it with that of the state

    def __len__(self):
        return len(self.arrays["x"])

    def __getitem__(self, index):
        self.read += 1
        return {name: value[index] for name, value in self.arrays.items()}


def dataset(rows):
    """State of a dict of numbers."""
    found = grain.MapDataset.source(rows).shuffle(seed=5).repeat().batch(BATCH)
    return found.to_iter_dataset(READ_AHEAD)


def loader(rows):
    """State of bytes."""
    return grain.DataLoader(
        data_source=rows,
        sampler=grain.IndexSampler(
            len(rows), grain.ShardOptions(0, 1), shuffle=True, num_epochs=3, seed=5
        ),
        operations=[grain.Batch(BATCH, drop_remainder=True)],
        worker_count=0,
        read_options=READ_AHEAD,
    )


@pytest.mark.parametrize("make", [dataset, loader])
def test_goes_on_where_the_loader_stood(tmp_path, make):
    made = trainer(None, save_every=0)
    whole = made.train(begin(made), make(Rows()), num_steps=STEPS)
    made.directory = tmp_path
    made.train(begin(made), make(Rows()), num_steps=4)
    rows = Rows()
    made._cursor = None
    assert same(made.train(begin(made), make(rows), num_steps=STEPS), whole)
    # What is left, the first, and a few that are read ahead; not the four batches before.
    assert rows.read <= (STEPS - 4 + 3) * BATCH + 1, rows.read
    assert np.isfinite(made.history[-1]["loss"])
