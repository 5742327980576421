"""Sparse updates: only the rows of the item table that a batch touches.

A dense step costs several passes over the whole table, its gradient and its moments, though a batch
gives gradients to few rows. Here the gradients of the touched rows are stored in a compact array,
and the optimizer, if it works row by row, is applied to these rows alone; the donated table is
updated in place. During a run, table and moments are kept in cluster order, so that touched rows
are contiguous; `entered` and `left` convert the layout.

Letters: E width of the table, I items, R places of gradients.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efficientids_flax.config.record import listed
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.gathering import in_vectors, take_rows
from efficientids_flax.core.head import (
    ROW_GRADIENTS,
    Touched,
    in_item_order,
    in_row_order,
    row_of,
)
from efficientids_flax.train.optimizer import ByRow
from efficientids_flax.train.options import ItemUpdates
from efficientids_flax.train.state import TABLE, Split, Tables, TrainState, laid_out, split_table
from efficientids_flax.tree import flatten, unflatten

VALUES, TOUCHED, ROWS = (f"{ROW_GRADIENTS}/{name}" for name in ("values", "touched", "rows"))
AT_ONCE = 1024  # scattered rows that are updated at a time
LARGE = 1 << 22  # smaller tables (16 MiB) are updated as a whole: that is fast enough


# (Gradients, rows before) -> rows after the update.
Stepped = Callable[[jax.Array, Tables], Tables]


class ItemTable(NamedTuple):
    """How batches touch a model's item table.

    Attributes:
        clustering: the cluster of each item.
        touched: batch -> the rows that get gradients.
        places: batch -> the most places that a batch of these shapes can need.
    """

    clustering: ClusteringInfo
    touched: Callable[[Mapping[str, Any]], Touched]
    places: Callable[[Mapping[str, Any]], int]


class RowUpdates(NamedTuple):
    """Sparse updates of a run's item table.

    Attributes:
        by_row: the optimizer, as parts that can be applied to some rows.
        of: the item table.
    """

    by_row: ByRow
    of: ItemTable

    def entered(self, state: TrainState) -> TrainState:
        """The state with table and moments in cluster order; those of the given one are deleted."""
        return laid_out(state, jax.jit(partial(in_row_order, self.of.clustering)), gone=True)

    def left(self, state: TrainState) -> TrainState:
        """The state with table and moments in item order; the given one stays valid."""
        return laid_out(state, jax.jit(partial(in_item_order, self.of.clustering)), gone=False)

    def opened(
        self, state: TrainState, frozen: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> "Opened":
        """Prepare a step: split off the table, and add the array for its row gradients.

        Args:
            state: from `entered`.
            frozen: parameters without gradients.
            batch: the batch of the step.
        """
        small, split = split_table(state)
        table, touched = split.tables.table, self.of.touched(batch)
        spare = table.shape[0] - self.of.clustering.num_items
        values = jnp.zeros((self.of.places(batch) + spare, table.shape[1]), table.dtype)
        trained = unflatten({**flatten(small.trained), VALUES: values})
        # The table in item order is only computed if something uses it; else XLA drops it.
        rest = {TABLE: in_item_order(self.of.clustering, table), ROWS: table, TOUCHED: touched}
        return Opened(self, split, small, touched, trained, unflatten({**flatten(frozen), **rest}))


def row_updates(
    how: ItemUpdates,
    of: ItemTable | None,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Mapping[str, Any],
    mesh: Mesh | None,
) -> RowUpdates | None:
    """Sparse updates for a run, if possible and worthwhile; None: update all rows.

    Args:
        how: see `TrainingOptions.item_updates`.
        of: the item table; None: there is none, or any of its rows may get gradients.
        optimizer: the run's.
        state: the first state.
        batch: a batch of the run.
        mesh: the run's.

    Raises:
        ValueError: 'lazy' is impossible; lists all reasons.
    """
    if how == "dense":
        return None
    by_row, table = getattr(optimizer, "by_row", None), flatten(state.trained).get(TABLE)
    problems = []
    if of is None:
        problems.append(
            "the loss may depend on every row of the item table: it is that of a full softmax, of a"
            " loss_fn, or of a model without such a table"
        )
    if table is None:
        problems.append(f"{TABLE}: is not trained")
    elif table.dtype != jnp.float32:
        problems.append(f"{TABLE}: found {table.dtype}, expected float32")
    if by_row is None:
        problems.append(
            "the optimizer cannot update single rows: expected adam, adamw, sgd, or praxis_adam"
            " with clip_threshold null, of create_optimizer without ema_decay"
        )
    if mesh is not None:
        problems.append("the run is on a mesh: expected one device")
    if how == "lazy" and problems:
        raise ValueError(listed("item_updates 'lazy'", problems))
    if problems or of is None or table is None or by_row is None:
        return None
    if how == "exact" and not (by_row.leaves(TABLE, table) and _pays(table, of.places(batch))):
        return None
    return RowUpdates(by_row, of)


def _pays(table: jax.Array, places: int) -> bool:
    """Whether the table is large, and at most half of its rows can be touched."""
    return table.size >= LARGE and 2 * places <= table.shape[-1]


class Opened(NamedTuple):
    """A step with sparse updates, prepared by `RowUpdates.opened`.

    Attributes:
        rows: how the table is updated.
        split: table and moments.
        state: the state without these.
        touched: the rows that the batch touches.
        trained: what is differentiated: the parameters without the table, and the array `VALUES`
            that receives the gradients of the touched rows.
        frozen: all else that the loss needs.
    """

    rows: RowUpdates
    split: Split
    state: TrainState
    touched: Touched
    trained: dict[str, Any]
    frozen: dict[str, Any]

    def updated(
        self, gradients: Mapping[str, Any], norm: jax.Array, taken: jax.Array
    ) -> tuple[dict[str, Any], Tables]:
        """(clipped gradients of the other parameters, updated table and moments).

        Args:
            gradients: gradients by `trained`.
            norm: float32 [], norm of all gradients together.
            taken: bool [], whether the step is taken.
        """
        by_row = self.rows.by_row
        found = flatten(gradients)
        values = found.pop(VALUES)
        found = {path: by_row.clip(norm, _norm(own), own) for path, own in found.items()}
        own = _norm(values)

        def stepped(part: jax.Array, rows: Tables) -> Tables:
            params = unflatten({TABLE: rows.table})
            updates, opt_state = by_row.update.update(
                unflatten({TABLE: by_row.clip(norm, own, part)}),
                self.split.state_of(self.state, rows.moments),
                params,
            )
            new = flatten(dict(optax.apply_updates(params, updates)))[TABLE]  # pyright: ignore[reportCallIssue, reportArgumentType]
            return Tables(new, self.split.moments_of(opt_state))

        tables = self._members(values, taken, stepped)
        return unflatten(found), self._others(values, taken, stepped, tables)

    def _members(self, values: jax.Array, taken: jax.Array, stepped: Stepped) -> Tables:
        """Update the members of touched clusters, block by block.

        Each turn of the loop writes the block that the turn before computed: XLA would copy the
        table if it were read and written in the same operation.
        """
        clustering = self.rows.of.clustering
        blocks = self.touched.blocks(clustering, values.shape[1])
        known = blocks.block(jnp.arange(blocks.most(values.shape[0])))

        def put(tables: Tables, at: jax.Array, new: Tables) -> Tables:
            return jax.tree.map(
                lambda x, rows: jax.lax.dynamic_update_slice_in_dim(x, in_vectors(rows), at, 0),
                tables,
                new,
            )

        def turn(number: jax.Array, carry: Any) -> Any:
            tables = put(*carry)
            block = jax.tree.map(lambda x: x[number], known)
            old = jax.tree.map(lambda x: _slice(x, block.row, blocks.rows), tables)
            new = stepped(_slice(values, block.place, blocks.rows), old)
            inside = (jnp.arange(blocks.rows) < block.length)[:, None]
            kept = jax.tree.map(lambda x, before: jnp.where(inside, x, before), new, old)
            return tables, block.row, kept

        spare = jnp.int32(clustering.num_items)  # the first turn writes what nobody reads
        none = jax.tree.map(
            lambda x: jnp.zeros((blocks.rows, x.shape[1]), x.dtype), self.split.tables
        )
        count = jnp.where(taken, blocks.total, 0)
        return put(*jax.lax.fori_loop(0, count, turn, (self.split.tables, spare, none)))

    def _others(
        self, values: jax.Array, taken: jax.Array, stepped: Stepped, tables: Tables
    ) -> Tables:
        """Update the input items that are in none of the touched clusters."""
        clustering, first = self.rows.of.clustering, self.touched.upto[-1]
        inputs = self.touched.inputs
        inputs = jnp.pad(inputs, (0, -len(inputs) % AT_ONCE), constant_values=clustering.num_items)

        def turn(number: jax.Array, tables: Tables) -> Tables:
            items = _slice(inputs, number * AT_ONCE, AT_ONCE)
            at = row_of(clustering, jnp.minimum(items, clustering.num_items - 1))
            at = jnp.where(items < clustering.num_items, at, tables.table.shape[0])
            part = take_rows(values, first + number * AT_ONCE + jnp.arange(AT_ONCE))
            rows = jax.tree.map(lambda x: take_rows(x, at), tables)
            new = stepped(part, rows)
            return jax.tree.map(lambda x, row: x.at[at].set(row, mode="drop"), tables, new)

        count = -(-jnp.where(taken, self.touched.taken - first, 0) // AT_ONCE)
        return jax.lax.fori_loop(0, count, turn, tables)

    def closed(self, state: TrainState, tables: Tables) -> TrainState:
        """The whole state after the step, with the updated table and moments."""
        return self.split.joined(state, tables)


def with_row_gradients(
    params: Mapping[str, Any], apply_fn: Callable[..., Any]
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """(the model's parameters, an `apply_fn` that also passes the collection `ROW_GRADIENTS`).

    Args:
        params: `trained` and `frozen` of `Opened`, merged.
        apply_fn: the model's.
    """
    params = dict(params)
    values = params.pop(ROW_GRADIENTS)

    def apply(variables: Mapping[str, Any], *args: Any, **named: Any) -> Any:
        return apply_fn({**variables, ROW_GRADIENTS: values}, *args, **named)

    return params, apply


def _slice(x: jax.Array, first: jax.Array, count: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, first, count)


def _norm(gradient: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(gradient.astype(jnp.float32))))
