"""The experts' MLPs, each on its own rows only.

Rows are sorted by expert; an expert may have none, and rows after the last expert's belong to none.
On accelerators each product is XLA's `ragged_dot`. On CPUs that would multiply all rows by all
kernels. So there the first C rows of all experts are multiplied in one batched product, where C is
a number that an expert seldom exceeds if tokens are distributed evenly. A loop handles further
rows, a block at a time; if experts have few rows each, it handles all rows. For the backward pass
the results of the batched products are stored, as in a dense MLP; those of the loop are recomputed.

Letters: R rows of tokens, M places of sorted rows, X experts, C rows of each in the batched
product, D width of a row, F hidden width of an expert.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.experts.blocks import (
    over_blocks,
    over_experts,
    rows_of_block,
)
from efficientids_flax.config.parts import KernelAxes

Weights = dict[str, jax.Array]  # parameters with a leading axis X; of a single expert, without it
DOWN = "down"  # name of the last kernel
FEW, MANY = 8, 320  # with fewer or more rows per expert, all rows go through the loop
# einsum of all experts' products: forward, gradient by rows, gradient by kernels.
PRODUCTS: dict[KernelAxes, tuple[str, str, str]] = {
    "in_out": ("...ci,...io->...co", "...co,...io->...ci", "...ci,...co->...io"),
    "out_in": ("...ci,...oi->...co", "...co,...oi->...ci", "...ci,...co->...oi"),
}


class Expert(NamedTuple):
    """`down(hidden(first(rows), ...))`; a `*_bias` among the weights is added to its product.

    Attributes:
        first: names of the kernels that the rows are multiplied with.
        hidden: maps their products to the hidden activations, row by row.
    """

    first: tuple[str, ...]
    hidden: Callable[..., jax.Array]


class Kept(NamedTuple):
    """Residuals for the backward pass; `first` are the batched products, [X, C, F] each."""

    x: jax.Array
    rows: jax.Array  # the index
    sizes: jax.Array
    weights: Weights
    first: tuple[jax.Array, ...]


def feed(
    expert: Expert,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
    axes: KernelAxes,
    mean: float | None = None,
) -> jax.Array:
    """Apply to each sorted row the MLP of its expert: [M, D].

    Args:
        expert: the function that an expert computes.
        x: [R, D], in the dtype of the computation.
        index: int [M], the row of `x` at each place.
        sizes: int [X], number of places of each expert; M in total, or less.
        weights: name -> [X, ...], kernels and biases; cast to the dtype of `x`.
        axes: how kernels are stored.
        mean: mean number of places of an expert if distributed evenly; None: M / X.

    Returns:
        [M, D], in the dtype of `x`; zeros after the last expert's rows.
    """
    if jax.default_backend() == "cpu":
        mean = index.shape[0] / sizes.shape[0] if mean is None else mean
        together = min(math.ceil((mean + 2 * math.sqrt(mean)) / 8) * 8, index.shape[0])
        together = 0 if mean < FEW else together
        return _by_parts(expert, axes, together, x, index, sizes, weights)
    owners = jnp.repeat(jnp.arange(sizes.shape[0]), sizes, total_repeat_length=index.shape[0])

    def times(rows: jax.Array, name: str) -> jax.Array:
        found = ragged_product(rows, weights[name].astype(rows.dtype), sizes, axes)
        bias = weights.get(f"{name}_bias")
        return found if bias is None else found + bias.astype(rows.dtype)[owners]

    rows = x[index]
    out = times(expert.hidden(*(times(rows, name) for name in expert.first)), DOWN)
    return jnp.where((jnp.arange(index.shape[0]) < jnp.sum(sizes))[:, None], out, 0)


def ragged_product(
    rows: jax.Array, kernels: jax.Array, sizes: jax.Array, axes: KernelAxes
) -> jax.Array:
    """Each row times the kernel of its group: [M, D], [X, D, F] ('out_in': [X, F, D]) -> [M, F]."""
    inner = 1 if axes == "in_out" else 2
    numbers = jax.lax.RaggedDotDimensionNumbers((((1,), (inner,)), ((), ())), [0], [0])
    return jax.lax.ragged_dot_general(rows, kernels, sizes, numbers)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _by_parts(
    expert: Expert,
    axes: KernelAxes,
    together: int,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
) -> jax.Array:
    """`feed` with the first `together` rows of each expert in one product, the others in blocks.

    Without gradients, many rows are computed in blocks too, since these fit the processor's cache.
    """
    together = together if together <= MANY else 0
    return _forward(expert, axes, together, x, index, sizes, weights)[0]


def _forward(
    expert: Expert,
    axes: KernelAxes,
    together: int,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
) -> tuple[jax.Array, Kept]:
    block = rows_of_block(index.shape[0], sizes.shape[0])
    places, own = jnp.pad(index, (0, block)), _cast(weights, x.dtype)
    out, first = jnp.zeros((places.shape[0], x.shape[1]), x.dtype), ()
    if together:
        rows = _first_rows(x, sizes, together, index)
        first = tuple(_times(rows, own, name, axes) for name in expert.first)
        out = _at_places(_times(expert.hidden(*first), own, DOWN, axes), sizes, places.shape[0])

    def one(group: jax.Array, at: jax.Array, left: jax.Array, out: jax.Array) -> jax.Array:
        mine = _of(own, group)

        def run(rows: int, at: jax.Array, left: jax.Array, out: jax.Array) -> jax.Array:
            given = x[jax.lax.dynamic_slice(places, (at,), (rows,))]
            made = expert.hidden(*(_times(given, mine, name, axes) for name in expert.first))
            return _put(out, _times(made, mine, DOWN, axes), at, left)

        return over_blocks(at, left, block, run, out)

    out = over_experts(jnp.maximum(sizes - together, 0), one, out, _starts(sizes) + together)
    return out[: index.shape[0]], Kept(x, index, sizes, weights, first)


def _backward(
    expert: Expert, axes: KernelAxes, together: int, kept: Kept, gradient: jax.Array
) -> tuple[jax.Array, Any, Any, Weights]:
    x, index, sizes, weights, first = kept
    block = rows_of_block(index.shape[0], sizes.shape[0])
    places, own = jnp.pad(index, (0, block)), _cast(weights, x.dtype)
    padded = jnp.pad(gradient, ((0, block), (0, 0)))

    def back(
        rows: jax.Array, first: tuple[jax.Array, ...], wanted: jax.Array, mine: Weights
    ) -> tuple[jax.Array, Weights]:
        """Gradients by rows and weights, given those by the results."""
        hidden, to_products = jax.vjp(expert.hidden, *first)
        to_first = to_products(_back_times(wanted, mine, DOWN, axes))
        parts = list(zip(to_first, expert.first, strict=True))
        to_rows = reduce(jnp.add, (_back_times(values, mine, name, axes) for values, name in parts))
        sums = {name: _outer(rows, values, axes) for values, name in parts}
        sums[DOWN] = _outer(hidden, wanted, axes)
        for values, name in (*parts, (wanted, DOWN)):
            if f"{name}_bias" in mine:
                sums[f"{name}_bias"] = jnp.sum(values, axis=-2)
        return to_rows, sums

    if together:
        rows = _first_rows(x, sizes, together, index)
        wanted = _first_rows(gradient, sizes, together, jnp.arange(index.shape[0]))
        found, sums = back(rows, first, wanted, own)
        to_rows = _at_places(found, sizes, places.shape[0])
    else:
        to_rows, sums = jnp.zeros_like(padded), jax.tree.map(jnp.zeros_like, own)

    def one(group: jax.Array, at: jax.Array, left: jax.Array, state: Any) -> Any:
        mine = _of(own, group)

        def run(rows: int, at: jax.Array, left: jax.Array, state: Any) -> Any:
            to_rows, sums = state
            inside = (jnp.arange(rows) < left)[:, None]
            given = jnp.where(inside, x[jax.lax.dynamic_slice(places, (at,), (rows,))], 0)
            wanted = jax.lax.dynamic_slice(padded, (at, 0), (rows, padded.shape[1]))
            products = tuple(_times(given, mine, name, axes) for name in expert.first)
            found, more = back(given, products, jnp.where(inside, wanted, 0), mine)
            sums = {name: sums[name].at[group].add(value) for name, value in more.items()}
            return _put(to_rows, found, at, left), sums

        return over_blocks(at, left, block, run, state)

    rest = jnp.maximum(sizes - together, 0)
    to_rows, sums = over_experts(rest, one, (to_rows, sums), _starts(sizes) + together)
    to_x = jnp.zeros_like(x).at[index].add(to_rows[: index.shape[0]])
    none = partial(np.zeros, dtype=jax.dtypes.float0)
    sums = {name: value.astype(weights[name].dtype) for name, value in sums.items()}
    return to_x, none(index.shape), none(sizes.shape), sums


_by_parts.defvjp(_forward, _backward)


def _starts(sizes: jax.Array) -> jax.Array:
    """Each expert's first place."""
    return jnp.cumsum(sizes) - sizes


def _first_rows(values: jax.Array, sizes: jax.Array, count: int, index: jax.Array) -> jax.Array:
    """The first C rows of each expert, padded with zeros: [R, I], int [M] -> [X, C, I]."""
    inside = (jnp.arange(count) < sizes[:, None])[..., None]
    at = jnp.minimum(_starts(sizes)[:, None] + jnp.arange(count), index.shape[0] - 1)
    return jnp.where(inside, values[index[at]], 0)


def _at_places(values: jax.Array, sizes: jax.Array, count: int) -> jax.Array:
    """Scatter each expert's rows to their places, zeros elsewhere: [X, C, I] -> [count, I]."""
    experts, together = values.shape[:2]
    owner = jnp.repeat(jnp.arange(experts), sizes, total_repeat_length=count)
    number = jnp.arange(count) - _starts(sizes)[owner]
    there = (number < together) & (jnp.arange(count) < jnp.sum(sizes))
    at = jnp.where(there, owner * together + number, 0)
    return jnp.where(there[:, None], values.reshape(-1, values.shape[-1])[at], 0)


def _times(rows: jax.Array, own: Weights, name: str, axes: KernelAxes) -> jax.Array:
    """Rows times a kernel, plus its bias; for one expert, or for all."""
    found = jnp.einsum(PRODUCTS[axes][0], rows, own[name])
    bias = own.get(f"{name}_bias")
    return found if bias is None else found + bias[..., None, :]


def _back_times(rows: jax.Array, own: Weights, name: str, axes: KernelAxes) -> jax.Array:
    """The gradient by the rows, given that by their product with a kernel."""
    return jnp.einsum(PRODUCTS[axes][1], rows, own[name])


def _outer(rows: jax.Array, values: jax.Array, axes: KernelAxes) -> jax.Array:
    """The gradient by the kernel, given that by its product with rows."""
    return jnp.einsum(PRODUCTS[axes][2], rows, values)


def _put(whole: jax.Array, some: jax.Array, at: jax.Array, left: jax.Array) -> jax.Array:
    """Write the first `left` rows of `some` into `whole`, from `at` on."""
    before = jax.lax.dynamic_slice(whole, (at, 0), some.shape)
    some = jnp.where((jnp.arange(some.shape[0]) < left)[:, None], some, before)
    return jax.lax.dynamic_update_slice(whole, some, (at, 0))


def _cast(weights: Weights, dtype: Any) -> Weights:
    return {name: values.astype(dtype) for name, values in weights.items()}


def _of(weights: Weights, group: jax.Array) -> Weights:
    """The weights of one expert."""
    take = partial(jax.lax.dynamic_index_in_dim, index=group, keepdims=False)
    return {name: take(values) for name, values in weights.items()}
