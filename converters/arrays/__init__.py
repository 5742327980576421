"""Lazy arrays of a checkpoint: leaves that are not read yet, and expressions over them.

A target leaf is computed tile by tile from its sources, so that no array is ever in memory as a
whole. Read `leaf` and `lazy` first, then the operations in `structure`, `values`, `packed` and
`low_rank`. `flat` is a leaf inside a file, `held` a leaf in memory.
"""

from converters.arrays.flat import FlatLeaf, FlatReader
from converters.arrays.held import HeldLeaf, held
from converters.arrays.lazy import BLOCK, Array, Readers, Source, even_part, tile_regions
from converters.arrays.leaf import Leaf, LeafSpec, Reader, Region, extent, whole
from converters.arrays.low_rank import LowRank
from converters.arrays.packed import BlockScaled, Mxfp4, Unpacked, per_integer
from converters.arrays.structure import Joined, Merged, Part, Split, Transposed
from converters.arrays.values import Agreed, Cast, Debias, Raised, Scaled
