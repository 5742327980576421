"""Clusterings as unequal as those that people have, for measurements of the head and of top-k."""

from typing import Literal, get_args

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo

Sizes = Literal["equal", "log-normal", "Zipf"]
SIZES: tuple[Sizes, ...] = get_args(Sizes)


def clustering(items: int, clusters: int, sizes: Sizes, seed: int = 0) -> ClusteringInfo:
    """A clustering of items in any order.

    Args:
        items, clusters: I, K.
        sizes: of the clusters: all the same, log-normal with sigma 0.8 (k-means of embeddings), or
            as one over the rank.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    if sizes == "equal":
        return ClusteringInfo.from_assignments(rng.permutation(np.arange(items) % clusters))
    shares = (
        rng.lognormal(0, 0.8, clusters) if sizes == "log-normal" else 1 / np.arange(1, clusters + 1)
    )
    more = rng.choice(clusters, items - clusters, p=shares / shares.sum())
    return ClusteringInfo.from_assignments(
        rng.permutation(np.concatenate([np.arange(clusters), more]))
    )
