"""Random clusterings with realistic unequal sizes, for benchmarks of the head and of top-k."""

from typing import Literal, get_args

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo

Sizes = Literal["equal", "log-normal", "Zipf"]
SIZES: tuple[Sizes, ...] = get_args(Sizes)


def clustering(items: int, clusters: int, sizes: Sizes, seed: int = 0) -> ClusteringInfo:
    """A random clustering.

    Args:
        items, clusters: I, K.
        sizes: distribution of sizes: equal, log-normal with sigma 0.8 (like k-means of embeddings),
            or proportional to one over the rank.
        seed: random seed.
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
