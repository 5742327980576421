"""Call NNX modules like Linen modules, so that one training step works for both.

An `nnx.Module` holds its values. Here they are passed in and returned, as in Linen: `params` are
its `nnx.Param`, and each other type of variable is a collection with Linen's name, for example
`batch_stats`. Random streams are no collection: a call draws from the key that it is given, so that
a resumed run draws the same numbers as an uninterrupted one.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.core.scope import in_filter

from efficientids_flax.train.state import key_data
from efficientids_flax.train.step.evaluation_mode import (
    SWITCHES,
    evaluating,
    stay_evaluating,
    warn_of_draws,
)
from efficientids_flax.train.step.function import LossFn
from efficientids_flax.tree import flatten, unflatten

DROPOUT = "dropout"


class NNXBridge:
    """Wraps an `nnx.Module` to be called like `nn.Module.apply`; the module is not changed.

    Attributes:
        variables: collection -> nested dicts of arrays, the module's values; list indices are keys
            like any other ('net/layers/0/kernel').
        training: whether calls run in the mode of `module.train()`, unless their arguments say
            otherwise; if False, in that of `module.eval()`.
    """

    def __init__(self, module: nnx.Module) -> None:
        """Take the values that the module has now."""
        self._graph, state = nnx.split(module)
        # Copies of the variables: the caller may assign new values to the originals.
        self._leaves = [(path, _with(leaf, _value(leaf))) for path, leaf in _flat(state)]
        self.variables = {
            name: unflatten(leaves) for name, leaves in _collections(self._leaves).items()
        }
        self.training = True

    def evaluating(self) -> "NNXBridge":
        """A copy of this bridge in evaluation mode."""
        made = copy(self)
        made.training = False
        return made

    def module(self, variables: Mapping[str, Any]) -> nnx.Module:
        """A new module like the given one, in the same modes, with these values.

        Args:
            variables: values for all collections of `variables`; the arrays are not copied.

        Raises:
            ValueError: some are missing.
        """
        return self._merged(_paths(variables), {})

    def apply(
        self,
        variables: Mapping[str, Any],
        *args: Any,
        rngs: Any = None,
        mutable: Any = False,
        method: Callable[..., Any] | str | None = None,
        capture_intermediates: Any = False,
        **named: Any,
    ) -> Any:
        """Call the module with these values.

        Args:
            variables: as in `module`.
            *args: arguments of the call.
            rngs: name -> key of the random streams; a stream with another name uses the first key.
                None: each stream continues from the module's own state.
            mutable: collections to return after the call.
            method: method to call instead of `__call__`.
            capture_intermediates: return the output also among the intermediates.
            **named: arguments of the call. Those of `SWITCHES` that concern the whole module also
                set its mode. In evaluation mode all switches are overridden.

        Returns:
            The output; with `mutable`: (output, collections).

        Raises:
            ValueError: variables are missing; the call changes some that are not `mutable`.
        """
        given = _paths(variables)
        module = self._merged(given, _streams(rngs))
        training = self.training
        for name, switch in SWITCHES.items() if training else ():
            if switch.whole and name in named:
                training = bool(named[name]) != switch.evaluating
        (module.train if training else module.eval)()
        if not self.training:
            stay_evaluating(module)
        call: Any = getattr(module, method) if isinstance(method, str) else module
        if callable(method):
            args = (module, *args)
            call = method
        taken = inspect.signature(call).parameters.values()
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in taken):
            known = {parameter.name for parameter in taken}
            # The call takes no such argument: `train()` and `eval()` have set the mode.
            whole = {name for name, switch in SWITCHES.items() if switch.whole}
            named = {k: value for k, value in named.items() if k in known or k not in whole}
        if not self.training:
            own = call is module
            args, named = evaluating(type(module).__call__ if own else call, args, named, own)
        before = _counts(module)
        output = call(*args, **named)
        if not self.training:
            drawn = {tag for path, (tag, count) in _counts(module).items()
                     if count is not before[path][1]}  # fmt: skip
            warn_of_draws(type(module), drawn)
        found = _collections(_flat(nnx.state(module)))
        changed = {
            name: path
            for name, leaves in found.items()
            for path, value in leaves.items()
            if value is not given.get(path) and not in_filter(mutable, name)
        }
        if changed:
            raise ValueError(
                f"apply_fn: the call changes {', '.join(changed.values())}: say"
                f" mutable={sorted(changed)}, and return what is handed back as the model state"
            )
        if mutable is False:
            return output
        handed = {name: unflatten(x) for name, x in found.items() if in_filter(mutable, name)}
        if capture_intermediates:
            handed["intermediates"] = {"__call__": (output,)}
        return output, handed

    def drawing(self, loss_fn: LossFn) -> LossFn:
        """The loss function; its calls of `apply_fn` without `rngs` draw from its `rng`."""

        def loss(
            params: Any,
            batch: Any,
            model_state: Any,
            rng: jax.Array,
            apply_fn: Callable[..., Any],
        ) -> Any:
            calls = count()

            def apply(*args: Any, rngs: Any = None, **named: Any) -> Any:
                own = {DROPOUT: jax.random.fold_in(rng, next(calls))}
                return apply_fn(*args, rngs=_streams(rngs) or own, **named)

            return loss_fn(params, batch, model_state, rng, apply)

        return loss

    def _merged(self, values: Mapping[str, Any], rngs: Mapping[str, jax.Array]) -> nnx.Module:
        lacking = [
            name
            for name, tree in self.variables.items()
            if not flatten(tree).keys() <= values.keys()
        ]
        if lacking:
            raise ValueError(
                f"apply_fn: variables of {', '.join(lacking)} are missing; give"
                " {'params': params, **model_state}"
            )
        leaves = []
        for number, (path, leaf) in enumerate(self._leaves):
            value = values.get(_path(path), _value(leaf))
            if rngs:
                value = _seeded(leaf, value, rngs, number)
            leaves.append((path, _with(leaf, value)))
        return nnx.merge(self._graph, nnx.from_flat_state(leaves))


def _streams(rngs: Any) -> Mapping[str, jax.Array]:
    """Name -> key; a single key serves all names."""
    if rngs is None or isinstance(rngs, Mapping):
        return rngs or {}
    return {DROPOUT: rngs}


def _seeded(leaf: Any, value: Any, rngs: Mapping[str, jax.Array], number: int) -> Any:
    """The value of a random stream reset to a new key; other variables keep their value."""
    kind = getattr(leaf, "type", None)
    if kind is nnx.RngCount:
        return jnp.zeros_like(value)
    if kind is not nnx.RngKey:
        return value
    rng = rngs.get(leaf.tag, next(iter(rngs.values())))
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data(rng)), number)
    return jax.random.split(key, value.shape) if value.shape else key


def _counts(module: nnx.Module) -> dict[Any, tuple[str, Any]]:
    """Path -> (name, number of draws so far) of each random stream of a module."""
    streams = _flat(nnx.state(module, nnx.RngCount))
    return {path: (leaf.tag, _value(leaf)) for path, leaf in streams}


def _collections(leaves: Iterable[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """Collection -> path -> array; values that are no arrays are ignored."""
    found: dict[str, dict[str, Any]] = {"params": {}}
    for path, leaf in leaves:
        kind, value = getattr(leaf, "type", None), _value(leaf)
        if kind is None or not isinstance(value, jax.Array | np.ndarray):
            continue
        if issubclass(kind, nnx.Param):
            found["params"][_path(path)] = value
        elif not issubclass(kind, nnx.RngState | nnx.Intermediate):
            name = nnx.variable_name_from_type(kind, allow_register=True)
            found.setdefault(name, {})[_path(path)] = value
    return found


def _paths(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> array over all collections; each path of a module is in exactly one."""
    return {path: value for tree in variables.values() for path, value in flatten(tree).items()}


def _flat(state: Any) -> list[tuple[Any, Any]]:
    return list(nnx.to_flat_state(state))


def _path(path: Iterable[Any]) -> str:
    return "/".join(map(str, path))


def _value(leaf: Any) -> Any:
    """The value of a variable; a plain array is its own value."""
    return leaf.get_value() if hasattr(leaf, "get_value") else getattr(leaf, "value", leaf)


def _with(leaf: Any, value: Any) -> Any:
    return leaf.replace(value) if hasattr(leaf, "type") else leaf
