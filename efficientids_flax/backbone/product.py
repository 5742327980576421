"""The product of activations with a kernel.

Letters: D what is summed over, T rows, N results of a row.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from efficientids_flax.config.parts import KernelAxes

FEW_ROWS = 256
FEW_RESULTS = 1 << 22  # T N; turning more costs what is won


def product(
    x: jax.Array, kernel: jax.Array, dtype: Any = None, axes: KernelAxes = "in_out"
) -> jax.Array:
    """The last axis of `x` against that of the input of `kernel`: [..., D] -> [..., *outs].

    As one product of two matrices: where there are more axes, XLA's CPU backend copies the operands
    of the backward pass (an eighth of the time of a gradient step).

    Args:
        x: any leading axes.
        kernel: [D, *outs] or, where `axes` is 'out_in', [*outs, D].
        dtype: of the result; None for that of the operands.
        axes: of the kernel.
    """
    rows = x.reshape(-1, x.shape[-1])
    if axes == "in_out":
        outs, matrix, own = kernel.shape[1:], kernel.reshape(kernel.shape[0], -1), 0
    else:
        outs, matrix, own = kernel.shape[:-1], kernel.reshape(-1, kernel.shape[-1]), 1
    few = len(rows) <= FEW_ROWS and len(rows) * np.prod(outs, dtype=int) <= FEW_RESULTS
    if few and own and jax.default_backend() == "cpu":
        found = _kernel_first(rows, matrix, dtype)
    else:
        found = _rows_first(rows, matrix, own, dtype)
    return found.reshape(*x.shape[:-1], *outs)


def _rows_first(rows: jax.Array, matrix: jax.Array, own: int, dtype: Any) -> jax.Array:
    """[T, D] and a kernel, whose axis `own` is D -> [T, N]."""
    dimensions = (((1,), (own,)), ((), ()))
    return jax.lax.dot_general(rows, matrix, dimensions, preferred_element_type=dtype)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _kernel_first(rows: jax.Array, matrix: jax.Array, dtype: Any) -> jax.Array:
    """[T, D], [N, D] -> [T, N], where XLA's CPU backend would else lay out the kernel anew.

    It lays out the second operand for each product: with the kernel first a product of 8 rows takes
    a half to a third of the time, one of 128 rows 5 % less. The barriers keep the compiler from
    exchanging the operands again. Of a differentiated product the backward pass would take longer,
    so that is made as any other.
    """
    columns = jax.lax.optimization_barrier(rows.T)
    dimensions = (((1,), (0,)), ((), ()))
    found = jax.lax.dot_general(matrix, columns, dimensions, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(found).T


@_kernel_first.defjvp
def _kernel_first_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(lambda rows, matrix: _rows_first(rows, matrix, 1, dtype), primals, tangents)
