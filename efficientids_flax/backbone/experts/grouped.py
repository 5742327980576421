"""What experts make of the rows that are theirs, at the cost of these rows alone.

Rows lie sorted by expert; experts may have none, and rows behind those of the last belong to none.
On accelerators each product is XLA's `ragged_dot`. On CPUs that multiplies all rows by all kernels,
so there a loop goes over the experts that have rows, a block of rows at a time. For the backward
pass the results of the first products are kept, as those of a dense MLP are.

Letters: R rows of tokens, M places of sorted rows, X experts, D width of a row, F hidden width of
an expert.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.experts.blocks import (
    over_blocks,
    over_experts,
    padded,
    rows_of_block,
)
from efficientids_flax.config.parts import KernelAxes

Weights = dict[str, jax.Array]  # of experts, each with a leading axis X; of one expert, without
DOWN = "down"  # name of the last kernel


class Expert(NamedTuple):
    """`down(hidden(first(rows), ...))`; where weights have a `*_bias`, it is added to a product.

    Attributes:
        first: names of the kernels that the rows are multiplied by.
        hidden: what is made of their products, row by row.
    """

    first: tuple[str, ...]
    hidden: Callable[..., jax.Array]


class Kept(NamedTuple):
    """What the backward pass is made of; `first` are the products, [M, F] each."""

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
) -> jax.Array:
    """`expert` of each sorted row with its own weights: [M, D].

    Args:
        expert: what it computes of its rows.
        x: [R, D], of the dtype of the computation.
        index: int [M], which row of `x` lies at each place.
        sizes: int [X], how many places each expert has; M in all, or less.
        weights: name -> [X, ...], kernels and biases; cast to the dtype of `x`.
        axes: of the kernels.

    Returns:
        [M, D], of the dtype of `x`; zeros behind the last expert's rows.
    """
    if jax.default_backend() == "cpu":
        return _by_blocks(expert, axes, x, index, sizes, weights)
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


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_blocks(
    expert: Expert,
    axes: KernelAxes,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
) -> jax.Array:
    """`feed`, an expert after the other."""
    return _through(expert, axes, x, index, sizes, weights, False)[0]


def _forward(
    expert: Expert,
    axes: KernelAxes,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
) -> tuple[jax.Array, Kept]:
    out, first = _through(expert, axes, x, index, sizes, weights, True)
    return out, Kept(x, index, sizes, weights, first)


def _through(
    expert: Expert,
    axes: KernelAxes,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
    keep: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """What the experts make of the rows, and their first products if they are to be kept."""
    places = padded(index, sizes.shape[0])
    size_of_block = rows_of_block(index.shape[0], sizes.shape[0])

    def one(group: jax.Array, start: jax.Array, size: jax.Array, state: Any) -> Any:
        own = _of(weights, group, x.dtype)

        def block(rows: int, at: jax.Array, left: jax.Array, state: Any) -> Any:
            given = x[jax.lax.dynamic_slice(places, (at,), (rows,))]
            first = tuple(_times(given, own, name, axes) for name in expert.first)
            found = _times(expert.hidden(*first), own, DOWN, axes)
            # What a block writes behind its expert's rows is written again by the next one.
            return _put(state, (found, first if keep else ()), at)

        return over_blocks(start, size, size_of_block, block, state)

    shape = (places.shape[0], _width(weights, expert.first[0], axes))
    kept = tuple(jnp.zeros(shape, x.dtype) for _ in expert.first) if keep else ()
    start = (jnp.zeros((places.shape[0], x.shape[1]), x.dtype), kept)
    out, first = over_experts(sizes, one, start)
    out = out[: index.shape[0]]
    return jnp.where((jnp.arange(index.shape[0]) < jnp.sum(sizes))[:, None], out, 0), first


def _backward(
    expert: Expert, axes: KernelAxes, kept: Kept, gradient: jax.Array
) -> tuple[jax.Array, Any, Any, Weights]:
    x, index, sizes, weights, products = kept
    places = padded(index, sizes.shape[0])
    gradient = jnp.pad(gradient, ((0, places.shape[0] - index.shape[0]), (0, 0)))
    size_of_block = rows_of_block(index.shape[0], sizes.shape[0])

    def one(group: jax.Array, start: jax.Array, size: jax.Array, state: Any) -> Any:
        own = _of(weights, group, x.dtype)

        def block(rows: int, at: jax.Array, left: jax.Array, state: Any) -> Any:
            wanted, *first = (
                jax.lax.dynamic_slice(values, (at, 0), (rows, values.shape[1]))
                for values in (gradient, *products)
            )
            wanted = jnp.where((jnp.arange(rows) < left)[:, None], wanted, 0)
            hidden, back = jax.vjp(expert.hidden, *first)
            to_first = back(_back_times(wanted, own, DOWN, axes))
            parts = zip(to_first, expert.first, strict=True)
            to_rows = sum(_back_times(values, own, name, axes) for values, name in parts)
            return _put(state, (to_rows, hidden, to_first), at)

        return over_blocks(start, size, size_of_block, block, state)

    nothing = (jnp.zeros_like(gradient), jnp.zeros_like(products[0]), products)
    nothing = jax.tree.map(jnp.zeros_like, nothing)
    to_rows, hidden, to_first = over_experts(sizes, one, nothing)
    inside = (jnp.arange(index.shape[0]) < jnp.sum(sizes))[:, None]
    to_x = jnp.zeros_like(x).at[index].add(jnp.where(inside, to_rows[: index.shape[0]], 0))
    given, sums = x[places], {}
    pairs = {name: (given, values) for name, values in zip(expert.first, to_first, strict=True)}
    for name, (rows, values) in {**pairs, DOWN: (hidden, gradient)}.items():
        both = (rows, values) if axes == "in_out" else (values, rows)
        sums[name] = _sums(*both, sizes, size_of_block).astype(weights[name].dtype)
        if (bias := weights.get(f"{name}_bias")) is not None:
            ones = jnp.ones((rows.shape[0], 1), x.dtype)
            sums[f"{name}_bias"] = _sums(ones, values, sizes, size_of_block)[:, 0].astype(
                bias.dtype
            )
    none = partial(np.zeros, dtype=jax.dtypes.float0)
    return to_x, none(index.shape), none(sizes.shape), sums


_by_blocks.defvjp(_forward, _backward)


def _sums(left: jax.Array, right: jax.Array, sizes: jax.Array, block: int) -> jax.Array:
    """The sum over an expert's rows of outer products: [M, I], [M, O] -> [X, I, O].

    The first rows of all experts in one product, which writes the result as it is: as many rows as
    an expert seldom has more of where they are drawn evenly. What some have more is added, `block`
    rows at a time; so many lie behind the last one's.
    """
    count, places = sizes.shape[0], left.shape[0]
    mean = places / count
    most = min(places, math.ceil((mean + 2 * math.sqrt(mean)) / 8) * 8)
    starts = jnp.cumsum(sizes) - sizes
    inside = (jnp.arange(most) < sizes[:, None])[..., None]
    at = jnp.minimum(starts[:, None] + jnp.arange(most), places - 1)
    first = [jnp.where(inside, values[at], 0) for values in (left, right)]
    found = jnp.einsum("xci,xco->xio", *first)

    def one(group: jax.Array, start: jax.Array, size: jax.Array, found: jax.Array) -> jax.Array:
        def run(rows: int, at: jax.Array, left_over: jax.Array, found: jax.Array) -> jax.Array:
            mine = (jnp.arange(rows) < left_over)[:, None]
            some = [
                jnp.where(mine, jax.lax.dynamic_slice(v, (at, 0), (rows, v.shape[1])), 0)
                for v in (left, right)
            ]
            return found.at[group].add(jnp.einsum("ci,co->io", *some))

        return over_blocks(start, size, block, run, found)

    return over_experts(jnp.maximum(sizes - most, 0), one, found, starts + most)


def _times(rows: jax.Array, own: Weights, name: str, axes: KernelAxes) -> jax.Array:
    """Rows times a kernel, and its bias."""
    found = jax.lax.dot_general(
        rows, own[name], (((1,), (0 if axes == "in_out" else 1,)), ((), ()))
    )
    bias = own.get(f"{name}_bias")
    return found if bias is None else found + bias


def _back_times(rows: jax.Array, own: Weights, name: str, axes: KernelAxes) -> jax.Array:
    """What a gradient of the product is one of its rows."""
    outer = 1 if axes == "in_out" else 0
    return jax.lax.dot_general(rows, own[name], (((1,), (outer,)), ((), ())))


def _width(weights: Weights, name: str, axes: KernelAxes) -> int:
    return weights[name].shape[2 if axes == "in_out" else 1]


def _put(state: Any, values: Any, at: jax.Array) -> Any:
    """Rows of each array of `state`, from `at` on, are `values`."""
    return jax.tree.map(
        lambda whole, some: jax.lax.dynamic_update_slice(whole, some, (at, 0)), state, values
    )


def _of(weights: Weights, group: jax.Array, dtype: Any) -> Weights:
    """The weights of one expert."""
    take = partial(jax.lax.dynamic_index_in_dim, index=group, keepdims=False)
    return {name: take(values).astype(dtype) for name, values in weights.items()}
