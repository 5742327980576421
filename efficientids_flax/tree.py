"""Nested dicts and their leaves by path: 'pretrained_lm/layers_0/mlp/up/kernel'."""

from collections.abc import Mapping
from typing import Any


def flatten(
    tree: Mapping[str, Any], prefix: str = "", *, separator: str = "/", keep_empty: bool = False
) -> dict[str, Any]:
    """Path -> leaf, in the order of the tree.

    Args:
        tree: nested mappings; anything else is a leaf.
        prefix: prefix of every path.
        separator: separator between the keys of a path.
        keep_empty: an empty mapping is a leaf; otherwise it is dropped.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and (value or not keep_empty):
            inner = f"{prefix}{key}{separator}"
            found |= flatten(value, inner, separator=separator, keep_empty=keep_empty)
        else:
            found[f"{prefix}{key}"] = value
    return found


def unflatten(leaves: Mapping[str, Any], *, separator: str = "/") -> dict[str, Any]:
    """Nested dicts from leaves by path; the inverse of `flatten`."""
    found: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *outer, name = path.split(separator)
        place = found
        for key in outer:
            place = place.setdefault(key, {})
        place[name] = leaf
    return found


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Path -> leaf of any pytree, such as an optimizer state, in JAX' order."""
    import jax

    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_of(keys: tuple[Any, ...]) -> str:
    """The path from a key path of `jax.tree_util`."""
    import jax

    return jax.tree_util.keystr(keys, simple=True, separator="/")
