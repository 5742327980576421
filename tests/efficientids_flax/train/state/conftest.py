"""A run that has ended, which tests go on with."""

import pytest

from tests.efficientids_flax.train.networks import batches, begin, trainer
from tests.efficientids_flax.train.state.changes import CREATED


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A directory with three steps."""
    directory = tmp_path_factory.mktemp("finished")
    made = trainer(directory, optimizer=CREATED)
    made.train(begin(made), batches(), num_steps=3)
    return directory
