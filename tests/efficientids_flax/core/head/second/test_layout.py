"""How clusters come in classes: each once, with little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second.layout import (
    MOST_CLASSES,
    MOST_TILED,
    SMALLEST_TILE,
    layout_of,
)


def clustering(sizes, seed=0):
    cluster_of = np.repeat(np.arange(len(sizes)), sizes)
    return ClusteringInfo.from_assignments(np.random.default_rng(seed).permutation(cluster_of))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 40))
def test_every_cluster_is_in_one_class_that_holds_it(sizes, tiles):
    layout, most = layout_of(clustering(sizes)), tiles * SMALLEST_TILE
    classes = list(layout.classes(most))
    assert sorted(np.concatenate([kind.clusters for kind in classes])) == list(range(len(sizes)))
    assert len(classes) <= MOST_CLASSES + MOST_TILED
    for kind in classes:
        assert kind.largest == np.asarray(sizes)[kind.clusters].max()
        assert kind.rows % SMALLEST_TILE == 0
        assert kind.rows >= kind.largest or (kind.rows == most < kind.largest)


def test_log_normal_sizes_are_padded_by_less_than_half():
    sizes = np.ceil(np.random.default_rng(0).lognormal(0, 0.8, 320) * 200).astype(int)
    classes = list(layout_of(clustering(sizes)).classes(1 << 20))
    padded = sum(len(kind.clusters) * kind.rows for kind in classes)
    assert padded < 1.5 * sizes.sum() < 0.2 * len(sizes) * sizes.max()


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [
        ([9] * 20 + [16] * 20, [16]),  # padded alike
        ([8] * 3 + [16] * 3, [16]),  # 24 rows of padding are less than a loop
        ([8] * 60 + [16] * 3, [8, 16]),
    ],
)
def test_a_class_saves_more_than_its_loop_costs(sizes, rows):
    assert [kind.rows for kind in layout_of(clustering(sizes)).classes(1 << 20, 64)] == rows


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_a_part_holds_its_own_items_in_order_of_clusters(parts):
    tables = clustering([5, 1, 10, 8])
    layout = layout_of(tables, parts)
    size = tables.num_items // parts
    seen = []
    for part in range(parts):
        for cluster in range(4):
            start, count = layout.starts[part, cluster], layout.sizes[part, cluster]
            items = layout.order[part, start : start + count]
            np.testing.assert_array_equal(layout.slots[part, items], np.arange(count))
            np.testing.assert_array_equal(tables.cluster_of[items + part * size], cluster)
            seen += list(items + part * size)
    assert sorted(seen) == list(range(tables.num_items))
    np.testing.assert_array_equal(layout.sizes.sum(axis=0), layout.counts)


def test_a_layout_is_made_once():
    tables = clustering([3, 5])
    assert layout_of(tables, 2) is layout_of(tables, 2) is not layout_of(tables, 1)
