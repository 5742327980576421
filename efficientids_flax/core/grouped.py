"""Products of queries with the members of their clusters, without a gather for every query.

Each position of a batch is scored against all members of its label's cluster. Gathering them for
every position moves P M W numbers forward and scatters as many backward; where the positions
outnumber the clusters most of these are copies. Here the raw table is brought once into the order
of the clusters, [K, M, E]. Then, a few clusters at a time, the members go through the adapter and
are multiplied with the first positions of their cluster; only those of a crowded cluster need its
members again, in blocks. The adapted table, [I, W], is never there as a whole: what the backward
pass needs of it is made again.

Letters: P positions, W width of queries, E width of the table, I items, K clusters, M slots of the
largest cluster; G positions of a block, N blocks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from efficientids_flax.core.clustering import PADDING

Adapter = Callable[[jax.Array], jax.Array]

GROUP = 16  # positions of a block: enough for a matrix product, few enough to stay mostly full
MOST_PADDING = 4  # how many times the table its padded form [K, M] may be
GATHERED = 1 << 26  # numbers that a gather may hold at a time
# Rows that are adapted at a time: on CPUs what stays in a cache, elsewhere enough to fill a device.
CPU_ROWS, DEVICE_ROWS = 1 << 8, 1 << 16


def member_products(
    query: jax.Array,
    rows: jax.Array,
    clusters: jax.Array,
    members: jax.Array,
    adapter: Adapter | None = None,
) -> jax.Array:
    """Products of each query with the members of one cluster.

    Args:
        query: [P, W].
        rows: [I, E], of the items.
        clusters: int [P], in [0, K).
        members: int [K, M], each item once; below zero where there is none.
        adapter: [..., E] -> [..., W], row by row; None where E is W.

    Returns:
        [P, M], of the dtype of `query`; of no meaning where there is no member.
    """
    clusters, members = jnp.asarray(clusters), jnp.asarray(members)
    positions, (count, slots) = query.shape[0], members.shape
    padded = count * slots > MOST_PADDING * rows.shape[0]
    adapt: Adapter = adapter or _as_it_is
    if positions <= count or padded:
        if positions * slots > rows.shape[0]:
            rows, adapt = adapt(rows), _as_it_is
        return _gathered(query, rows, clusters, members, adapt)
    return _grouped(query, rows, clusters, members, adapt)


def _as_it_is(rows: jax.Array) -> jax.Array:
    return rows


def _gathered(
    query: jax.Array, rows: jax.Array, clusters: jax.Array, members: jax.Array, adapter: Adapter
) -> jax.Array:
    """By a gather for every position, as many positions at a time as `GATHERED` allows."""
    positions, width = query.shape
    most = max(1, GATHERED // (members.shape[1] * width))

    def some(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        own, chosen = given
        return jnp.einsum("pw,pmw->pm", own, adapter(rows[jnp.maximum(members[chosen], 0)]))

    if positions <= most:
        return some((query, clusters))
    # `batch_size` makes one more call for the rest; without checkpoint all gathers would be kept.
    each = jax.checkpoint(lambda given: some((given[0][None], given[1][None]))[0])
    return jax.lax.map(each, (query, clusters), batch_size=most)


def _grouped(
    query: jax.Array, rows: jax.Array, clusters: jax.Array, members: jax.Array, adapter: Adapter
) -> jax.Array:
    """By matrix products of up to G positions with the members of their cluster."""
    (positions, width), (count, slots) = query.shape, members.shape
    table = _by_cluster(rows, members)  # [K, M, E]
    present = jnp.zeros(count, jnp.int32).at[clusters].add(1)

    # The place of each position among those of its cluster.
    order = jnp.argsort(clusters, stable=True)
    sorted_clusters = clusters[order]
    run = jnp.searchsorted(sorted_clusters, sorted_clusters, side="left")
    place = jnp.zeros_like(order).at[order].set(jnp.arange(positions) - run)

    # The first G of each cluster.
    first = place < GROUP
    row = jnp.where(first, clusters * GROUP + place, count * GROUP)
    own = jnp.zeros((count * GROUP, width), query.dtype).at[row].set(query, mode="drop")
    products = _products(own.reshape(count, GROUP, width), table, present > 0, adapter)
    products = products.reshape(count * GROUP, slots)[jnp.minimum(row, count * GROUP - 1)]

    # The others, in blocks of one cluster each: P / G blocks suffice, as each cluster with others
    # has filled a block above.
    blocks = positions // GROUP
    if blocks == 0:
        return products
    needed = -(-jnp.maximum(present - GROUP, 0) // GROUP)
    start = jnp.cumsum(needed) - needed
    block = jnp.where(first, blocks, start[clusters] + place // GROUP - 1)
    row = jnp.where(first, blocks * GROUP, block * GROUP + place % GROUP)
    cluster_of_block = jnp.zeros(blocks, clusters.dtype).at[block].set(clusters, mode="drop")
    own = jnp.zeros((blocks * GROUP, width), query.dtype).at[row].set(query, mode="drop")
    filled = jnp.arange(blocks) < jnp.sum(needed)
    others = _products(own.reshape(blocks, GROUP, width), table[cluster_of_block], filled, adapter)
    others = others.reshape(blocks * GROUP, slots)[jnp.minimum(row, blocks * GROUP - 1)]
    return jnp.where(first[:, None], products, others)


def _products(own: jax.Array, table: jax.Array, used: jax.Array, adapter: Adapter) -> jax.Array:
    """Products of blocks: [N, G, W], [N, M, E] -> [N, G, M]; zero or more where not used [N].

    On a mesh all at once, so that the blocks can be split among its devices.
    """

    def one(own: jax.Array, table: jax.Array) -> jax.Array:
        return (adapter(table) @ own.T).T  # the longer factor first: 1.6 times as fast on CPUs

    if not jax.sharding.get_abstract_mesh().empty:
        return jax.vmap(jax.checkpoint(one))(own, table)
    rows = CPU_ROWS if jax.default_backend() == "cpu" else DEVICE_ROWS
    together = rows // table.shape[1]
    if together > 1:
        each = jax.checkpoint(lambda given: one(*given))
        return jax.lax.map(each, (own, table), batch_size=together)
    nothing = jnp.zeros((own.shape[1], table.shape[1]), own.dtype)

    @jax.checkpoint
    def if_used(given: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return jax.lax.cond(given[2], one, lambda *_: nothing, *given[:2])

    return jax.lax.map(if_used, (own, table, used))


def _by_cluster(rows: jax.Array, members: jax.Array) -> jax.Array:
    """Rows of a table [I, E] in the order of the clusters, [K, M, E].

    Every item stands in one slot, so the gradient is a gather too, where that of a plain look-up is
    a scatter.
    """
    count, slots = members.shape
    flat = jnp.where(members > PADDING, members, rows.shape[0]).reshape(-1)
    slot_of = (
        jnp.zeros(rows.shape[0], jnp.int32)
        .at[flat]
        .set(jnp.arange(count * slots, dtype=jnp.int32), mode="drop")
    )

    return _look_up(rows, members, slot_of)


@jax.custom_vjp
def _look_up(rows: jax.Array, members: jax.Array, slot_of: jax.Array) -> jax.Array:
    return rows[jnp.maximum(members, 0)]


def _look_up_forward(
    rows: jax.Array, members: jax.Array, slot_of: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _look_up(rows, members, slot_of), slot_of


def _look_up_backward(slot_of: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return gradient.reshape(-1, gradient.shape[-1])[slot_of], None, None


_look_up.defvjp(_look_up_forward, _look_up_backward)
