"""How many batches a run keeps alive, however seldom it logs."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from efficientids_flax.train.step.nonfinite import NonFiniteError
from tests.efficientids_flax.train.networks import batches, begin, trainer

MOST = 12


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Those of the tests before are not looked at by each collection, which takes two seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("how", ["stop", "skip"])
@pytest.mark.parametrize("every", [1, 10, 1000])
def test_a_few_batches_are_alive(how: Any, every: int):
    made, alive = [], []

    def source() -> Any:
        for number, batch in zip(range(100), batches(), strict=False):
            copied = {name: value.copy() for name, value in batch.items()}
            made.append(weakref.ref(copied["x"]))
            if number % 20 == 10:
                gc.collect()
                alive.append(sum(reference() is not None for reference in made))
            yield copied
            del copied, batch

    run = trainer(log_every=every, on_nonfinite=how)
    run.train(begin(run), source, num_steps=90)
    assert max(alive) <= MOST


@pytest.mark.parametrize("bad", [3, 8, 9, 50])
def test_a_bad_batch_is_still_there_to_be_explained(bad: int):
    def source() -> Any:
        for number, batch in enumerate(batches(), 1):
            spoiled = np.full_like(batch["x"], np.nan)
            yield {**batch, "x": spoiled} if number == bad else batch

    run = trainer(log_every=1000)
    with pytest.raises(NonFiniteError, match=rf"step {bad}: .*holds NaN or infinity in 'x'"):
        run.train(begin(run), source, num_steps=60)
