"""What is wrong with an array that a caller gives: a sentence for each problem.

Shapes and dtypes are known while jit traces as well; values are looked at only outside of it. `...`
are any leading axes, mostly B batch and T time.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

FEW, MOST = 8, 0.9  # labels that tell nothing yet, and the share that may be their own ids
SHOWN = 3  # wrong values named per problem; the rest is counted

INTEGERS, FLOATS, NUMBERS, MASK = "integers", "floats", "numbers", "0 or 1"
KINDS: Mapping[str, tuple[Any, ...]] = {
    INTEGERS: (jnp.integer,),
    FLOATS: (jnp.floating,),
    NUMBERS: (jnp.integer, jnp.floating, jnp.bool_),
    MASK: (jnp.integer, jnp.floating, jnp.bool_),
}
# Fields of labels, which a caller may know by other names.
LABELS = {"labels": INTEGERS, "weights": NUMBERS, "label_item_weights": MASK}


def described(value: Any) -> str:
    """Shape and dtype of an array or a list, as messages have them."""
    return f"{list(np.shape(value))} of {_dtype(value)}"


def form_problems(
    name: str, value: Any, kind: str, shape: tuple[int, ...] | None, like: str
) -> list[str]:
    """Shape and dtype.

    Args:
        name: by which the caller knows it.
        value: an array or a list.
        kind: of `KINDS`.
        shape: that it must have; None for any.
        like: what else has this shape.
    """
    if shape is not None and np.shape(value) != shape:
        return [f"{name}: found {described(value)}, expected {list(shape)}, {like}"]
    if any(jnp.issubdtype(_dtype(value), option) for option in KINDS[kind]):
        return []
    return [f"{name}: found {described(value)}, expected {kind}"]


def has_values(value: Any) -> bool:
    """Whether the values can be read: not while jit traces, nor those of other processes."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)


def repeats_ids(batch: Mapping[str, Any]) -> str | None:
    """A problem of labels that are the ids of their own places, which a model need only repeat.

    Those of transformers are such, and are shifted inside of its models.

    Args:
        batch: with `ids`, `labels` and `weights`, [B, T] each, that can be read.

    Returns:
        None where most are others, or where too few count to tell.
    """
    ids, labels, weights = (np.asarray(batch[name]) for name in ("ids", "labels", "weights"))
    counted = weights > 0
    same = (ids == labels)[counted]
    if same.size < FEW or same.mean() <= MOST or len(np.unique(ids[counted])) < 2:
        return None
    return (
        f"labels: {same.mean():.0%} are the ids of the same places; expected what comes next at"
        " each place: ids shifted by one"
    )


class Wrong(NamedTuple):
    """Which values of an array are wrong, on the host or while jit traces.

    Attributes:
        name: by which the caller knows the array.
        values: [...].
        at: bool [...].
        wanted: what they should be.
    """

    name: str
    values: Any
    at: Any
    wanted: str

    def problems(self) -> list[str]:
        """[] or one sentence with the first wrong values, and where they stand; on the host."""
        return value_problems(self.name, self.values, self.at, self.wanted)


def value_problems(name: str, values: np.ndarray, wrong: np.ndarray, wanted: str) -> list[str]:
    """[] or one sentence with the first of the values that are `wrong`, and where they stand."""
    if not wrong.any():
        return []
    places = np.argwhere(wrong)
    shown = ", ".join(f"{values[tuple(p)]} at {p.tolist()}" for p in places[:SHOWN])
    rest = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return [f"{name}: found {shown}{rest}, expected {wanted}"]


def wrong_masks(name: str, values: Any) -> Wrong:
    """Values other than 0 and 1."""
    return Wrong(name, values, (values != 0) & (values != 1), "0 or 1")


def mask_problems(name: str, values: np.ndarray) -> list[str]:
    """The same as sentences."""
    return wrong_masks(name, values).problems()


def wrong_weights(name: str, values: Any) -> Wrong:
    """Values that are no weights: NaN, infinite or negative."""
    right = (values.astype(np.float32) < np.inf) & (values >= 0)
    return Wrong(name, values, ~right, "finite and at least 0")


def overflow_problems(name: str, values: np.ndarray) -> list[str]:
    """Whole numbers that JAX has no room for, where it is not told to have 64 bits."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype or values.dtype.kind not in "iu":
        return []
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    wrong = (values < least) | (values > most)
    return value_problems(name, values, wrong, f"in [{least}, {most}], {dtype}")


def outside(values: Any, count: int) -> Any:
    """bool, where a value is not in [0, count)."""
    return (values < 0) | (values >= count)


def wanted_ids(items: int, words: int) -> tuple[str, str]:
    """How messages name what an item and what a word has to be."""
    word = f"in [0, {words}), a word" if words else "an item: there are no words"
    return f"in [0, {items}), an item", word


def wrong_labels(
    name: str, labels: Any, counts: Any, is_item: Any, items: int, words: int
) -> list[Wrong]:
    """Labels that are out of range, items and words.

    Args:
        name: by which the caller knows them.
        labels: int [...].
        counts: bool [...], which labels have a weight.
        is_item: bool [...], whether a label is an item; else it is a word.
        items, words: how many there are.
    """
    kinds = ((is_item, items), (~is_item, words))
    return [
        Wrong(name, labels, counts & kind & outside(labels, count), wanted)
        for (kind, count), wanted in zip(kinds, wanted_ids(items, words), strict=True)
    ]


def label_problems(
    fields: Mapping[str, Any],
    shape: tuple[int, ...],
    like: str,
    items: int,
    words: int,
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """What is wrong with labels that are given without the batch that they belong to.

    Args:
        fields: `labels`, and where there are some `weights` and `label_item_weights`; without the
            latter labels are items if there are items at all.
        shape: that all of them must have.
        like: what else has this shape.
        items, words: how many there are.
        names: field -> the name under which the caller knows it.
    """
    called = {name: name for name in LABELS} | dict(names or {})
    fields = {name: value for name, value in fields.items() if value is not None}
    problems = [
        problem
        for name, value in fields.items()
        for problem in form_problems(called[name], value, LABELS[name], shape, like)
    ]
    if problems or not all(map(has_values, fields.values())):
        return problems
    values = {name: np.asarray(value) for name, value in fields.items()}
    counts, is_item = np.ones(shape, bool), np.full(shape, items > 0)
    if "weights" in values:
        weights = values["weights"]
        problems += wrong_weights(called["weights"], weights).problems()
        problems += overflow_problems(called["weights"], weights)
        counts = weights > 0
    if "label_item_weights" in values:
        mask = values["label_item_weights"]
        problems += wrong_masks(called["label_item_weights"], mask).problems()
        is_item = mask > 0
    found = wrong_labels(called["labels"], values["labels"], counts, is_item, items, words)
    return problems + [problem for wrong in found for problem in wrong.problems()]


def _dtype(value: Any) -> Any:
    """As JAX has it, where it has it: its whole numbers have 32 bits unless it is told."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return dtype if dtype.kind in "OSUMm" else jax.dtypes.canonicalize_dtype(dtype)
