"""The head: item and cluster tables, the two-level softmax, its losses, the best items.

Read `hierarchical`, the readable reference, then `softmax`, the module, and `computation`, what it
computes of `passed`; `full_softmax` is one softmax over all items in chunks, `sampled` an estimate
of it, `second` the second pass as it is trained, cluster by cluster; `search` is the exact top-k of
an index, `retrieval` that of tables as they are, `top` that of scores, `measures` what an
evaluation asks of labels, `embeddings` the item table and its adapters, `touched` which of its rows
a batch has gradients by, `checks` what does not fit.
"""

from efficientids_flax.core.head.embeddings import Source
from efficientids_flax.core.head.passed import HeadInputs, LossOutput
from efficientids_flax.core.head.retrieval import retrieve
from efficientids_flax.core.head.sampled import NEGATIVES
from efficientids_flax.core.head.search import SearchIndex, build_index, item_vectors, search
from efficientids_flax.core.head.softmax import (
    INTERMEDIATES,
    ROW_GRADIENTS,
    HierarchicalSoftmax,
    settle_tables,
)
from efficientids_flax.core.head.top import TopItems, top_items
from efficientids_flax.core.head.touched import (
    Blocks,
    Touched,
    in_item_order,
    in_row_order,
    places_for,
    row_of,
    touched_by,
)
from efficientids_flax.moved import left_names

__getattr__ = left_names(__name__)
