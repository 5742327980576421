"""The second pass: losses of labels among the members of their clusters.

Read `layout`, which clusters are computed in one shape, `visits`, in which order, `entropy`, the
sums and the gradient of a tile, `by_cluster`, which goes through them on one device, `masked`,
which takes all items of a tiny catalogue at once, `mesh` and `spread`, the same on a mesh, and
`losses`, the function with its derivative.
"""

from efficientids_flax.core.head.second.by_cluster import Adapter, Places
from efficientids_flax.core.head.second.entropy import NO_MEMBER, Entropy, Sums, Tile
from efficientids_flax.core.head.second.layout import layout_of
from efficientids_flax.core.head.second.losses import AS_IT_IS, Losses, member_losses
from efficientids_flax.core.head.second.mesh import Split, merged_sums, split_of, summed
from efficientids_flax.core.head.second.spread import spare_rows, tables_of
from efficientids_flax.core.head.second.visits import Labels, Tables
