"""Modules in one program a call: op by op, XLA compiles some hundred small ones for a test.

What checks the values of its arguments sees none of them here; test it on the module itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn


def applied(
    module: nn.Module, variables: Any, *args: Any, method: str | Callable = "__call__", **named: Any
) -> Any:
    """`module.apply(...)`: arrays are arguments of the program, all else is fixed in it."""
    arrays = {name: value for name, value in named.items() if _is_of_arrays(value)}
    fixed = {name: value for name, value in named.items() if name not in arrays}
    options = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in fixed.items())
    return _applied(module, method, options, variables, args, arrays)


def compiled(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The optimizer with one program for its start and one for a step."""
    return optax.GradientTransformationExtraArgs(jax.jit(optimizer.init), jax.jit(optimizer.update))


def _is_of_arrays(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _applied(
    module: nn.Module,
    method: str | Callable,
    options: tuple[tuple[str, Any], ...],
    variables: Any,
    args: tuple[Any, ...],
    arrays: dict[str, Any],
) -> Any:
    return module.apply(variables, *args, method=method, **arrays, **dict(options))
