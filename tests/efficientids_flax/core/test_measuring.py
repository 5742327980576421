"""A batch's evaluation: the model's own loss, and the ranking that `recommend` serves."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax import recommend
from efficientids_flax.core import measuring
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.measures import tiles
from efficientids_flax.core.measuring import evaluation_sums
from efficientids_flax.core.metrics import ranking_sums
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.data.files import next_items
from efficientids_flax.sharding import batch_sharding, make_mesh
from tests.efficientids_flax.compiled import applied

ITEMS, USERS, LENGTH = 50, 12, 6
CLUSTERS = ClusteringInfo.from_assignments(np.repeat(np.arange(4), [1, 5, 14, 30]))


def model(full=False, **options):
    tables = None if full else CLUSTERS
    return SimpleEfficientIDSModel(
        num_items=ITEMS, item_embedding_dim=8, model_dims=8, num_heads=1, num_layers=1,
        full_softmax=full, clustering_info=tables, **options,
    )  # fmt: skip


def batch(last=False):
    """Sequences of unlike length; with `last` each has one label, its last."""
    rng = np.random.default_rng(0)
    sequences = rng.integers(0, ITEMS, (USERS, LENGTH + 1))
    for row, length in enumerate(rng.integers(2, LENGTH + 2, USERS)):
        sequences[row, length:] = -1
    found = next_items(sequences)
    if last:
        ends = found["weights"].sum(axis=1, keepdims=True) - 1
        found["weights"] *= np.arange(LENGTH) == ends
    return found


class Made(NamedTuple):
    """A model with parameters, and one program for each way to evaluate it."""

    net: SimpleEfficientIDSModel
    params: Any
    programs: dict[Any, Any]

    def sums(self, given, *, exclude_seen=False, scoring="log_probs"):
        how = exclude_seen, scoring
        if how not in self.programs:
            self.programs[how] = program(self.net, exclude_seen=exclude_seen, scoring=scoring)
        return self.programs[how](self.params, given)


@cache
def made_of(full):
    net = model(full, use_correction=not full)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes)
    return Made(net, params, {})


@pytest.fixture(params=[True, False], ids=["full", "hierarchical"])
def made(request):
    return made_of(request.param)


def program(net, **options):
    """`evaluation_sums` compiled anew: with what the module's constants are now."""
    return jax.jit(lambda params, given: evaluation_sums(net, params, given, **options))


def computed(sums):
    return {name: float(x) for part in sums.values() for name, x in part.compute().items()}


def test_the_loss_is_the_models_own(made):
    net, params = made.net, made.params
    found = computed(made.sums(batch()))
    wanted = applied(net, {"params": params}, batch(), train=False, method="loss")
    assert found["total_loss"] == pytest.approx(float(wanted.total_loss), rel=1e-5)
    assert found["num_predictions"] == float(wanted.total_weight)


def test_the_ranking_is_that_of_recommend(made):
    given = batch(last=True)
    ends = given["weights"].argmax(axis=1)
    histories = [row[: end + 1] for row, end in zip(given["ids"], ends, strict=True)]
    labels = given["labels"][np.arange(USERS), ends]
    for seen in (False, True):
        found = computed(made.sums(given, exclude_seen=seen))
        left = [[] for _ in histories]
        if seen:
            left = [history[history != x] for history, x in zip(histories, labels, strict=True)]
        best = recommend(made.net, made.params, histories, 10, exclude=left).ids
        for cutoff in (1, 5, 10):
            hits = (best[:, :cutoff] == labels[:, None]).any(axis=1).mean()
            assert found[f"recall_at_{cutoff}"] == pytest.approx(hits), (seen, cutoff)


def test_the_originals_ranking_stays(made):
    net, params = made.net, made.params
    sums = made.sums(batch(), scoring="original")
    found = computed({"ranking": sums["ranking"]})
    logits = applied(net, {"params": params}, batch(), method="evaluation_logits")
    given = batch()
    wanted = jax.jit(ranking_sums)(logits, given["labels"], given["weights"])
    assert found == pytest.approx(computed({"ranking": wanted}), rel=1e-6)


def test_is_the_same_in_blocks_and_over_devices(made, monkeypatch):
    batches = batch(), batch(last=True)
    wanted = [computed(made.sums(given, exclude_seen=True)) for given in batches]
    monkeypatch.setattr(measuring, "AT_ONCE", 7 * ITEMS)
    for name in ("SLOTS", "WHOLE"):  # several tiles
        monkeypatch.setattr(tiles, name, 16)
    in_blocks = program(made.net, exclude_seen=True)
    for given, known in zip(batches, wanted, strict=True):
        assert computed(in_blocks(made.params, given)) == pytest.approx(known, rel=1e-6)
        if jax.device_count() % 4:
            continue
        mesh = make_mesh(data=2, fsdp=2, tensor=jax.device_count() // 4)
        with jax.set_mesh(mesh):
            placed = jax.device_put(given, batch_sharding(mesh))
            split = program(made.net, exclude_seen=True)
            assert computed(split(made.params, placed)) == pytest.approx(known, rel=1e-5)


def test_a_field_of_the_batch_says_what_else_is_left_out(made):
    given = batch(last=True)
    everything = np.tile(np.arange(ITEMS), (USERS, 1))
    found = computed(made.sums(given | {"exclude": everything}))
    assert found["recall_at_1"] == found["mrr_at_10"] == 1.0
    none = np.full_like(everything, -1)
    found = computed(made.sums(given | {"exclude": none}))
    assert found == pytest.approx(computed(made.sums(given)), rel=1e-6)


def test_what_is_padding_or_later_was_not_seen():
    """Item 3 stands in the padding and after the label's position alone; other rows are padding."""
    made = made_of(True)
    given = {name: np.zeros_like(values) for name, values in batch().items()}
    given["ids"][0, :4], given["labels"][0, :4] = [1, 2, 3, 3], [2, 4, 3, 0]
    given["weights"][0, 1] = 1
    given["paddings"][:] = 1
    given["paddings"][0, :3] = 0
    params = {**made.params, "item_embedding": {"kernel": np.zeros((8, ITEMS), np.float32)}}
    found = computed(made._replace(params=params).sums(given, exclude_seen=True))
    assert found["mrr_at_10"] == pytest.approx(1 / 3)  # behind 0 and 3, of the equal items before 4


def test_scores_of_a_large_catalogue_are_not_there_at_once():
    net = SimpleEfficientIDSModel(
        num_items=40_000, item_embedding_dim=4, model_dims=4, num_heads=1, num_layers=1,
        full_softmax=True,
    )  # fmt: skip
    given = next_items(np.zeros((16, 33), np.int64))
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    compiled = jax.jit(lambda p: evaluation_sums(net, p, given)).lower(params).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * 16 * 32 * 40_000
