"""Labels that are the ids of their own places are told: a model need only repeat them."""

import jax
import numpy as np
import pytest

from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.train.step import repeating
from tests.efficientids_flax.train.networks import trainer

IDS = np.arange(16, dtype=np.int32).reshape(2, 8) % 5
NEXT = np.roll(IDS, -1, axis=1)
ONES = np.ones(IDS.shape, np.float32)
LAST = ONES * (np.arange(8) == 7)


@pytest.mark.parametrize(
    ("labels", "weights", "told"),
    [
        (IDS, ONES, "100%"),
        (np.where(np.arange(8) == 0, NEXT, IDS), ONES * (np.arange(8) > 0), "100%"),
        (NEXT, ONES, None),
        (np.where(np.arange(8) == 0, NEXT, IDS), ONES, None),  # an eighth of them differs
        (IDS, LAST, None),  # two labels tell nothing
    ],
)
def test_labels_that_repeat_their_ids(labels, weights, told):
    found = repeating({"ids": IDS, "labels": labels, "weights": weights})
    assert found == told if told is None else told in str(found)


def test_nothing_is_told_of_one_id_or_of_other_batches():
    assert repeating({"ids": IDS * 0, "labels": IDS * 0, "weights": ONES}) is None
    assert repeating({"x": ONES}) is None
    batch = {"ids": IDS, "labels": IDS, "weights": ONES}
    found = []
    jax.eval_shape(lambda batch: found.append(repeating(batch)), batch)
    assert found == [None]  # they cannot be read


def test_a_run_tells_it_once(capsys):
    model = SimpleEfficientIDSModel(
        num_items=5, full_softmax=True, item_embedding_dim=4, model_dims=4, num_layers=1,
        num_heads=1,
    )  # fmt: skip
    batch = {"ids": IDS, "labels": IDS, "weights": ONES}
    made = trainer(network=model, loss_fn=None, progress="lines")
    state = made.create_train_state(jax.random.key(0), batch)
    made.train(state, [batch] * 2, num_steps=2)
    assert capsys.readouterr().err.count("need only repeat its input") == 1
