"""Item vectors for other search engines: their inner product with a query is the score.

Letters: I items, W width of query and tables.
"""

import jax
import numpy as np

from efficientids_flax.core.head.search.index import SearchIndex


def item_vectors(index: SearchIndex) -> np.ndarray:
    """Vectors of the items for other search engines: float32 [I, W], in order of the ids.

    Each is the item's vector plus that of its cluster. `query @ item_vectors(index).T` gives the
    items' 'scores' without a cap, so any search by inner product ranks alike (`faiss.IndexFlatIP`,
    a vector database, NumPy). A cap changes the order only at ties. 'corrected' and 'log_probs'
    are not inner products.

    Args:
        index: from `build_index`.

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
