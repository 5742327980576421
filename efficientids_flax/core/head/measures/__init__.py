"""Measures of labels in an evaluation: entropy and rank, holding the scores of one tile at a time.

Read `tiles`, the place of each item; `columns`, sums over the slots of a tile; `scores`, how scores
are computed; `counts`, how many items rank before a label; `sweep`, the pass over all tiles; and
`labels`, the public function.
"""

from efficientids_flax.core.head.measures.labels import SCORINGS, Measures, Scoring, measure
from efficientids_flax.core.head.measures.tiles import Tiles, table_of, tiles_of

__all__ = ["SCORINGS", "Measures", "Scoring", "Tiles", "measure", "table_of", "tiles_of"]
