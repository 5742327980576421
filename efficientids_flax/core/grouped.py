"""Products of queries with the members of their clusters, without a gather for every query.

Each position of a batch is scored against all members of its label's cluster. Gathering them for
every position moves P M W numbers forward and scatters as many backward; where the positions
outnumber the clusters most of these are copies. Here the table is brought once into the order of
the clusters, [K, M, W]; the first positions of each cluster are multiplied with it in place, one
matrix product a cluster, and only those of a crowded cluster gather it again, in blocks.

Letters: P positions, W width, I items, K clusters, M slots of the largest cluster, G positions of a
block, N blocks.
"""

import jax
import jax.numpy as jnp

from efficientids_flax.core.clustering import PADDING

GROUP = 16  # positions of a block: enough for a matrix product, few enough to stay mostly full
MOST_PADDING = 4  # how many times the table its padded form [K, M] may be
GATHERED = 1 << 26  # numbers that a gather may hold at a time


def member_products(
    query: jax.Array, items: jax.Array, clusters: jax.Array, members: jax.Array
) -> jax.Array:
    """Products of each query with the members of one cluster.

    Args:
        query: [P, W].
        items: [I, W].
        clusters: int [P], in [0, K).
        members: int [K, M], each item once; below zero where there is none.

    Returns:
        [P, M], of the dtype of `query`; of no meaning where there is no member.
    """
    clusters, members = jnp.asarray(clusters), jnp.asarray(members)
    positions, (count, slots) = query.shape[0], members.shape
    padded = count * slots > MOST_PADDING * items.shape[0]
    if positions <= count or padded:
        return _gathered(query, items, clusters, members)
    return _grouped(query, items, clusters, members)


def _gathered(
    query: jax.Array, items: jax.Array, clusters: jax.Array, members: jax.Array
) -> jax.Array:
    """By a gather for every position, as many positions at a time as `GATHERED` allows."""
    positions, width = query.shape
    rows = max(1, GATHERED // (members.shape[1] * width))

    def some(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, chosen = given
        return jnp.einsum("pw,pmw->pm", own, items[jnp.maximum(members[chosen], 0)])

    if positions <= rows:
        return some((query, clusters))
    # `batch_size` makes one more call for the rest; without checkpoint all gathers would be kept.
    each = jax.checkpoint(lambda given: some((given[0][None], given[1][None]))[0])
    return jax.lax.map(each, (query, clusters), batch_size=rows)


def _grouped(
    query: jax.Array, items: jax.Array, clusters: jax.Array, members: jax.Array
) -> jax.Array:
    """By matrix products of up to G positions with the members of their cluster."""
    (positions, width), (count, slots) = query.shape, members.shape
    table = _by_cluster(items, members)  # [K, M, W]

    # The place of each position among those of its cluster.
    order = jnp.argsort(clusters, stable=True)
    sorted_clusters = clusters[order]
    run = jnp.searchsorted(sorted_clusters, sorted_clusters, side="left")
    place = jnp.zeros_like(order).at[order].set(jnp.arange(positions) - run)

    # The first G of each cluster.
    first = place < GROUP
    row = jnp.where(first, clusters * GROUP + place, count * GROUP)
    own = jnp.zeros((count * GROUP, width), query.dtype).at[row].set(query, mode="drop")
    products = jnp.einsum("kgw,kmw->kgm", own.reshape(count, GROUP, width), table)
    products = products.reshape(count * GROUP, slots)[jnp.minimum(row, count * GROUP - 1)]

    # The others, in blocks of one cluster each: P / G blocks suffice, as each cluster with others
    # has filled a block above.
    blocks = positions // GROUP
    if blocks == 0:
        return products
    present = jnp.zeros(count, jnp.int32).at[clusters].add(1)
    needed = -(-jnp.maximum(present - GROUP, 0) // GROUP)
    start = jnp.cumsum(needed) - needed
    block = jnp.where(first, blocks, start[clusters] + place // GROUP - 1)
    row = jnp.where(first, blocks * GROUP, block * GROUP + place % GROUP)
    cluster_of_block = jnp.zeros(blocks, clusters.dtype).at[block].set(clusters, mode="drop")
    own = jnp.zeros((blocks * GROUP, width), query.dtype).at[row].set(query, mode="drop")
    gathered = table[cluster_of_block]  # [N, M, W]
    others = jnp.einsum("ngw,nmw->ngm", own.reshape(blocks, GROUP, width), gathered)
    others = others.reshape(blocks * GROUP, slots)[jnp.minimum(row, blocks * GROUP - 1)]
    return jnp.where(first[:, None], products, others)


def _by_cluster(items: jax.Array, members: jax.Array) -> jax.Array:
    """Rows of a table [I, W] in the order of the clusters, [K, M, W].

    Every item stands in one slot, so the gradient is a gather too, where that of a plain look-up is
    a scatter.
    """
    count, slots = members.shape
    flat = jnp.where(members > PADDING, members, items.shape[0]).reshape(-1)
    slot_of = (
        jnp.zeros(items.shape[0], jnp.int32)
        .at[flat]
        .set(jnp.arange(count * slots, dtype=jnp.int32), mode="drop")
    )

    return _look_up(items, members, slot_of)


@jax.custom_vjp
def _look_up(items: jax.Array, members: jax.Array, slot_of: jax.Array) -> jax.Array:
    return items[jnp.maximum(members, 0)]


def _look_up_forward(
    items: jax.Array, members: jax.Array, slot_of: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _look_up(items, members, slot_of), slot_of


def _look_up_backward(slot_of: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return gradient.reshape(-1, gradient.shape[-1])[slot_of], None, None


_look_up.defvjp(_look_up_forward, _look_up_backward)
