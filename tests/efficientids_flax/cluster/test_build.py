"""Clusterings by every method: what has to hold of each, and what is said of bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.cluster import METHODS, ClusterOptions, cluster_items

OF_VECTORS = [name for name, method in METHODS.items() if method.vectors is not None]
OF_RANKS = [name for name, method in METHODS.items() if method.order is not None]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytest.importorskip("sklearn")


def blobs(items: int, groups: int, width: int = 4, seed: int = 0, spread: float = 0.01):
    """Vectors in groups far from each other, and the group of each."""
    rng = np.random.default_rng(seed)
    tops = 10 * np.eye(groups, width) if groups <= width else 10 * rng.normal(size=(groups, width))
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, items - groups)])
    noise = spread * rng.normal(size=(items, width))
    return (tops[group] + noise).astype(np.float32), group


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], np.ndarray | None]:
    """Vectors with zeros and duplicates among them, options that fit, and perhaps ranks."""
    items = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    distinct = draw(st.integers(1, items))
    vectors = rng.normal(size=(distinct, 3)).astype(np.float32)[rng.integers(0, distinct, items)]
    vectors[rng.random(items) < draw(st.sampled_from([0.0, 0.3]))] = 0
    vectors[draw(st.integers(0, items - 1))] = 1  # one there is
    shortlist = draw(st.integers(0, min(3, items - 1)))
    options = {
        "shortlist": shortlist,
        "clusters": draw(st.none() | st.integers(shortlist + 1, items)),
        "max_size": draw(st.none() | st.integers(1, items)),
        "metric": draw(st.sampled_from(["l2", "cosine"])),
        "seed": draw(st.integers(0, 3)),
    }
    if options["clusters"] is None and int(np.ceil(np.sqrt(items))) <= shortlist:
        options["clusters"] = items
    ranks = rng.permutation(items) if draw(st.booleans()) else None
    return vectors, options, ranks


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(case=cases())
def test_every_item_is_in_one_cluster_none_is_empty_none_too_large(method: str, case: Any):
    vectors, options, ranks = case
    most, wanted = options["max_size"], options["clusters"]
    wanted = wanted or int(np.ceil(np.sqrt(len(vectors))))
    if method == "balanced-kmeans" and most is not None:
        there = int((vectors != 0).any(1).sum())
        if there > (wanted - options["shortlist"]) * most:
            options["max_size"] = most = None  # it would have to give up either K or the size
    made = cluster_items(vectors, ClusterOptions(method, **options), ranks=ranks)
    info, sizes = made.clustering, made.summary.sizes  # its tables were checked when it was made
    assert info.num_items == len(vectors) == sizes.sum()
    assert sizes.min() >= 1
    if most is None:
        assert len(sizes) == wanted
    else:
        assert len(sizes) >= wanted
        assert sizes.max() <= most
    order = np.arange(len(vectors)) if ranks is None else np.argsort(ranks)
    first = order[: options["shortlist"]]
    assert info.cluster_of[first].tolist() == list(range(options["shortlist"]))
    assert sizes[: options["shortlist"]].tolist() == [1] * options["shortlist"]
    # Means are those of the vectors as they are, over the members that have one.
    assert info.means is not None
    for cluster, mean in enumerate(info.means):
        members = vectors[info.cluster_of == cluster]
        members = members[(members != 0).any(1)]
        wanted_mean = members.mean(0) if len(members) else np.zeros(3)
        np.testing.assert_allclose(mean, wanted_mean, atol=1e-5)


@pytest.mark.parametrize("method", OF_VECTORS)
def test_groups_that_lie_apart_are_found(method: str):
    vectors, group = blobs(60, 4)
    if method == "balanced-kmeans":
        vectors, group = vectors[np.argsort(group, kind="stable")], np.sort(group)
        keep = np.concatenate([np.flatnonzero(group == g)[:9] for g in range(4)])
        vectors, group = vectors[keep], group[keep]
    found = cluster_items(vectors, ClusterOptions(method, clusters=4)).clustering.cluster_of
    pairs = set(zip(group.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 4


def test_many_items_are_merged_by_their_neighbours(monkeypatch: pytest.MonkeyPatch):
    """Also where the graph of neighbours is in parts, and a cluster more than there are parts."""
    monkeypatch.setattr("efficientids_flax.cluster.scikit_learn.WHOLE", 20)
    vectors, group = blobs(90, 3)
    four = cluster_items(vectors, ClusterOptions("agglomerative", clusters=4)).clustering
    assert four.num_clusters == 4
    assert len(set(zip(group.tolist(), four.cluster_of.tolist(), strict=True))) == 4
    two = cluster_items(vectors, ClusterOptions("agglomerative", clusters=2)).clustering
    assert len(set(zip(group.tolist(), two.cluster_of.tolist(), strict=True))) == 3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_clusters(method: str):
    vectors, _ = blobs(50, 20, seed=3, spread=4.0)
    one, same, other = (
        cluster_items(vectors, ClusterOptions(method, seed=seed)).clustering.cluster_of
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    if not METHODS[method].seeded:
        np.testing.assert_array_equal(one, other)


def test_frequency_deals_ranks_round_robin_behind_the_shortlist():
    options = ClusterOptions("frequency", clusters=5, shortlist=2)
    found = cluster_items(None, options, num_items=9).clustering
    assert found.cluster_of.tolist() == [0, 1, 2, 3, 4, 2, 3, 4, 2]
    ranks = np.array([8, 7, 6, 5, 4, 3, 2, 1, 0])
    turned = cluster_items(None, options, num_items=9, ranks=ranks).clustering
    assert turned.cluster_of.tolist() == found.cluster_of.tolist()[::-1]
    assert found.means is None


@pytest.mark.parametrize("method", OF_RANKS)
@given(st.integers(1, 200), st.data())
@settings(max_examples=20)
def test_dealt_sizes_differ_by_one(method: str, items: int, data: st.DataObject):
    clusters = data.draw(st.integers(1, items))
    sizes = cluster_items(None, ClusterOptions(method, clusters), num_items=items).summary.sizes
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("items", [1, 2, 9, 10, 16, 17])
def test_there_are_as_many_clusters_as_the_root_of_the_items(items: int):
    found = cluster_items(None, ClusterOptions("random"), num_items=items).clustering
    assert found.num_clusters == int(np.ceil(np.sqrt(items)))


def test_cosine_looks_at_directions_alone():
    rng = np.random.default_rng(0)
    lengths = 10.0 ** rng.integers(-3, 4, 40)
    directions = np.repeat(np.eye(2), 20, axis=0) + 0.01 * rng.normal(size=(40, 2))
    vectors = (directions * lengths[:, None]).astype(np.float32)
    found = cluster_items(vectors, ClusterOptions("kmeans", 2, metric="cosine"))
    assert len(set(found.clustering.cluster_of[:20])) == 1
    assert found.clustering.cluster_of[0] != found.clustering.cluster_of[20]
    assert found.summary.share == pytest.approx(0, abs=1e-3)


def test_items_without_a_vector_are_spread_and_said():
    vectors, _ = blobs(20, 4)
    vectors[[3, 7, 9]] = 0
    found = cluster_items(vectors, ClusterOptions("kmeans", 4))
    assert found.summary.without_vector == 3
    assert "3 of 20 rows are zeros (3, 7, 9)" in found.summary.notes
    assert np.isfinite(found.clustering.means).all()  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_numbers_that_are_not_finite_are_refused_unless_asked():
    vectors, _ = blobs(20, 4)
    vectors[2, 1], vectors[5, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"2 of 20 rows are not finite \(2, 5\)"):
        cluster_items(vectors, ClusterOptions("kmeans", 4))
    found = cluster_items(vectors, ClusterOptions("kmeans", 4, spread_nonfinite=True))
    assert found.summary.without_vector == 2
    assert np.isfinite(found.clustering.means).all()  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("scale", [1e30, 1e-38])
def test_vectors_whose_squares_are_no_float32_make_the_same_clusters(scale: float):
    vectors, _ = blobs(20, 4)
    options = ClusterOptions("balanced-kmeans", 4)
    wanted = cluster_items(vectors, options)
    found = cluster_items((vectors * np.float32(scale)).astype(np.float32), options)
    assert np.array_equal(found.clustering.cluster_of, wanted.clustering.cluster_of)
    assert found.summary.share == pytest.approx(wanted.summary.share, rel=1e-3)
    assert "do not fit float32" in " ".join(found.summary.notes)


def test_float64_beyond_float32_and_no_items_are_told():
    vectors = np.ones((4, 2))
    vectors[1:3] = [[1e300], [1e-300]]
    with pytest.raises(ValueError, match=r"1 of 4 rows are not finite \(1\) in float32"):
        cluster_items(vectors, ClusterOptions("kmeans", 2))
    options = ClusterOptions("kmeans", 2, metric="cosine", spread_nonfinite=True)
    assert "1 of 4 rows are zeros (2)" in cluster_items(vectors, options).summary.notes
    with pytest.raises(ValueError, match="there are none to cluster"):
        cluster_items(np.ones((0, 2), np.float32), ClusterOptions("kmeans"))


def test_duplicates_are_counted_and_fill_as_many_clusters():
    vectors = np.repeat(np.eye(2, dtype=np.float32), 8, axis=0)
    vectors[8:] *= -1  # -0 equals 0
    found = cluster_items(vectors, ClusterOptions("kmeans", 5))
    assert found.summary.duplicates == 14
    assert found.clustering.num_clusters == 5
    assert found.summary.share == 0


def test_equal_vectors_are_merged_without_a_warning():
    """Of as many as they are wide, less their mean, SciPy asks whether they are distances."""
    made = cluster_items(
        np.ones((40, 5), np.float32), ClusterOptions("agglomerative", clusters=8, max_size=3)
    )
    assert np.bincount(made.clustering.cluster_of).max() <= 3


def test_no_vector_at_all_is_an_error():
    with pytest.raises(ValueError, match="no item has a vector"):
        cluster_items(np.zeros((4, 2), np.float32), ClusterOptions("kmeans"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"clusters": 21}, "clusters: found 21, 20 items fill no more than 20"),
        ({"shortlist": 5}, "clusters: found 5, a shortlist of 5 needs 6 at least"),
        ({"shortlist": 21}, "shortlist: found 21, there are 20 items"),
        ({"method": "ward"}, "method: found 'ward', there are random"),
        ({"metric": "l1"}, "metric: found 'l1'"),
        ({"max_size": 0}, "max_size: expected 1 or more, found 0"),
        ({"method": "balanced-kmeans", "clusters": 4, "max_size": 4}, "give 5 clusters"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_named(options: dict[str, Any], told: str):
    vectors, _ = blobs(20, 4)
    with pytest.raises(ValueError, match=told):
        cluster_items(vectors, ClusterOptions(**{"method": "kmeans", **options}))


def test_too_many_items_for_a_method_are_named():
    vectors = np.ones((50_001, 1), np.float32)
    with pytest.raises(ValueError, match="spectral takes at most 50,000 items, there are 50,001"):
        cluster_items(vectors, ClusterOptions("spectral"))


@pytest.mark.parametrize("ranks", [[0, 1, 1], [0, 1, 3], [0, 1]])
def test_ranks_are_each_there_once(ranks: list[int]):
    with pytest.raises(ValueError, match="ranks: expected each of 0 to 2 once"):
        cluster_items(None, ClusterOptions("random"), num_items=3, ranks=np.array(ranks))


def test_the_summary_tells_the_variance_within():
    vectors = np.array([[0, 0], [0, 2], [10, 0], [10, 2]], np.float32)
    vectors += 1
    found = cluster_items(vectors, ClusterOptions("kmeans", 2)).summary
    np.testing.assert_allclose(found.within, [1, 1], rtol=1e-6)
    assert found.inertia == pytest.approx(4)
    assert found.total == pytest.approx(4 * 26)
    about = found.to_dict()
    assert about["inertia_share"] == pytest.approx(1 / 26)
    assert about["variance"] == pytest.approx({"min": 1, "median": 1, "max": 1, "of_all": 26})
    assert "of each          4% to 4%, median 4%" in found.text()
    assert sum(count for _, _, count in found.histogram()) == 2
