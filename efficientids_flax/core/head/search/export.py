"""What others need to serve the same ranking: vectors whose products with a query are the scores.

Letters: I items, W width of query and tables.
"""

import jax
import numpy as np

from efficientids_flax.core.head.search.index import SearchIndex


def item_vectors(index: SearchIndex) -> np.ndarray:
    """float32 [I, W], in order of the ids: the items, each with the vector of its cluster added.

    `query @ item_vectors(index).T` are the items' 'scores' without a cap, as any search for the
    largest inner product ranks them (`faiss.IndexFlatIP`, a vector database, NumPy). A cap changes
    no order but for ties. 'corrected' and 'log_probs' are no inner products.

    Args:
        index: of `build_index`.

    Raises:
        ValueError: items were removed, or are still to be added.
    """
    if missing := int(np.sum(np.asarray(index.order.places) >= index.order.ids.size)):
        raise ValueError(
            f"item_vectors: {missing} of {index.num_items} items are not in the index, and have no"
            " vector: export an index that is built of all"
        )
    rows, clusters, order = jax.device_get((index.rows, index.clusters, index.order))
    if clusters is not None:
        rows = rows + clusters[order.clusters][:, None]
    return rows.reshape(-1, rows.shape[-1])[order.places]
