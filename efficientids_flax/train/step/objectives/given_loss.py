"""Objectives of any Linen or NNX module, with the caller's loss function."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from efficientids_flax.train.batches import rows_of
from efficientids_flax.train.step.evaluation_mode import intercept
from efficientids_flax.train.step.function import LossFn, NamedBatch
from efficientids_flax.train.step.mean import Means
from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.train.step.objectives.parts import Batch, Objective, Sums, streams
from efficientids_flax.train.step.returned import WEIGHT, returned


def of_linen(module: nn.Module, loss_fn: LossFn) -> Objective:
    """Objective of a Linen module; it is initialised by the call that the loss function makes."""
    sums, init = _sums_of_loss(module, loss_fn), _init_by_loss(module, loss_fn)
    return Objective(module, loss_fn, sums, init, None, False)


def of_nnx(module: nnx.Module, loss_fn: LossFn) -> Objective:
    """Objective of an NNX module, which holds its parameters already."""
    bridge = NNXBridge(module)
    sums = _sums_of_loss(bridge.evaluating(), loss_fn)
    return Objective(
        bridge, bridge.drawing(loss_fn), sums, lambda rng, batch: bridge.variables, None, False,
        bridge.variables["params"],
    )  # fmt: skip


def by_given_loss(objective: Objective, loss_fn: LossFn) -> Objective:
    """The objective of a model of this package, with the caller's loss instead of its own."""
    sums = _sums_of_loss(objective.module, loss_fn)
    return objective._replace(loss=loss_fn, sums=sums, items=None, gathering=None)


def _sums_of_loss(
    module: nn.Module | NNXBridge, loss_fn: LossFn
) -> Callable[[Any, Batch, Any], Sums]:
    """Sums of what the loss function returns, with the module in evaluation mode."""

    def evaluate(variables: Any, *args: Any, **named: Any) -> Any:
        if isinstance(module, NNXBridge):
            return module.apply(variables, *args, **named)
        with nn.intercept_methods(intercept):
            return module.apply(variables, *args, **named)

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        key = jax.random.key(0)  # only for loss functions that split it: dropout is off
        given = loss_fn(params, NamedBatch(batch), model_state, key, evaluate)
        loss, metrics, _ = returned(given)
        found = {**metrics, "loss": loss}
        weight = found.pop(WEIGHT, jnp.float32(rows_of(batch) or 1))
        return {"loss": Means.of(found, weight)}

    return sums


def _init_by_loss(module: nn.Module, loss_fn: LossFn) -> Callable[..., Mapping[str, Any]]:
    """An `init` that initialises the module in the call that the loss function makes."""

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made: list[Mapping[str, Any]] = []

        def apply(
            variables: Any, *args: Any, rngs: Any = None, mutable: Any = False, **named: Any
        ) -> Any:
            del variables, rngs
            output, found = module.init_with_output(streams(rng), *args, **named)
            made.append(found)
            rest = {name: value for name, value in found.items() if name != "params"}
            return (output, rest) if mutable is not False else output

        loss_fn({}, NamedBatch(batch), {}, rng, apply)
        if not made:
            raise ValueError("loss_fn: does not call apply_fn; give init_args to make parameters")
        return made[0]

    return init
