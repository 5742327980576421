"""Updates of those rows of the item table alone that a batch touches.

A step of a large table costs several passes over it, its gradient and its moments, though a batch
has gradients by few rows. Here the gradients by the touched rows lie one after another, and the
optimizer, which does to a row what it does to a table, is given these rows: the donated table is
changed in place. While a run goes on, table and moments lie cluster by cluster, as they are read
and written; `entered` and `left` lay them out.

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
AT_ONCE = 1024  # rows of an update of items here and there
LARGE = 1 << 22  # numbers of a table, 16 MiB: a pass over fewer costs little


# (Gradients, rows before) -> rows after the update.
Stepped = Callable[[jax.Array, Tables], Tables]


class ItemTable(NamedTuple):
    """What is known of a model's item table.

    Attributes:
        clustering: where each item belongs.
        touched: batch -> the rows that it has gradients by.
        places: batch -> as many places as they may have, by its shapes.
    """

    clustering: ClusteringInfo
    touched: Callable[[Mapping[str, Any]], Touched]
    places: Callable[[Mapping[str, Any]], int]


class RowUpdates(NamedTuple):
    """How the item table of a run is updated.

    Attributes:
        by_row: the optimizer.
        of: the table.
    """

    by_row: ByRow
    of: ItemTable

    def entered(self, state: TrainState) -> TrainState:
        """The state as the step takes it; the table and its moments are gone from the given one."""
        return laid_out(state, jax.jit(partial(in_row_order, self.of.clustering)), gone=True)

    def left(self, state: TrainState) -> TrainState:
        """The state as everything else takes it; the given one stays."""
        return laid_out(state, jax.jit(partial(in_item_order, self.of.clustering)), gone=False)

    def opened(
        self, state: TrainState, frozen: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> "Opened":
        """What a step differentiates and updates.

        Args:
            state: of `entered`.
            frozen: parameters without gradients.
            batch: of the step.
        """
        small, split = split_table(state)
        table, touched = split.tables.table, self.of.touched(batch)
        spare = table.shape[0] - self.of.clustering.num_items
        values = jnp.zeros((self.of.places(batch) + spare, table.shape[1]), table.dtype)
        trained = unflatten({**flatten(small.trained), VALUES: values})
        # What asks for the table in the order of the items gets it, and nothing is made otherwise.
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
    """How the item table is updated; None: with all of its rows, as all parameters are.

    Args:
        how: see `TrainingOptions.item_updates`.
        of: the table; None: there is none, or its gradient may have any rows.
        optimizer: of the run.
        state: to begin with.
        batch: of a step.
        mesh: of the run.

    Raises:
        ValueError: 'lazy' cannot be, with all the reasons.
    """
    if how == "dense":
        return None
    by_row, table = getattr(optimizer, "by_row", None), flatten(state.trained).get(TABLE)
    problems = []
    if of is None:
        problems.append(
            "the loss has gradients by all rows, or by rows that nobody knows: it is that of a full"
            " softmax, of a loss_fn, or of a model without an item table"
        )
    if table is None:
        problems.append(f"{TABLE}: is not trained")
    elif table.dtype != jnp.float32:
        problems.append(f"{TABLE}: found {table.dtype}, expected float32")
    if by_row is None:
        problems.append(
            "the optimizer does not go row by row: expected adam, adamw, sgd, or praxis_adam with"
            " clip_threshold null, of create_optimizer without ema_decay"
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
    """Whether few of many rows are touched."""
    return table.size >= LARGE and 2 * places <= table.shape[-1]


class Opened(NamedTuple):
    """A step that is about to be taken.

    Attributes:
        rows: how.
        split: table and moments.
        state: without them.
        touched: by the batch.
        trained: what has gradients: the parameters without the table, and the values.
        frozen: what else the loss needs.
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
        """(Clipped gradients of the parameters without the table, table and moments after it).

        Args:
            gradients: by `trained`.
            norm: float32 [], of them all.
            taken: bool [], whether there is a step.
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
        """Table and moments after the update of the members of touched clusters, block by block.

        A turn writes what the one before it made: XLA would copy a table that it reads in the
        operation which writes it.
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
        """The tables after the update of items of the input beside those members."""
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
        """The whole state after the step."""
        return self.split.joined(state, tables)


def with_row_gradients(
    params: Mapping[str, Any], apply_fn: Callable[..., Any]
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """(The model's parameters, a function that gives it the values beside them).

    Args:
        params: those of `Opened`, `trained` and `frozen` together.
        apply_fn: of the model.
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
