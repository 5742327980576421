"""Parameters of a module, kernels among them, and the product of activations with a kernel.

Letters: D what is summed over, T rows, N results of a row.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors
from flax import linen as nn

from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import KernelAxes

FEW_ROWS = 256
FEW_RESULTS = 1 << 22  # T N; turning more costs what is won


def parameter(
    module: nn.Module,
    name: str,
    initial: Callable[..., jax.Array],
    shape: tuple[int, ...],
    *dtype: Any,
) -> jax.Array:
    """`module.param(name, initial, shape, *dtype)`, in less time where the parameter is there.

    To compare shapes, `param` traces the initialiser at each call: a sixth of the time that it
    takes to trace a decoder. Here the shape is known.

    Raises:
        flax.errors.ScopeParamShapeError: the parameter has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, initial, shape, *dtype)
    found = nn.unbox(module.get_variable("params", name))
    if found.shape != shape:
        raise errors.ScopeParamShapeError(name, "/".join(module.path), found.shape, shape)
    return found


def make_kernel(
    module: nn.Module, config: BackboneConfig, shape: tuple[int, ...], axis: int | None = 0
) -> jax.Array:
    """The parameter `kernel` of a module, as `kernel_axes` says; random values are the same ones.

    Args:
        module: what it belongs to.
        config: how kernels are stored.
        shape: with the axis of the input first, 'in_out'.
        axis: that of the input, which is the last where kernels are 'out_in'; None leaves it there.
    """
    initial = nn.initializers.xavier_uniform()
    if axis is None or config.kernel_axes == "in_out":
        return parameter(module, "kernel", initial, shape, jnp.dtype(config.param_dtype))

    def turned(key: jax.Array, stored: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        del stored
        return jnp.moveaxis(initial(key, shape, dtype), axis, -1)

    stored = (*shape[:axis], *shape[axis + 1 :], shape[axis])
    return parameter(module, "kernel", turned, stored, jnp.dtype(config.param_dtype))


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
