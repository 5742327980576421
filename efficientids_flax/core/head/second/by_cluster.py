"""Losses of positions among the members of their clusters, block by block, on one device.

The members of a block's cluster go through the adapter and are multiplied with the queries of its
positions; all arithmetic is dense products. Neither the whole adapted table, [I, W], nor the logits
of more than one visit are ever in memory. The gradient of a weighted sum of the losses is computed
in the same visit, while the members are loaded. If the table is in cluster order, rows are read and
written as slices, at memory bandwidth.

Letters: P positions, W width of queries, E width of the table, I items, K clusters, C blocks of a
visit, G positions of a block, M rows of a tile, R places of gradients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.second.entropy import NO_MEMBER, Entropy, Sums, Tile
from efficientids_flax.core.head.second.layout import Layout
from efficientids_flax.core.head.second.visits import (
    Blocks,
    Labels,
    Tables,
    Visit,
    sort_positions,
    take,
    tile_rows,
    worth_of_class,
)

# Maps [..., E] -> [..., W], each row alone; gradients are taken by the arrays the Partial holds.
Adapter = jax.tree_util.Partial
# Scatter with windows of one row. (With that of `at[].add`, XLA on CPU first copies the rows.)
_WINDOWS = jax.lax.ScatterDimensionNumbers((1, 2), (), (0,))


class Places(NamedTuple):
    """A compact array that receives the gradients of some rows, cluster by cluster.

    If it is used, the table is in cluster order, [I + spare, E]. The spare rows at the end keep
    every slice inside of the table, see `spare_rows`.

    Attributes:
        values: [R + spare, E]; its gradient holds those of the rows, its content is ignored.
        starts: int [K], the place of each cluster's first member; out of range, but far from
            overflow, if a cluster's gradients are not wanted.
    """

    values: jax.Array
    starts: jax.Array


class Given(NamedTuple):
    """Inputs of the losses.

    Attributes:
        query: [P, W].
        rows: [I, E], the item table; in cluster order if `places` is given.
        adapter: maps rows to width W.
        labels: label of each position.
        weights: float32 [P], weights of the losses in the sum that is differentiated.
        places: where gradients by the rows are stored; None: in an array like the rows.
    """

    query: jax.Array
    rows: jax.Array
    adapter: Adapter
    labels: Labels
    weights: jax.Array
    places: "Places | None" = None


class Gradients(NamedTuple):
    """By the query, the rows (or the values of their places), and the adapter's arrays."""

    query: jax.Array
    rows: jax.Array
    adapter: Adapter


class ByCluster:
    """The second pass of one device."""

    def __init__(self, entropy: Entropy, layout: Layout, tables: Tables, given: Given) -> None:
        """Sort the positions.

        Args:
            entropy: soft cap and smoothing.
            layout: layout of the clustering.
            tables: the shard of the layout that belongs to the given rows.
            given: all arrays.
        """
        self._entropy, self._given = entropy, given
        self._counts = jnp.asarray(layout.counts)
        width = max(given.query.shape[-1], given.rows.shape[-1])
        places = sort_positions(given.labels, tables)
        in_order = given.places is not None
        worth = worth_of_class(layout, len(given.query), width)
        self._blocks = [
            Blocks(layout, tables, kind, places, width, in_order=in_order)
            for kind in layout.classes(tile_rows(width), worth)
        ]

    def sums(self) -> Sums:
        """Sums over the members, float32 [P]; positions without a label keep the empty sums."""

        def add(part: _Part, sums: Sums) -> Sums:
            return part.put(sums, part.sums())

        zero = jnp.zeros(self._given.query.shape[0], jnp.float32)
        return self._over_all(add, Sums(zero + NO_MEMBER, zero, zero, zero))

    def losses(self, sums: Sums) -> jax.Array:
        """Losses from the sums over all members, float32 [P]; 0 where there is no label."""
        clusters, known = self._given.labels.clusters, self._counts.shape[0]
        counts = self._counts[jnp.minimum(clusters, known - 1)]
        one = jax.tree.map(lambda x: x[:, None], sums)
        return jnp.where(clusters < known, self._entropy.losses(one, counts)[:, 0], 0.0)

    def gradients(self, sums: Sums) -> Gradients:
        """Gradients of the weighted sum of the losses, given the sums over all members."""

        def add(part: _Part, gradients: Gradients) -> Gradients:
            own = jax.tree.map(lambda x: take(x, part.visit.positions), sums)
            return part.add_gradients(own, gradients)

        return self._over_all(add, self._zeros())

    def both(self) -> tuple[jax.Array, Gradients]:
        """(`losses`, `gradients`) in one pass; only if the device has all members."""

        def add(part: _Part, carry: tuple[jax.Array, Gradients]) -> Any:
            each, gradients = carry
            sums = part.sums()
            own = self._entropy.losses(sums, part.counts)
            return part.put(each, own), part.add_gradients(sums, gradients)

        each = jnp.zeros(self._given.query.shape[0], jnp.float32)
        return self._over_all(add, (each, self._zeros()))

    def _zeros(self) -> Gradients:
        given = self._given
        rows = given.rows if given.places is None else given.places.values
        return Gradients(*jax.tree.map(jnp.zeros_like, (given.query, rows, given.adapter)))

    def _over_all(self, step: "Callable[[_Part, Any], Any]", carry: Any) -> Any:
        """Fold `step` over all visits of all size classes."""
        for blocks in self._blocks:

            def visit(number: Any, carry: Any, blocks: Blocks = blocks) -> Any:
                visit = blocks.visit(number)
                counts = self._counts[visit.clusters]
                return step(_Part(self._entropy, self._given, blocks, visit, counts), carry)

            carry = jax.lax.fori_loop(0, blocks.visits, visit, carry)
        return carry


class _Step(NamedTuple):
    """One tile: adapted rows [C, M, W] with their vjp `back`, and logits [C, M, G].

    `at` [C, M] is where the gradient of each row is added, out of range for padding. If gradients
    are added slice by slice, it is [C], the place of the first row of each.
    """

    at: jax.Array
    tile: Tile
    adapted: jax.Array
    back: Any
    logits: jax.Array


class _Part:
    """The arithmetic of one visit."""

    def __init__(
        self, entropy: Entropy, given: Given, blocks: Blocks, visit: Visit, counts: jax.Array
    ) -> None:
        self.visit, self.counts = visit, counts
        self._entropy, self._given, self._blocks = entropy, given, blocks
        self._own = take(given.query, visit.positions)  # [C, G, W]
        self._tiled = blocks.kind.largest > blocks.kind.rows
        # Clusters that fit one tile: compute it once, for both sums and gradients.
        self._only = None if self._tiled else self._step(0)

    def sums(self) -> Sums:
        """Sums over all members, [C, G]."""
        if self._only is not None:
            return self._entropy.sums(self._only.logits, self._only.tile)

        def add(number: Any, sums: Sums) -> Sums:
            step = self._step(number)
            return sums.merged(self._entropy.sums(step.logits, step.tile))

        zero = jnp.zeros(self.visit.positions.shape, jnp.float32)
        none = Sums(zero + NO_MEMBER, zero, zero, zero)
        return jax.lax.fori_loop(0, self._blocks.tiles(self.visit), add, none)

    def add_gradients(self, sums: Sums, made: Gradients) -> Gradients:
        """Add the gradients of this visit.

        Args:
            sums: [C, G], over all members.
            made: gradients of the visits before.
        """
        if self._only is not None:
            of_own, made = self._back(self._only, sums, made)
        else:

            def back(number: Any, carry: Any) -> Any:
                more, gradients = self._back(self._step(number), sums, carry[1])
                return carry[0] + more, gradients

            start = jnp.zeros_like(self._own), made
            of_own, made = jax.lax.fori_loop(0, self._blocks.tiles(self.visit), back, start)
        return made._replace(query=self.put(made.query, of_own))

    def put(self, whole: Any, own: Any) -> Any:
        """Write this visit's values [C, G, ...] into arrays of all positions [P, ...]."""
        at = self.visit.positions
        return jax.tree.map(lambda x, new: x.at[at].set(new, mode="drop"), whole, own)

    def _step(self, number: Any) -> _Step:
        """Gather, adapt and multiply the members of a tile."""
        items = self._blocks.members(self.visit, number)
        raw = self._blocks.taken(self._given.rows, self.visit, number)
        flat, back = jax.vjp(lambda adapter, raw: adapter(raw), self._given.adapter, raw)
        adapted = flat.reshape(*items.shape, -1)
        products = jnp.einsum("cmw,cgw->cmg", adapted, self._own)
        tile = Tile(items >= 0, self._blocks.labels(self.visit, number))
        at = self._places(items, number)
        return _Step(at, tile, adapted, back, self._entropy.logits(products, tile))

    def _places(self, items: jax.Array, number: Any) -> jax.Array:
        given = self._given
        if given.places is None:
            return jnp.where(items < 0, given.rows.shape[0], items)
        rows = items.shape[1]
        starts = given.places.starts[self.visit.clusters]
        if self._blocks.in_slices:
            return starts + number * rows
        own = starts[:, None] + number * rows + jnp.arange(rows)
        return jnp.where(items < 0, given.places.values.shape[0], own)

    def _back(self, step: _Step, sums: Sums, made: Gradients) -> tuple[jax.Array, Gradients]:
        """(gradient of the queries [C, G, W], `made` plus the gradients of the tile's rows)."""
        weights = take(self._given.weights, self.visit.positions)
        of_logits = self._entropy.gradients(step.logits, step.tile, sums, self.counts, weights)
        of_logits = of_logits.astype(step.adapted.dtype)
        of_own = jnp.einsum("cmg,cmw->cgw", of_logits, step.adapted)
        of_adapted = jnp.einsum("cmg,cgw->cmw", of_logits, self._own)
        of_adapter, of_raw = step.back(of_adapted.reshape(-1, of_adapted.shape[-1]))
        if self._blocks.in_slices:
            parts = jnp.split(of_raw, step.at.shape[0])
            rows = made.rows
            for first, part in zip(step.at, parts, strict=True):
                before = jax.lax.dynamic_slice_in_dim(rows, first, part.shape[0])
                rows = jax.lax.dynamic_update_slice_in_dim(rows, before + part, first, 0)
        else:
            rows = jax.lax.scatter_add(
                made.rows, step.at.reshape(-1, 1), of_raw[:, None], _WINDOWS,
                mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
            )  # fmt: skip
        adapter = jax.tree.map(jnp.add, made.adapter, of_adapter)
        return of_own, Gradients(made.query, rows, adapter)
