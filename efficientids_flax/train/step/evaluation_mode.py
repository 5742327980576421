"""Switch modules to evaluation mode, however a loss function calls them."""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache, wraps
from typing import Any, NamedTuple

from flax import linen as nn
from flax import nnx


class Switch(NamedTuple):
    """An argument that says whether a call trains.

    Attributes:
        evaluating: its value in an evaluation.
        whole: whether it switches the whole module, not only a layer or one aspect of training.
    """

    evaluating: bool
    whole: bool = True


SWITCHES: Mapping[str, Switch] = {
    "training": Switch(False),
    "train": Switch(False),
    "is_training": Switch(False),
    "is_train": Switch(False),
    "deterministic": Switch(True),
    "enable_dropout": Switch(False, whole=False),
    "use_running_average": Switch(True, whole=False),
}


def evaluating(
    call: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], method: bool = True
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with all its switches set for evaluation.

    Handles switches passed by name, by position, or left at their defaults.

    Args:
        call: the function to be called.
        args, named: its arguments, without `self`.
        method: whether `call` takes `self` first.
    """
    switched = dict(named)
    parameters = _parameters(call)[1 if method else 0 :]
    given = list(args)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for place, (name, kind) in enumerate(parameters):
        if name not in SWITCHES or kind in (
            inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        ):  # fmt: skip
            continue
        if kind in positional and place < len(given):
            given[place] = SWITCHES[name].evaluating
        else:
            switched[name] = SWITCHES[name].evaluating
    for name in named.keys() & SWITCHES.keys():  # taken by **named
        switched[name] = SWITCHES[name].evaluating
    return tuple(given), switched


def intercept(
    call: Callable[..., Any], args: Any, named: Any, context: nn.module.InterceptorContext
) -> Any:
    """Interceptor for `nn.intercept_methods` that runs each Linen module in evaluation mode.

    Dropout becomes the identity. Fields that put a module into training mode are switched too, even
    if it was built to train always.
    """
    module, method = context.module, getattr(type(context.module), context.method_name, None)
    if isinstance(module, nn.Dropout) and context.method_name == "__call__":
        return args[0] if args else named["inputs"]
    before = {name: getattr(module, name) for name in built_to_train(module)}
    for name in before:
        object.__setattr__(module, name, SWITCHES[name].evaluating)  # Linen modules are frozen
    try:
        output = _called(call, method, args, named, module)
        if (scope := module.scope) is not None:
            warn_of_draws(type(module), [name for name in scope.rngs if scope.rng_counters[name]])
        return output
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def stay_evaluating(module: nnx.Module) -> None:
    """Run an NNX module and those in it in evaluation mode from now on, however they are called.

    What `intercept` does for Linen: dropout becomes the identity, and switches are set in each
    call, also where the module that calls passes another value, or leaves a default.

    Args:
        module: is changed.
    """
    for _, part in list(nnx.iter_modules(module)):
        for name in SWITCHES.keys() & vars(part).keys():
            if isinstance(vars(part)[name], bool):
                setattr(part, name, SWITCHES[name].evaluating)
        part.__class__ = _always_evaluating(type(part))


@cache
def _always_evaluating(kind: type[nnx.Module]) -> type[nnx.Module]:
    """The class of modules like those of `kind`, whose calls evaluate."""
    own = next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)
    if own is None:
        return kind

    @wraps(own)
    def call(self: nnx.Module, *args: Any, **named: Any) -> Any:
        if isinstance(self, nnx.Dropout):
            return args[0] if args else named["inputs"]
        args, named = evaluating(own, args, named)
        return own(self, *args, **named)

    return type(kind.__name__, (kind,), {"__call__": call})


def warn_of_draws(kind: type, streams: Collection[str]) -> None:
    """Warn that a module has drawn random numbers in an evaluation, other than for `Dropout`.

    Args:
        kind: the module's class.
        streams: the random streams that it has drawn from; empty: no warning.
    """
    if streams:
        warnings.warn(
            f"{kind.__name__}: draws random numbers in an evaluation as in training, from"
            f" {', '.join(sorted(streams))}: the metrics have that noise, and what you serve may"
            " differ; let it draw only if its `deterministic` is False or `training` True",
            stacklevel=2,
        )


def built_to_train(module: nn.Module) -> dict[str, bool]:
    """Fields that put a module into training mode -> their values for evaluation."""
    return {
        name: switch.evaluating
        for name, switch in SWITCHES.items()
        if name in type(module).__dataclass_fields__
        and getattr(module, name) is not None
        and bool(getattr(module, name)) != switch.evaluating
    }


def _called(call: Callable[..., Any], method: Any, args: Any, named: Any, module: nn.Module) -> Any:
    """Call a module's method with its switches set for evaluation."""
    if method is None:
        return call(*args, **named)
    before = named
    args, named = evaluating(method, args, named)
    # Linen refuses a switch that is given both as field and as argument: keep the field's.
    named = {
        name: value
        for name, value in named.items()
        if name in before or getattr(module, name, None) is None
    }
    return call(*args, **named)


def _parameters(call: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    try:
        found = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return ()
    return tuple((name, parameter.kind) for name, parameter in found.items())
