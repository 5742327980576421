"""Checks that a batch is like the sample batch of the run, made before anything is compiled."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.array_checks import has_values, repeats_ids
from efficientids_flax.config.record import listed, unknown_key
from efficientids_flax.train.batches import checked_batch
from efficientids_flax.tree import leaves_by_path

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]


def batch_spec(batch: Any, parts: int = 1) -> Spec:
    """Path -> shape and dtype of every field.

    Args:
        batch: a dict of arrays, or of such dicts.
        parts: number of parts that gradient accumulation splits the rows into.

    Raises:
        ValueError: naming every field that no step can take.
    """
    batch = checked_batch(batch, "batch")
    found: Spec = {}
    problems = []
    for path, leaf in leaves_by_path(dict(batch)).items():
        value = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if not (jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool):
            problems.append(f"{path}: found {value.dtype}, expected numbers")
            continue
        found[path] = (tuple(value.shape), jax.dtypes.canonicalize_dtype(value.dtype))
    if not found and not problems:
        problems.append("it has no field")
    rows = {path: shape[0] for path, (shape, _) in found.items() if shape}
    if len(set(rows.values())) > 1:
        problems.append(f"expected as many rows in each field, found {rows}")
    problems += [
        f"{path}: {count} rows do not divide by gradient_accumulation_steps = {parts}"
        for path, count in rows.items()
        if count % parts
    ]
    if parts > 1:
        problems += [f"{path}: no rows to split" for path in found if path not in rows]
    _raise(problems)
    return found


def check_like(batch: Any, wanted: Spec, parts: int = 1, *, first: bool = True) -> None:
    """Raise if a batch has other fields, shapes (except rows) or dtypes than the sample batch.

    Args:
        batch: a batch of the training data.
        wanted: spec of the sample batch.
        parts: see `batch_spec`.
        first: whether it is the first batch; later ones may have other lengths, and other dtypes of
            the same kind.

    Raises:
        ValueError: naming every field that differs.
    """
    found = batch_spec(batch, parts)
    problems = [
        unknown_key(path, wanted).replace("unknown key", "not in the sample batch")
        for path in found
        if path not in wanted
    ]
    problems += [f"{path}: missing" for path in wanted if path not in found]
    for path in found.keys() & wanted.keys():
        (shape, dtype), (like, wanted_dtype) = found[path], wanted[path]
        if (first and shape[1:] != like[1:]) or len(shape) != len(like):
            problems.append(f"{path}: found {list(shape)}, the sample batch has {list(like)}")
        if dtype != wanted_dtype and (first or _kind(dtype) != _kind(wanted_dtype)):
            problems.append(f"{path}: found {dtype}, the sample batch has {wanted_dtype}")
    _raise(sorted(problems))


def _kind(dtype: np.dtype) -> Any:
    """The kind of a dtype: bool, integer, or None for others."""
    return next((kind for kind in (jnp.bool_, jnp.integer) if jnp.issubdtype(dtype, kind)), None)


def repeating(batch: Mapping[str, Any]) -> str | None:
    """A warning if labels repeat the ids at their own positions, see `repeats_ids`.

    None if all is well, if the batch has no such fields, or if it cannot be read in this process.
    """
    fields = [batch.get(name) for name in ("ids", "labels", "weights")]
    if not all(value is not None and has_values(value) for value in fields):
        return None
    problem = repeats_ids(batch)
    what_it_learns = "A model need only repeat its input, and its metrics mean nothing"
    return problem and f"{problem}. {what_it_learns}"


def tokens_of(batch: Mapping[str, Any]) -> int:
    """Number of positions of a batch of sequences; 0 if it has none."""
    for name in ("ids", "input_ids", "item_ids", "tokens", "labels"):
        shape = np.shape(batch[name]) if name in batch else ()
        if len(shape) == 2:
            return shape[0] * shape[1]
    return 0


def length_of(spec: Spec) -> int | None:
    """T, the length of a batch's id sequences; None if it has none."""
    shape = spec.get("ids", ((), None))[0]
    return shape[1] if len(shape) == 2 else None


def _raise(problems: list[str]) -> None:
    if problems:
        raise ValueError(listed("batch", problems))
