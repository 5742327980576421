"""Freezing: which parameters are trained, by patterns on their paths.

A frozen parameter has no optimizer state and stays bit-identical, under any optimizer, clip or
decay. To save the work of its gradient, differentiate the trained part alone:

    trained, frozen = partition(params, ["pretrained_lm"])
    gradients = jax.grad(lambda trained: loss(merge(trained, frozen)))(trained)
"""

import difflib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.tree import flatten, leaves_by_path, path_of, unflatten

Predicate = Callable[[str], bool]
REGEX = "re:"


def matcher(patterns: Sequence[str]) -> Predicate:
    """Whether a parameter's path fits one of the patterns.

    Args:
        patterns: each one of
            a path or a part of it in whole components ('pretrained_lm', 'layers_0/mlp');
            a glob over the whole path, if it has one of `*?[` ('pretrained_lm/*/bias');
            a regex over the whole path, after 're:' ('re:.*/layers_[0-3]/.*').

    Returns:
        A predicate on '/'-joined paths.

    Raises:
        ValueError: a regex is invalid.
    """
    tests = [_test(pattern) for pattern in patterns]
    return lambda path: any(test(path) for test in tests)


def frozen_mask(params: Any, patterns: Sequence[str]) -> Any:
    """True for each frozen parameter, in the tree of the parameters.

    Args:
        params: tree of parameters.
        patterns: see `matcher`.

    Raises:
        ValueError: a pattern fits no parameter; suggests the nearest name.
    """
    paths = leaves_by_path(params)
    for pattern in patterns:
        if not any(map(_test(pattern), paths)):
            parts = sorted({part for path in paths for part in path.split("/")})
            near = difflib.get_close_matches(pattern, [*parts, *paths], 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(parts[:8])}"
            raise ValueError(f"frozen parameters: '{pattern}' fits none of the parameters{hint}")
    frozen = matcher(patterns)
    return jax.tree_util.tree_map_with_path(lambda keys, _: frozen(path_of(keys)), params)


def partition(params: Any, patterns: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into trained and frozen ones.

    Args:
        params: nested dicts.
        patterns: patterns of the frozen ones, see `matcher`.

    Returns:
        (trained, frozen) nested dicts, each without the other's leaves.

    Raises:
        ValueError: as `frozen_mask`.
    """
    mask, leaves = flatten(frozen_mask(params, patterns)), flatten(params)
    trained = unflatten({path: leaf for path, leaf in leaves.items() if not mask[path]})
    return trained, unflatten({path: leaf for path, leaf in leaves.items() if mask[path]})


def merge(trained: dict[str, Any], frozen: dict[str, Any]) -> dict[str, Any]:
    """Undo `partition`."""
    return unflatten(flatten(trained) | flatten(frozen))


def train_only(
    transform: optax.GradientTransformation, trained: Predicate
) -> optax.GradientTransformationExtraArgs:
    """Restrict a transformation to the trained parameters.

    Args:
        transform: gets gradients and parameters as nested dicts without the frozen ones; so a clip
            by the global norm does not count these.
        trained: predicate on a parameter's path.

    Returns:
        A transformation whose gradients may include those of frozen parameters, with any values.
        Their update is -0.0, which changes no bit of a parameter (0.0 would turn -0.0 into 0.0).
    """
    inner = optax.with_extra_args_support(transform)

    def init(params: Any) -> Any:
        return inner.init(_pruned(params, trained))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        kept = None if params is None else _pruned(params, trained)
        found, state = inner.update(_pruned(updates, trained), state, kept, **extra)
        updated = flatten(dict(found))  # pyright: ignore[reportCallIssue, reportArgumentType]

        def place(keys: tuple[Any, ...], value: jax.Array) -> jax.Array:
            return updated[path] if trained(path := path_of(keys)) else unchanged(value)

        return jax.tree_util.tree_map_with_path(place, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def unchanged(like: jax.Array) -> jax.Array:
    """An update of this shape and dtype that changes no bit of a parameter."""
    return jnp.full_like(like, -0.0)


def _test(pattern: str) -> Predicate:
    if pattern.startswith(REGEX):
        try:
            found = re.compile(pattern.removeprefix(REGEX))
        except re.error as error:
            raise ValueError(f"frozen parameters: '{pattern}' is no regex: {error}") from error
        return lambda path: found.fullmatch(path) is not None
    if set(pattern) & set("*?["):
        return lambda path: fnmatchcase(path, pattern)
    return lambda path: f"/{pattern.strip('/')}/" in f"/{path}/"


def _pruned(tree: Any, keep: Predicate) -> dict[str, Any]:
    return unflatten({path: leaf for path, leaf in leaves_by_path(tree).items() if keep(path)})
