"""Making parameters, kernels in particular, and multiplying activations with a kernel.

Letters: D contracted axis, T rows, N results of a row.
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
FEW_RESULTS = 1 << 22  # T N; for more, transposing costs as much as it gains


def parameter(
    module: nn.Module,
    name: str,
    initial: Callable[..., jax.Array],
    shape: tuple[int, ...],
    *dtype: Any,
) -> jax.Array:
    """`module.param(name, initial, shape, *dtype)`, faster if the parameter exists.

    To compare shapes, `param` traces the initialiser at each call, which takes a sixth of the time
    of tracing a decoder. Here shapes are compared directly.

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
    """The parameter `kernel` of a module, stored as `kernel_axes` says.

    Both ways of storing start from the same random values.

    Args:
        module: the module.
        config: how kernels are stored.
        shape: shape under 'in_out'.
        axis: the input axis, which 'out_in' moves to the end; None: do not move it.
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
    """Contract the last axis of `x` with the input axis of `kernel`: [..., D] -> [..., *outs].

    Computed as one product of two matrices: with more axes, XLA's CPU backend copies the operands
    of the backward pass (an eighth of the time of a gradient step).

    Args:
        x: [..., D].
        kernel: [D, *outs] or, if `axes` is 'out_in', [*outs, D].
        dtype: dtype of the result; None: that of the operands.
        axes: how the kernel is stored.
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
    """Multiply [T, D] with a kernel whose axis `own` is D: [T, N]."""
    dimensions = (((1,), (own,)), ((), ()))
    return jax.lax.dot_general(rows, matrix, dimensions, preferred_element_type=dtype)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _kernel_first(rows: jax.Array, matrix: jax.Array, dtype: Any) -> jax.Array:
    """[T, D], [N, D] -> [T, N], with the kernel as first operand, for few rows on CPUs.

    XLA's CPU backend copies the second operand into another layout for each product. With the
    kernel first, a product of 8 rows takes a half to a third of the time, one of 128 rows 5 % less.
    The barriers keep the compiler from swapping the operands back. The backward pass would take
    longer this way, so a differentiated product uses the usual order.
    """
    columns = jax.lax.optimization_barrier(rows.T)
    dimensions = (((1,), (0,)), ((), ()))
    found = jax.lax.dot_general(matrix, columns, dimensions, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(found).T


@_kernel_first.defjvp
def _kernel_first_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(lambda rows, matrix: _rows_first(rows, matrix, 1, dtype), primals, tangents)
