"""Updates of touched rows: what they change, what they leave, and when they are not made."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import touched
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel
from efficientids_flax.sharding import make_mesh
from efficientids_flax.train.optimizer import create_optimizer
from efficientids_flax.train.state.fingerprint import RunMismatch
from efficientids_flax.train.step import rows
from efficientids_flax.tree import flatten
from tests.efficientids_flax.train.networks import numbers_of, trainer

ITEMS, CLUSTERS = 60, 12
CLUSTERING = ClusteringInfo.from_assignments(np.arange(ITEMS) % CLUSTERS)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Tables of tests are small; and an update takes several turns."""
    monkeypatch.setattr(rows, "LARGE", 1)
    monkeypatch.setattr(rows, "AT_ONCE", 4)
    monkeypatch.setattr(touched, "BLOCK_BYTES", 2 * 4 * 6)
    monkeypatch.setattr(touched, "LEAST_BLOCK", 2)


def batch(labels, ids=((0, 13),)):
    labels = np.asarray(labels, np.int32)
    weights = np.ones(labels.shape, np.float32)
    weights[..., -1] = 0.0  # the clusters of labels without a weight are not touched
    return {"ids": np.asarray(ids, np.int32), "labels": labels, "weights": weights}


ONE, TWO = batch([[1, 5]]), batch([[23, 5]], [[0, 14]])
# The clusters of items 1 and 23, the last one, and the items of the input.
OF_ONE = {*range(1, ITEMS, CLUSTERS), 0, 13}
OF_TWO = {*range(11, ITEMS, CLUSTERS), 0, 14}


MODEL = SimpleEfficientIDSModel(  # pyright: ignore[reportCallIssue]
    num_items=ITEMS,
    item_embedding_dim=6,
    model_dims=8,
    clustering_info=CLUSTERING,
    num_layers=1,
    num_heads=2,
    hidden_dims=8,
)
SGD = create_optimizer(0.5, "sgd", momentum=0.0, clip_grad_norm=0.3)
ADAM = create_optimizer(0.5, "adam", clip_grad_norm=0.3)


def run(how, optimizer, batches, directory=None):
    """(The trainer, its last state) after as many steps as batches."""
    made = trainer(
        directory, network=MODEL, optimizer=optimizer, loss_fn=None, item_updates=how,
        tensorboard=False, save_every=0,
    )  # fmt: skip
    first = made.create_train_state(jax.random.key(0), batches[0], params=numbers_of(MODEL))
    return made, made.train(first, batches, num_steps=len(batches))


def close(found, wanted, path):
    """Equal but for sums of a few float32 gradients in another order."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=path)


def leaves(state):
    found = flatten(state.params)
    if "adam" in state.opt_state:
        adam = state.opt_state["adam"]
        found |= flatten({"mu": adam.mu, "nu": adam.nu})
    return {path: np.asarray(leaf) for path, leaf in found.items()}


def test_sgd_is_that_of_all_rows_and_goes_on(tmp_path):
    """With the clip, over a checkpoint in between; other parameters too."""
    _, dense = run("dense", SGD, [ONE, TWO, ONE])
    run("exact", SGD, [ONE, TWO], tmp_path)
    made, rest = run("exact", SGD, [ONE, TWO, ONE], tmp_path)
    assert made._step is not None and made._step._rows is not None
    assert int(rest.step) == 3
    for path, wanted in leaves(dense).items():
        close(leaves(rest)[path], wanted, path)
    with pytest.raises(RunMismatch, match="item_updates was exact, is lazy"):
        run("lazy", SGD, [ONE, TWO, ONE, TWO], tmp_path)


def test_lazy_adam_leaves_what_is_not_touched():
    """Adam moves no row before its first gradient: what both steps or none touched is equal."""
    _, dense = run("dense", ADAM, [ONE, TWO])
    _, lazy = run("lazy", ADAM, [ONE, TWO])
    _, once = run("lazy", ADAM, [ONE])
    only_once = np.array(sorted(OF_ONE - OF_TWO))
    others = np.setdiff1d(np.arange(ITEMS), only_once)
    for path, wanted in leaves(dense).items():
        found = leaves(lazy)[path]
        if rows.TABLE not in path:
            close(found, wanted, path)
            continue
        close(found[:, others], wanted[:, others], path)
        np.testing.assert_array_equal(found[:, only_once], leaves(once)[path][:, only_once])
        assert (found != wanted)[:, only_once].any(axis=0).all()


def test_refusals():
    """All that is in the way is told; 'exact' takes all rows then."""
    table = jnp.zeros((2, 3), jnp.bfloat16)
    state: object = SimpleNamespace(trained={"item_embedding": {"kernel": table}})
    adafactor = create_optimizer(0.1, "adafactor")
    averaged = create_optimizer(0.1, "sgd", momentum=0.0, ema_decay=0.9)
    assert rows.row_updates("exact", None, adafactor, state, {}, None) is None  # pyright: ignore
    with pytest.raises(ValueError, match="item_updates 'lazy'") as caught:
        rows.row_updates("lazy", None, averaged, state, {}, make_mesh())  # pyright: ignore
    for part in ("full softmax", "bfloat16", "single rows", "mesh"):
        assert part in str(caught.value)
    of = rows.ItemTable(CLUSTERING, lambda batch: None, lambda batch: 1)  # pyright: ignore
    state = SimpleNamespace(trained={"item_embedding": {"kernel": jnp.zeros((2, ITEMS))}})
    kept = create_optimizer(0.1, "sgd", momentum=0.0, weight_decay=0.1)
    assert rows.row_updates("exact", of, kept, state, {}, None) is None  # pyright: ignore
    plain = create_optimizer(0.1, "sgd", momentum=0.0)
    assert rows.row_updates("exact", of, plain, state, {}, None) is not None  # pyright: ignore
