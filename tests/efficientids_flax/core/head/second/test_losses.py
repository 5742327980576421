"""Losses among the members of a cluster: every way gives what NumPy gives, position by position."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.hierarchical import within_cluster
from efficientids_flax.core.head.second import (
    Adapter,
    Entropy,
    Labels,
    Places,
    masked,
    member_losses,
    spare_rows,
    visits,
)
from efficientids_flax.core.head.touched import in_row_order, touched_by

RAW, WIDTH = 3, 5
# Float32 sums of up to a few hundred products of unit normals, in another order than NumPy's.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
PLAIN = Entropy()


@pytest.fixture(autouse=True)
def cluster_by_cluster(monkeypatch):
    """Also where all items at once are faster, as they are for most of what is small."""
    monkeypatch.setattr(masked, "FASTER", ())


def adapt(kernel, rows):
    return jnp.tanh(rows @ kernel)


def problem(seed, num_items, num_clusters, positions, crowd=0.0, unlabelled=0.0):
    """Query, table, kernel, labels, clustering; `crowd` of the positions share a cluster."""
    rng = np.random.default_rng(seed)
    cluster_of = np.concatenate(
        [np.arange(num_clusters), rng.integers(0, num_clusters, num_items - num_clusters)]
    )
    rng.shuffle(cluster_of)
    clustering = ClusteringInfo.from_assignments(cluster_of)
    items = rng.integers(0, num_items, positions)
    crowded = rng.random(positions) < crowd
    items[crowded] = rng.choice(np.flatnonzero(cluster_of == 0), crowded.sum())
    clusters = cluster_of[items].copy()
    clusters[rng.random(positions) < unlabelled] = num_clusters
    query, rows, kernel = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((positions, WIDTH), (num_items, RAW), (RAW, WIDTH))
    )
    return query, rows, kernel, Labels(clusters.astype(np.int32), items), clustering


def weights_of(positions):
    return np.random.default_rng(1).random(positions).astype(np.float32)


def by_hand(query, rows, kernel, labels, clustering, weights, entropy=PLAIN):
    """Losses, and the gradients of their weighted sum: float64, one position after the other."""
    query, rows, kernel, weights = (np.asarray(x, float) for x in (query, rows, kernel, weights))
    each = np.zeros(len(query))
    of_query, of_rows, of_kernel = (np.zeros(x.shape) for x in (query, rows, kernel))
    for place, (cluster, label) in enumerate(zip(labels.clusters, labels.items, strict=True)):
        if cluster == clustering.num_clusters:
            continue
        own = np.flatnonzero(clustering.cluster_of == cluster)
        adapted = np.tanh(rows[own] @ kernel)
        logits, slope = adapted @ query[place], 1.0
        if entropy.cap:
            logits = entropy.cap * np.tanh(logits / entropy.cap)
            slope = 1 - (logits / entropy.cap) ** 2
        log_chances = logits - logits.max()
        log_chances -= np.log(np.exp(log_chances).sum())
        chances = np.exp(log_chances)
        smoothing = entropy.smoothing if len(own) > 1 else 0.0
        target = np.full(len(own), smoothing / max(len(own) - 1, 1))
        target[own == label] = 1 - smoothing
        each[place] = -target @ log_chances
        of_logits = weights[place] * (chances - target) * slope
        of_query[place] = of_logits @ adapted
        of_products = np.outer(of_logits, query[place]) * (1 - adapted**2)
        of_rows[own] += of_products @ kernel.T
        of_kernel += rows[own].T @ of_products
    return each, (of_query, of_rows, of_kernel)


def found(query, rows, kernel, labels, clustering, weights=None, entropy=PLAIN):
    adapter = Adapter(adapt, kernel)
    return member_losses(entropy, clustering, query, rows, labels, weights, adapter)


def program(clustering, entropy=PLAIN):
    """Losses, and their weighted sum's gradients: of the total, and of the losses.

    What is compiled reads the sizes of `visits`; one serves all labels.
    """

    def total(query, rows, kernel, weights, labels):
        losses = found(query, rows, kernel, labels, clustering, weights, entropy)
        return losses.total, losses

    def summed(query, rows, kernel, weights, labels):
        each = found(query, rows, kernel, labels, clustering, entropy=entropy).each
        return jnp.sum(each * weights), each

    @jax.jit
    def both(query, rows, kernel, weights, labels):
        given = query, rows, kernel, weights, labels
        of_total = jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*given)
        of_each, each = jax.grad(summed, argnums=(0, 1, 2), has_aux=True)(*given)
        return of_total, of_each, each

    return both


def check(query, rows, kernel, labels, clustering, entropy=PLAIN, both=None):
    """What `both`, a `program`, gives is what is computed by hand."""
    weights = weights_of(len(query))
    each, gradients = by_hand(query, rows, kernel, labels, clustering, weights, entropy)
    both = both or program(clustering, entropy)
    given = query, rows, kernel, weights, labels
    ((got, losses), (*of_total, of_weights)), of_each, plain = both(*given)
    np.testing.assert_allclose(got, each @ weights, rtol=1e-5)
    for one in (losses.each, of_weights, plain):
        np.testing.assert_allclose(one, each, **CLOSE)
    for way in (of_total, of_each):
        for a, b in zip(way, gradients, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(0, 30),
    st.integers(1, 90),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([PLAIN, Entropy(cap=0.7), Entropy(smoothing=0.1), Entropy(1.5, 0.2)]),
    st.sampled_from([0, visits.LOOP]),  # as many classes as sizes, or few
)
def test_any_clustering(seed, num_clusters, more_items, positions, unlabelled, entropy, loop):
    given = problem(seed, num_clusters + more_items, num_clusters, positions, 0.3, unlabelled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "LOOP", loop)
        check(*given, entropy)


@pytest.mark.parametrize("entropy", [PLAIN, Entropy(cap=0.7), Entropy(1.5, 0.2)])
def test_all_items_at_once(monkeypatch, entropy):
    """Clusters of one item, and positions without a label, among them."""
    monkeypatch.setattr(masked, "FASTER", ((WIDTH, 10**6),))
    check(*problem(8, 24, 12, 30, crowd=0.2, unlabelled=0.3), entropy)


def test_an_item_that_is_no_number_is_left_to_its_cluster(monkeypatch):
    monkeypatch.setattr(masked, "FASTER", ((WIDTH, 10**6),))
    query, rows, kernel, labels, clustering = problem(8, 24, 12, 30)
    _, (of_query, _, _) = by_hand(query, rows, kernel, labels, clustering, weights_of(30))
    broken = int(labels.items[0])
    rows[broken] = np.nan
    weights = weights_of(30)

    def total(query, rows):
        return found(query, rows, kernel, labels, clustering, weights).total

    got, of_total = jax.device_get(jax.jit(jax.value_and_grad(total))(query, rows))
    whole = labels.clusters != clustering.cluster_of[broken]
    assert np.isnan(got) and np.isnan(of_total[~whole]).all()
    np.testing.assert_allclose(of_total[whole], of_query[whole], **CLOSE)


@pytest.mark.parametrize(("width", "products"), [(64, 1 << 15), (65, 1 << 13), (257, 0)])
def test_where_all_items_at_once_are_faster(monkeypatch, width, products):
    monkeypatch.undo()
    assert not masked.is_faster(width, products + 1)
    assert masked.is_faster(width, products) is bool(products)


@pytest.mark.parametrize("size", [1, 40, 10**6])  # a cluster, a few, or all of them at a time
def test_blocks_are_visited_a_few_at_a_time(monkeypatch, size):
    monkeypatch.setattr(visits, "CPU_BYTES", size * 4 * WIDTH)
    both = program(problem(5, 60, 7, 70)[-1])
    for crowd in (0.0, 0.9):  # a crowd leaves clusters that nobody asks for
        check(*problem(5, 60, 7, 70, crowd, unlabelled=0.1), both=both)


def test_a_crowded_cluster_fills_many_blocks(monkeypatch):
    monkeypatch.setattr(visits, "LARGEST_BLOCK", 8)
    check(*problem(0, 20, 3, 61, crowd=1.0))


@pytest.mark.parametrize("entropy", [PLAIN, Entropy(0.7, 0.1)])
def test_large_clusters_are_taken_tile_by_tile(monkeypatch, entropy):
    monkeypatch.setattr(visits, "CPU_TILE_BYTES", 16 * 4 * WIDTH)
    check(*problem(2, 150, 5, 40, crowd=0.2, unlabelled=0.1), entropy)


def test_a_lopsided_clustering():
    query, rows, kernel, _, _ = problem(0, 300, 30, 64)
    cluster_of = np.concatenate([np.zeros(271, int), np.arange(1, 30)])
    items = np.arange(64) * 4
    labels = Labels(cluster_of[items].astype(np.int32), items)
    check(query, rows, kernel, labels, ClusteringInfo.from_assignments(cluster_of))


@pytest.mark.parametrize(("cap", "smoothing"), [(None, 0.0), (0.7, 0.1)])
def test_the_readable_reference_gives_the_same(cap, smoothing):
    query, rows, kernel, labels, clustering = problem(7, 90, 6, 50)
    items = adapt(kernel, rows)

    def reference(query, items):
        return within_cluster(
            query, items, clustering.members[labels.clusters],
            clustering.slot_of[labels.items], cap, smoothing,
        )  # fmt: skip

    def ours(query, items):
        return member_losses(Entropy(cap, smoothing), clustering, query, items, labels).each

    def both(of):
        each, back = jax.vjp(of, query, items)
        return each, *back(jnp.asarray(weights_of(50)))

    for a, b in zip(*jax.jit(lambda: (both(reference), both(ours)))(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.mark.parametrize("scale", [1e3, 1e5])
def test_large_logits_keep_their_digits(scale):
    query, rows, kernel, labels, clustering = problem(3, 40, 4, 30)
    each, _ = by_hand(query * scale, rows, kernel, labels, clustering, weights_of(30))
    got = jax.jit(lambda *given: found(*given, labels, clustering).each)(
        query * np.float32(scale), rows, kernel
    )
    np.testing.assert_allclose(got, each, rtol=1e-5, atol=scale * 1e-6)


def test_gradients_of_total_and_losses_together():
    query, rows, kernel, labels, clustering = problem(4, 30, 4, 50)
    weights, more = weights_of(50), weights_of(50)[::-1]
    _, gradients = by_hand(query, rows, kernel, labels, clustering, 3 * weights + more)

    def both(query, rows, kernel):
        losses = found(query, rows, kernel, labels, clustering, weights)
        return 3 * losses.total + jnp.sum(losses.each * more)

    got = jax.jit(jax.grad(both, argnums=(0, 1, 2)))(query, rows, kernel)
    for a, b in zip(got, gradients, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_neither_the_adapted_table_nor_all_logits_are_there_as_a_whole(monkeypatch):
    monkeypatch.setattr(visits, "CPU_BYTES", 300 * 4 * WIDTH)
    query, rows, kernel, labels, clustering = problem(0, 32 * 300, 32, 512)
    weights = weights_of(512)

    def total(query, rows, kernel):
        return found(query, rows, kernel, labels, clustering, weights).total

    text = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(query, rows, kernel).as_text()
    sizes = [int(n) for n in re.findall(rf"tensor<(\d+)x{WIDTH}xf32>", text)]
    assert sorted(size for size in sizes if size > 512) == []
    slots = clustering.max_cluster_size
    assert f"x{slots}x{WIDTH}xf32>" not in text  # nor a gather for every position


@pytest.mark.parametrize("slices", [0, 8])  # rows one by one, and slice by slice
@pytest.mark.parametrize("tile", [16, 1 << 20])  # clusters in several tiles, and in one
def test_rows_that_lie_cluster_by_cluster(monkeypatch, slices, tile):
    """The same losses and gradients as of rows in the order of the items."""
    monkeypatch.setattr(visits, "CPU_TILE_BYTES", tile * 4 * WIDTH)
    monkeypatch.setattr(visits, "CPU_SLICE_BYTES", 40 * 4 * WIDTH)
    monkeypatch.setattr(visits, "MOST_SLICES", slices)
    monkeypatch.setattr(visits, "LOOP", 0)  # several classes
    query, rows, kernel, labels, clustering = problem(4, 150, 5, 40, crowd=0.2, unlabelled=0.1)
    weights = weights_of(len(query))
    each, (of_query, of_rows, of_kernel) = by_hand(
        query, rows, kernel, labels, clustering, weights, PLAIN
    )

    @jax.jit
    def gradients(query, kernel):
        touched = touched_by(clustering, jnp.asarray(labels.items), jnp.zeros(0, int))
        laid = in_row_order(clustering, jnp.asarray(rows.T))
        values = jnp.full((len(rows) + spare_rows(clustering, RAW), RAW), 7.0)

        def total(query, kernel, values):
            places = Places(values, touched.starts())
            adapter = Adapter(adapt, kernel)
            found = member_losses(PLAIN, clustering, query, laid, labels, weights, adapter, places)
            return found.total, found.each

        found, got = jax.grad(total, (0, 1, 2), has_aux=True)(query, kernel, values)
        return *found, got, touched.places_of(clustering, jnp.arange(len(rows)))

    *found, got, places = jax.device_get(gradients(query, kernel))
    np.testing.assert_allclose(got, each, **CLOSE)
    np.testing.assert_allclose(found[0], of_query, **CLOSE)
    np.testing.assert_allclose(found[1], of_kernel, **CLOSE)
    known = places < len(rows)
    np.testing.assert_allclose(found[2][places[known]], of_rows[known], **CLOSE)
    assert not of_rows[~known].any()
    assert not found[2][int(known.sum()) :].any()
