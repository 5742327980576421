"""Groups items into clusters: by k-means and related methods, by frequency rank, or at random.

Read `methods`, the table of methods; then `build`, which checks inputs and runs one of them.
`points` prepares vectors; `kmeans` and `balanced` compute with `centers` and `transport`;
`scikit_learn` wraps that package; `split` enforces a largest size. `summary` describes a clustering
and `plot` draws it. `sources` finds vectors in files, `carry_on` gives a trained model new
clusters, and `commands` has the shell commands.
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
