"""The head: item and cluster tables, the two-level softmax, its losses, the best items.

Read `hierarchical`, the readable reference, then `softmax`, the Flax module, and `computation`, its
losses and scores; `passed` has their inputs and outputs. `full_softmax` computes one softmax over
all items in chunks, `sampled` estimates it, and `second` computes the second pass in training,
cluster by cluster. Exact top-k: `search` from an index, `retrieval` from plain tables, `top` from
scores. `measures` computes entropy and rank of labels in evaluation, `embeddings` has the item
table and its adapters, `touched` finds the rows of the table that get gradients from a batch, and
`checks` validates arguments.
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
