"""Optimizer states that optax does not have.

The state of a whole optimizer is a dict from the name of a transform to its state, as in
`optax.named_chain`. `STATES` has the names and types; converted checkpoints store them under
`state/optimizer/<name>/<field>/<parameter path>`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from efficientids_flax.config import OptimizerConfig

AS_STORED = "adam_bias_corrected"  # Adam's state if the conversion did not know the decay rates


class ShardedAdafactorState(NamedTuple):
    """State of Praxis' `ShardedAdafactor` (praxis/optimizers.py, `ShardedAdafactorState`).

    The trees cover the trained parameters. `P` is a parameter's shape. A parameter of scanned
    layers counts as one variable per layer, so every slot keeps its leading axis L. A slot that a
    variable does not use has shape [1].

    Attributes:
        count: int32 [], steps taken.
        m: int8 or float32 P, momentum of the updates (learning rate included).
        m_scale: float32 P without its first axis, factor of the int8 momentum, per column.
        vr: float32 P without its last axis, second moment of the rows of factored variables.
        vc: float32 P without its second last axis, second moment of their columns.
        v: float32 P, second moment of variables that are not factored.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    m: Any
    m_scale: Any
    vr: Any
    vc: Any
    v: Any


class BiasCorrectedAdamState(NamedTuple):
    """Adam's state as Praxis stores it (praxis/optimizers.py, `sharded_adam`), unlike optax's.

    Attributes:
        count: int32 [], steps taken.
        mu, nu: the moments, divided by `1 - beta1^count` and `1 - beta2^count`.
    """

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: Any
    nu: Any

    def as_optax(self, beta1: float, beta2: float) -> optax.ScaleByAdamState:
        """The state with which optax continues, given the decay rates."""
        steps = int(np.asarray(self.count).reshape(()))

        def undone(moments: Any, beta: float) -> Any:
            # In float64, as the conversion computes it if the rates are known.
            factor = 1.0 - beta**steps if steps else 1.0
            return jax.tree.map(
                lambda x: (np.asarray(x).astype(np.float64) * factor).astype(x.dtype), moments
            )

        return optax.ScaleByAdamState(self.count, undone(self.mu, beta1), undone(self.nu, beta2))


# Name of a transform in a converted checkpoint -> type of its state, in the order of a chain.
STATES: dict[str, type] = {
    "adam": optax.ScaleByAdamState,
    AS_STORED: BiasCorrectedAdamState,
    "sharded_adafactor": ShardedAdafactorState,
    "momentum": optax.TraceState,
    "schedule": optax.ScaleByScheduleState,
    "ema": optax.EmaState,
}


def typed_states(tree: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The NamedTuples of the plain dicts in a checkpoint.

    Args:
        tree: transform name -> field -> values.

    Returns:
        The states in the mapping type of `optax.named_chain` (an `OrderedDict` in newer releases,
        whose order matters), in the order of `STATES`.

    Raises:
        ValueError: a name is not in `STATES`, a state has an unknown field, or lacks its count.
    """
    states: Any = optax.named_chain().init({})
    if unnamed := sorted(set(tree) - set(STATES)):
        raise ValueError(f"unknown optimizer state '{unnamed[0]}'; known are {', '.join(STATES)}")
    for name, kind in STATES.items():
        if name not in tree:
            continue
        fields = tree[name]
        wanted = kind._fields  # type: ignore[attr-defined]
        # Fields may be missing: an empty tree (all parameters frozen) is not stored.
        unknown = set(fields) - set(wanted)
        if unknown:
            raise ValueError(f"optimizer state '{name}' has no field {', '.join(sorted(unknown))}")
        if "count" in wanted and "count" not in fields:
            raise ValueError(f"optimizer state '{name}' lacks its count")
        states[name] = kind(**{field: fields.get(field, {}) for field in wanted})
    return states


def as_optax(states: dict[str, Any], config: OptimizerConfig) -> dict[str, Any]:
    """The states, with Adam's converted to the form with which optax continues.

    Args:
        states: from `typed_states`.
        config: has Adam's decay rates.

    Raises:
        ValueError: the moments are as PAXml stored them, and a decay rate is not known.
    """
    if AS_STORED not in states:
        return states
    lacking = [name for name in ("beta1", "beta2") if getattr(config, name) is None]
    if config.beta1 is None or config.beta2 is None:
        raise ValueError(
            "Adam's moments are as PAXml stored them, divided by 1 - beta^count; give"
            f" {' and '.join(lacking)}, or convert again with --set {lacking[0]}=..."
        )
    made: Any = optax.named_chain().init({})
    for name, state in states.items():
        if name == AS_STORED:
            made["adam"] = state.as_optax(config.beta1, config.beta2)
        else:
            made[name] = state
    return made
