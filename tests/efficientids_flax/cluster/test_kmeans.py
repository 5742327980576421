"""k-means and its balanced kin against scikit-learn, the Hungarian method and the dual's bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.cluster import kmeans as kmeans_module
from efficientids_flax.cluster.balanced import balanced_kmeans
from efficientids_flax.cluster.centers import means, nearest, squared_distances
from efficientids_flax.cluster.kmeans import fill_empty, kmeans
from efficientids_flax.cluster.split import split_large, spread
from efficientids_flax.cluster.transport import Limits, transported

pytest.importorskip("sklearn")


def points(count: int, width: int = 8, groups: int = 12, seed: int = 0) -> np.ndarray:
    """Groups of very unequal sizes that overlap."""
    rng = np.random.default_rng(seed)
    tops = 2 * rng.normal(size=(groups, width))
    group = rng.choice(groups, count, p=rng.dirichlet(np.full(groups, 0.7)))
    return (tops[group] + rng.normal(size=(count, width))).astype(np.float32)


def inertia(given: np.ndarray, labels: np.ndarray) -> float:
    centers = means(given, labels, int(labels.max()) + 1)
    return float(squared_distances(given, centers, labels).sum(dtype=np.float64))


def test_distances_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("efficientids_flax.cluster.centers.SCORES", 100)  # many blocks
    given, centers = points(200), points(7, seed=1)
    apart = ((given[:, None].astype(float) - centers) ** 2).sum(-1)
    np.testing.assert_array_equal(nearest(given, centers), apart.argmin(1))
    own = squared_distances(given, centers, apart.argmin(1))
    np.testing.assert_allclose(own, apart.min(1), rtol=1e-5)


@pytest.mark.parametrize("sampled", [False, True])
def test_inertia_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, sampled: bool):
    """Within 4 % of its k-means from k-means++; of few a cluster, begun by a tree, within 10 %."""
    from sklearn.cluster import KMeans

    if sampled:
        monkeypatch.setattr(kmeans_module, "SAMPLE", 20)
        monkeypatch.setattr(kmeans_module, "LEAF", 4)
    given = points(1500, groups=40)
    labels = kmeans(given, 30, seed=0)
    assert len(np.unique(labels)) == 30
    theirs = KMeans(30, n_init=1, random_state=0).fit(given)
    assert inertia(given, labels) < theirs.inertia_ * (1.1 if sampled else 1.04)


@given(st.integers(1, 30), st.integers(0, 50), st.data())
@settings(max_examples=40)
def test_no_cluster_stays_empty(count: int, seed: int, data: st.DataObject):
    clusters = data.draw(st.integers(1, count))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, clusters, count)
    before = labels.copy()
    empty = clusters - len(np.unique(labels))
    apart = rng.integers(0, 3, count).astype(np.float32)
    assert fill_empty(labels, apart, clusters) == empty
    assert len(np.unique(labels)) == clusters
    assert (labels != before).sum() == empty


@pytest.mark.parametrize("limits", [Limits.even(300, 10), Limits(1, 40), Limits(20, 60)])
def test_prices_come_near_the_best_assignment(limits: Limits):
    """The exact one by the Hungarian method; the dual's bound says no less than the truth."""
    given = points(300, seed=2)
    centers = given[:10]
    best = transported(given, centers, limits, exact=1 << 40)
    near = transported(given, centers, limits, exact=0)
    for found in (best, near):
        sizes = np.bincount(found.labels, minlength=10)
        assert limits.least <= sizes.min()
        assert sizes.max() <= limits.most
    costs = [float(squared_distances(given, centers, found.labels).sum(dtype=np.float64))
             for found in (best, near)]  # fmt: skip
    assert costs[0] <= costs[1] * (1 + 1e-6)
    assert costs[1] <= costs[0] * 1.02
    assert costs[1] - costs[0] <= near.excess + 1e-3 * costs[0]


def test_limits_that_bind_nothing_leave_each_point_at_its_nearest():
    given = points(500)
    centers = given[:9]
    found = transported(given, centers, Limits(0, 500), exact=0)
    np.testing.assert_array_equal(found.labels, nearest(given, centers))
    assert found.excess == pytest.approx(0, abs=1e-2)


def test_limits_that_cannot_be_kept_are_named():
    with pytest.raises(ValueError, match="5 items do not go into 2 clusters of 1 to 2; give 3"):
        transported(points(5), points(2), Limits(1, 2))


@given(st.integers(1, 400), st.integers(0, 9), st.data())
@settings(max_examples=15)
def test_balanced_sizes_differ_by_one(count: int, seed: int, data: st.DataObject):
    clusters = data.draw(st.integers(1, min(count, 40)))
    given = points(count, seed=seed)
    given = given - given.mean(0)
    sizes = np.bincount(balanced_kmeans(given, clusters, seed).labels, minlength=clusters)
    assert sizes.max() - sizes.min() <= 1


def test_balance_costs_little():
    given = points(2000, groups=60, seed=5)
    even = balanced_kmeans(given, 45, 0)
    assert even.excess / even.inertia < 0.02
    assert inertia(given, even.labels) < 1.1 * inertia(given, kmeans(given, 45, 0))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.booleans())
def test_splitting_ends_and_keeps_what_is_small(labels: list[int], most: int, stubborn: bool):
    before = np.unique(labels, return_inverse=True)[1]

    def cut(rows: np.ndarray, parts: int) -> np.ndarray:
        return np.zeros(len(rows), int) if stubborn else np.arange(len(rows)) % parts

    found = split_large(before, most, cut)
    sizes = np.bincount(found)
    assert 1 <= sizes.min() <= sizes.max() <= most
    small = np.bincount(before)[before] <= most
    np.testing.assert_array_equal(found[small], before[small])
    assert all(len(set(before[found == part])) == 1 for part in range(len(sizes)))


@given(
    st.lists(st.integers(-1, 5), min_size=1, max_size=40), st.integers(6, 9),
    st.none() | st.integers(1, 9),
)  # fmt: skip
def test_spreading_fills_the_smallest(given_labels: list[int], clusters: int, most: int | None):
    labels = np.array(given_labels)
    before = np.bincount(labels[labels >= 0], minlength=clusters)
    if most is not None and before.max() > most:
        most = int(before.max())
    placed = labels >= 0
    spread(labels, clusters, most)
    sizes = np.bincount(labels, minlength=clusters)
    np.testing.assert_array_equal(labels[placed], np.array(given_labels)[placed])
    assert labels.min() >= 0
    grown = sizes > np.pad(before, (0, len(sizes) - clusters))
    if grown.any():  # who got something is no larger than anyone by more than one
        assert sizes[grown].max() <= sizes.min() + 1
    if most is not None:
        assert sizes.max() <= most
