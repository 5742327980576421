"""A parameter of a module, without tracing its initialiser wherever the model is traced."""

from collections.abc import Callable
from typing import Any

import jax
from flax import errors
from flax import linen as nn


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
