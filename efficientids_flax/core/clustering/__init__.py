"""Which cluster each item is in: the tables of the hierarchical softmax, and their files.

Read `tables`, then `checks`; `files` has the formats that cannot contain code, `pickles` and
`pickle_drafts` read the original's pickle files without executing them.
"""

from efficientids_flax.core.clustering.files import suffix_problem
from efficientids_flax.core.clustering.tables import PADDING, ClusteringError, ClusteringInfo
from efficientids_flax.moved import left_names

__getattr__ = left_names(__name__)
