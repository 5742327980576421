"""Exact top-k from an index of the item table, without holding a score for each item.

Read `index`, the table in tiles of one cluster each; `update`, which adds and removes items;
`kinds`, how a score is composed; `filters`; `scan`, a pass over all items that keeps one number for
each tile; `bounded`, which skips clusters that cannot hold the best; `beam`, which searches only a
few clusters; `find`, the public function; `candidates`, scores of given items; and `export`,
vectors for other search engines.
"""

from efficientids_flax.core.head.search.candidates import score
from efficientids_flax.core.head.search.export import item_vectors
from efficientids_flax.core.head.search.find import search
from efficientids_flax.core.head.search.index import SearchIndex, build_index
from efficientids_flax.core.head.search.kinds import Kind
from efficientids_flax.core.head.search.update import add_items, remove_items

__all__ = [
    "Kind",
    "SearchIndex",
    "add_items",
    "build_index",
    "item_vectors",
    "remove_items",
    "score",
    "search",
]
