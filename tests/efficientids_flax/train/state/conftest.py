"""A run that has ended, which tests go on with."""

import pytest

from efficientids_flax.train.optimizer import create_optimizer
from tests.efficientids_flax.train.networks import batches, begin, trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory with three steps."""
    directory = tmp_path_factory.mktemp("finished")
    made = trainer(directory, optimizer=create_optimizer(1e-2))
    made.train(begin(made), batches(), num_steps=3)
    return directory
