"""Modules in their mode of evaluation, however a loss function calls them."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from flax import linen as nn

# Arguments that say whether a call trains, and what they are in an evaluation.
SWITCHES: Mapping[str, bool] = {
    "training": False,
    "train": False,
    "is_training": False,
    "enable_dropout": False,
    "deterministic": True,
    "use_running_average": True,
}


def evaluating(
    call: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any], method: bool = True
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with its switches as in an evaluation.

    By name or by position, and where the call leaves them to their defaults.

    Args:
        call: what is called.
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
            given[place] = SWITCHES[name]
        else:
            switched[name] = SWITCHES[name]
    for name in named.keys() & SWITCHES.keys():  # taken by **named
        switched[name] = SWITCHES[name]
    return tuple(given), switched


def intercept(
    call: Callable[..., Any], args: Any, named: Any, context: nn.module.InterceptorContext
) -> Any:
    """Puts each Linen module into its mode of evaluation, for `nn.intercept_methods`.

    Dropout is left out, even where its module was built to draw always.
    """
    module, method = context.module, getattr(type(context.module), context.method_name, None)
    if isinstance(module, nn.Dropout) and context.method_name == "__call__":
        return args[0] if args else named["inputs"]
    if method is None:
        return call(*args, **named)
    before = named
    args, named = evaluating(method, args, named)
    # What a module was built with is not given to its call again.
    named = {
        name: value
        for name, value in named.items()
        if name in before or getattr(module, name, None) is None
    }
    return call(*args, **named)


@cache
def _parameters(call: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    try:
        found = inspect.signature(call).parameters
    except (TypeError, ValueError):
        return ()
    return tuple((name, parameter.kind) for name, parameter in found.items())
