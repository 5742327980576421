"""The second pass: losses of labels among the members of their clusters.

Read `layout`, which groups clusters into few shapes; `visits`, the order in which they are
computed; `entropy`, sums and gradient of one tile; `by_cluster`, the pass on one device; `masked`,
the alternative for tiny catalogues, with all items at once; `mesh` and `spread`, the same on a
mesh; and `losses`, the public function with its custom derivative.
"""

from efficientids_flax.core.head.second.by_cluster import Adapter, Places
from efficientids_flax.core.head.second.entropy import NO_MEMBER, Entropy, Sums, Tile
from efficientids_flax.core.head.second.layout import layout_of
from efficientids_flax.core.head.second.losses import AS_IT_IS, Losses, member_losses
from efficientids_flax.core.head.second.mesh import Split, merged_sums, split_of, summed
from efficientids_flax.core.head.second.spread import spare_rows, tables_of
from efficientids_flax.core.head.second.visits import Labels, Tables
