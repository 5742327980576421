"""What an evaluation asks of labels: entropy and rank, with the scores of one tile at a time.

Read `tiles`, where items stand, `columns`, sums over those of a tile, `scores`, what they are made
of, `counts`, how many stand before a label, `sweep`, the pass over all tiles, and `labels`, what is
asked.
"""

from efficientids_flax.core.head.measures.labels import SCORINGS, Measures, Scoring, measure
from efficientids_flax.core.head.measures.tiles import Tiles, table_of, tiles_of

__all__ = ["SCORINGS", "Measures", "Scoring", "Tiles", "measure", "table_of", "tiles_of"]
