"""What experts make of the rows that are theirs, at the cost of these rows alone.

Rows lie sorted by expert; experts may have none, and rows behind those of the last belong to none.
On accelerators each product is XLA's `ragged_dot`. On CPUs that multiplies all rows by all kernels,
so there a loop goes over the experts that have rows, a block of rows at a time, and the backward
pass makes again what was between, block by block.

Letters: R rows of tokens, M places of sorted rows, X experts, D width of a row.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config.parts import KernelAxes

Weights = dict[str, jax.Array]  # of experts, each with a leading axis X; of one expert, without
Product = Callable[[jax.Array, str], jax.Array]  # rows and a name -> rows times that kernel
Expert = Callable[[jax.Array, Product, Product], jax.Array]  # (rows, product, bias of each row)
Sums = tuple[jax.Array, Weights]  # gradients of rows and of weights
LEAST, MOST = 4, 256  # rows of a block: products of fewer are slow, of more are padding
PARTS = 4  # small blocks in one, for what is left of an expert's rows


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
        expert: `expert(rows, product, bias)`, where `product(rows, name)` multiplies by a kernel
            and `bias(rows, name)` is what is to be added; it goes row by row.
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
    out = expert(
        x[index],
        lambda rows, name: ragged_product(rows, weights[name].astype(rows.dtype), sizes, axes),
        lambda rows, name: weights[name].astype(rows.dtype)[owners],
    )
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
    places = _padded(index, sizes.shape[0])

    def one(group: jax.Array, start: jax.Array, size: jax.Array, out: jax.Array) -> jax.Array:
        own = _of(weights, group, x.dtype)

        def block(rows: int, at: jax.Array, left: jax.Array, out: jax.Array) -> jax.Array:
            given = x[jax.lax.dynamic_slice(places, (at,), (rows,))]
            found = _run(expert, axes, given, own)
            # What a block writes behind its expert's rows is written again by the next one.
            return jax.lax.dynamic_update_slice(out, found, (at, 0))

        return _blocks(start, size, _block(index.shape[0], sizes.shape[0]), block, out)

    out = _experts(sizes, one, jnp.zeros((places.shape[0], x.shape[1]), x.dtype))
    out = out[: index.shape[0]]
    return jnp.where((jnp.arange(index.shape[0]) < jnp.sum(sizes))[:, None], out, 0)


def _forward(
    expert: Expert,
    axes: KernelAxes,
    x: jax.Array,
    index: jax.Array,
    sizes: jax.Array,
    weights: Weights,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array, Weights]]:
    return _by_blocks(expert, axes, x, index, sizes, weights), (x, index, sizes, weights)


def _backward(
    expert: Expert,
    axes: KernelAxes,
    kept: tuple[jax.Array, jax.Array, jax.Array, Weights],
    gradient: jax.Array,
) -> tuple[jax.Array, Any, Any, Weights]:
    x, index, sizes, weights = kept
    places = _padded(index, sizes.shape[0])
    gradient = jnp.pad(gradient, ((0, places.shape[0] - index.shape[0]), (0, 0)))

    def one(group: jax.Array, start: jax.Array, size: jax.Array, state: Sums) -> Sums:
        own = _of(weights, group, x.dtype)

        def block(rows: int, at: jax.Array, left: jax.Array, state: Sums) -> Sums:
            given = x[jax.lax.dynamic_slice(places, (at,), (rows,))]
            wanted = jax.lax.dynamic_slice(gradient, (at, 0), (rows, gradient.shape[1]))
            wanted = jnp.where((jnp.arange(rows) < left)[:, None], wanted, 0)
            back = jax.vjp(lambda r, w: _run(expert, axes, r, w), given, own)[1]
            to_rows, to_own = back(wanted)
            out, sums = state
            out = jax.lax.dynamic_update_slice(out, to_rows, (at, 0))
            return out, jax.tree.map(jnp.add, sums, to_own)

        out, sums = state
        zeros = jax.tree.map(jnp.zeros_like, own)
        size_of_block = _block(index.shape[0], sizes.shape[0])
        out, found = _blocks(start, size, size_of_block, block, (out, zeros))
        put = partial(jax.lax.dynamic_update_index_in_dim, index=group, axis=0)
        return out, jax.tree.map(lambda s, f: put(s, f.astype(s.dtype)), sums, found)

    nothing = (jnp.zeros_like(gradient), jax.tree.map(jnp.zeros_like, weights))
    out, sums = _experts(sizes, one, nothing)
    inside = (jnp.arange(index.shape[0]) < jnp.sum(sizes))[:, None]
    out = jnp.where(inside, out[: index.shape[0]], 0)
    to_x = jnp.zeros_like(x).at[index].add(out)
    none = partial(np.zeros, dtype=jax.dtypes.float0)
    return to_x, none(index.shape), none(sizes.shape), sums


_by_blocks.defvjp(_forward, _backward)


def _run(expert: Expert, axes: KernelAxes, rows: jax.Array, own: Weights) -> jax.Array:
    """An expert on rows that are all its own."""
    inner = (((1,), (0 if axes == "in_out" else 1,)), ((), ()))
    return expert(
        rows,
        lambda given, name: jax.lax.dot_general(given, own[name], inner),
        lambda given, name: own[name],
    )


def _of(weights: Weights, group: jax.Array, dtype: Any) -> Weights:
    """The weights of one expert."""
    take = partial(jax.lax.dynamic_index_in_dim, index=group, keepdims=False)
    return {name: take(values).astype(dtype) for name, values in weights.items()}


def _block(places: int, experts: int) -> int:
    """Rows of a block: about what an expert has on average."""
    share = max(places // experts, 1)
    return min(max(1 << (share.bit_length() - 1), LEAST), MOST)


def _padded(index: jax.Array, experts: int) -> jax.Array:
    """The index with room for the last block."""
    return jnp.pad(index, (0, _block(index.shape[0], experts)))


def _experts(sizes: jax.Array, one: Any, state: Any) -> Any:
    """`state = one(expert, its first place, its size, state)` of all that have rows, in order."""
    starts = jnp.cumsum(sizes) - sizes
    order = jnp.argsort(sizes == 0, stable=True)

    def step(number: jax.Array, state: Any) -> Any:
        group = order[number]
        return one(group, starts[group], sizes[group], state)

    return jax.lax.fori_loop(0, jnp.sum(sizes > 0), step, state)


def _blocks(start: jax.Array, size: jax.Array, block: int, run: Any, state: Any) -> Any:
    """`state = run(rows, first place, rows that are left, state)` over an expert's places.

    In whole blocks, and for a rest of up to half a block in small ones.
    """
    small = block // PARTS
    whole = (size + block // 2 - 1) // block
    rest = jnp.maximum(size - whole * block, 0)

    def walk(rows: int, first: jax.Array, count: jax.Array, state: Any) -> Any:
        def step(number: jax.Array, state: Any) -> Any:
            done = first + number * rows
            return run(rows, start + done, size - done, state)

        return jax.lax.fori_loop(0, count, step, state)

    state = walk(block, jnp.zeros_like(size), whole, state)
    return walk(small, whole * block, (rest + small - 1) // small, state)
