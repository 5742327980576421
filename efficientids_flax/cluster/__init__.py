"""Items to clusters: k-means and its kin, by size limits, from vectors, ranks or at random.

Read `methods`, the table of ways, then `build`, what holds around each of them; `points` is what
they are given, `kmeans` and `balanced` compute with `centers` and `transport`, `scikit_learn` has
what that package does, `split` keeps to the largest size; `summary` says what came out, `plot`
draws it; `sources` finds vectors in files, `carry_on` gives a trained model other clusters, and
`commands` has what the shell calls.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.cluster.build import Clustered, ClusterOptions, cluster_items
    from efficientids_flax.cluster.carry_on import recluster
    from efficientids_flax.cluster.methods import METHODS, Method
    from efficientids_flax.cluster.plot import save_plot
    from efficientids_flax.cluster.summary import Summary

__all__ = [
    "METHODS",
    "ClusterOptions",
    "Clustered",
    "Method",
    "Summary",
    "cluster_items",
    "recluster",
    "save_plot",
]

__getattr__ = lazy_names(__name__)
