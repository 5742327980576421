"""Every kind of wrong clustering table is found and named."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering.tables import FIELDS, ClusteringError, ClusteringInfo
from tests.efficientids_flax.core.clustering.clustering_cases import clusterings, tables


def wrong(**changed) -> str:
    with pytest.raises(ClusteringError) as caught:
        ClusteringInfo(**tables(**changed))
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"cluster_of": [0, 2, 0, 2, 1, 1]},
            "1 items are not where cluster_of and slot_of say: "
            "item 4 should be in cluster 1 at slot 0, which holds item 5.",
        ),
        (
            {"slot_of": [1, 0, 2, 2, 0, 0]},
            "item 3 should be in cluster 2 at slot 2, which is padding.",
        ),
        ({"cluster_of": [0, 3, 0, 2, 0, -1]}, "2 items have a cluster outside 0 to 2: "),
        ({"cluster_of": [0, 3, 0, 2, 0, -1]}, "item 1 has cluster 3; item 5 has cluster -1."),
        ({"slot_of": [1, 0, 2, 1, 0, 3]}, "1 items have a slot outside 0 to 2: item 5 has slot 3."),
        (
            {"members": [[4, 0, 2], [6, -1, -1], [1, 3, -1]]},
            "1 entries of members are outside 0 to 5: item 6 in cluster 1, slot 0.",
        ),
        (
            {"members": [[4, 0, 2], [5, -1, -1], [1, 3, 5]]},
            "1 items are in members more than once: item 5 2 times.",
        ),
        (
            {"members": [[4, 0, -1], [5, -1, -1], [1, 3, -1]]},
            "1 items are in no cluster of members: item 2.",
        ),
        (
            {"members": [[4, 0, 2], [5, -1, -1], [1, 3, -1], [-1, -1, -1]]},
            "1 clusters are empty (number the clusters without gaps): cluster 3.",
        ),
        (
            {"members": [[4, 0, 2], [-1, 5, -1], [1, 3, -1]], "slot_of": [1, 0, 2, 1, 0, 1]},
            "1 clusters have padding before their last item "
            "(it belongs at the end of the row): cluster 1 at slot 0.",
        ),
        (
            {"means": [[1.0], [np.nan], [np.inf]]},
            "2 clusters have a mean that is not finite: cluster 1; cluster 2.",
        ),
        ({"means": [[1.0], [2.0]]}, "members has 3 clusters and means has 2; expected as many."),
        ({"slot_of": [1, 0]}, "cluster_of has 6 items and slot_of has 2; expected as many."),
        ({"cluster_of": [[0, 2]]}, "cluster_of is [1, 2] of int64, expected [I] integers."),
        ({"members": [1.0]}, "members is [1] of float64, expected [K, M] integers."),
        ({"slot_of": [True]}, "slot_of is [1] of bool, expected [I] integers."),
        ({"means": [[1, 2]]}, "means is [1, 2] of int64, expected [K, E] floats."),
        ({"means": [[1j]]}, "means is [1, 1] of complex128, expected [K, E] floats."),
        ({"members": np.zeros((3, 0), int)}, "members is empty: [3, 0]."),
        ({"cluster_of": np.zeros(0, int)}, "cluster_of is empty: [0]."),
    ],
)
def test_says_what_is_wrong(changed, message):
    assert message in wrong(**changed)


def test_lists_all_problems_and_counts_what_it_does_not_show():
    message = wrong(cluster_of=[9, 9, 9, 9, 9, 9], slot_of=[1, 0, 2, 1, 0, 7])
    assert "6 items have a cluster outside 0 to 2: " in message
    assert "item 4 has cluster 9; and 1 more." in message
    assert "1 items have a slot outside 0 to 2: item 5 has slot 7." in message


@given(clusterings(), st.data())
@settings(max_examples=300, deadline=None)
def test_any_single_wrong_entry_is_found(good, data):
    name = data.draw(st.sampled_from(FIELDS[:3]))
    index = data.draw(st.integers(0, good[name].size - 1))
    entry = data.draw(st.integers(-2, good["cluster_of"].size + 1))
    before = int(good[name].flat[index])
    assume(entry != before and not (name == "members" and entry < 0 and before < 0))
    broken = dict(good, **{name: good[name].copy()})
    broken[name].flat[index] = entry
    with pytest.raises(ClusteringError):
        ClusteringInfo(**broken)
