"""Exact top-k from an index of the item table: the best items without a score for each of them.

Read `index`, the table in tiles of one cluster each, `update`, which adds items and removes some,
`kinds`, what a score is made of, `filters`, `scan`, a pass that keeps a number for each tile,
`bounded`, which leaves out what cannot be among the best, `beam`, which looks at a few clusters,
`find`, the function, `candidates`, scores of items that are named, and `export`, vectors for other
searches.
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
