"""Checks of arrays from callers: a sentence for each problem.

Shapes and dtypes are also checked under jit, values only outside of it. `...` are any leading axes,
mostly B batch and T time.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

FEW, MOST = 8, 0.9  # fewer labels are not checked; largest share that may equal their own ids
SHOWN = 3  # wrong values named per problem; the rest is counted

INTEGERS, FLOATS, NUMBERS, MASK = "integers", "floats", "numbers", "0 or 1"
KINDS: Mapping[str, tuple[Any, ...]] = {
    INTEGERS: (jnp.integer,),
    FLOATS: (jnp.floating,),
    NUMBERS: (jnp.integer, jnp.floating, jnp.bool_),
    MASK: (jnp.integer, jnp.floating, jnp.bool_),
}
# Fields of labels -> kind; callers may use other names for them.
LABELS = {"labels": INTEGERS, "weights": NUMBERS, "label_item_weights": MASK}


def described(value: Any) -> str:
    """Shape and dtype of an array or a list, for messages."""
    return f"{list(np.shape(value))} of {_dtype(value)}"


def as_numpy(value: Any, name: str) -> np.ndarray:
    """A list or an array of another library as NumPy's, in the machine's order of bytes.

    There is no copy if it is in host memory, and already in that order.

    Raises:
        ValueError: it cannot be one, such as ragged lists, PyTorch's bfloat16, and a tensor that
            requires a gradient; or values are masked, and would count if the mask were dropped.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: a masked array; give what counts for masked values: .filled(0)")
    try:
        found = np.asarray(value)
    except Exception as error:
        if isinstance(value, list | tuple):
            reason = "lists of different lengths; pad them to one"
        else:
            first = next(iter(str(error).splitlines()), "")
            reason = f"a {type(value).__name__} that NumPy cannot take: {first}"
        raise ValueError(f"{name}: {reason}") from error
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def form_problems(
    name: str, value: Any, kind: str, shape: tuple[int, ...] | None, like: str
) -> list[str]:
    """Problems of an array's shape and dtype.

    Args:
        name: the caller's name of the array.
        value: an array or a list.
        kind: a key of `KINDS`.
        shape: required shape; None: any.
        like: what else has this shape, for the message.
    """
    if shape is not None and np.shape(value) != shape:
        return [f"{name}: found {described(value)}, expected {list(shape)}, {like}"]
    if any(jnp.issubdtype(_dtype(value), option) for option in KINDS[kind]):
        return []
    return [f"{name}: found {described(value)}, expected {kind}"]


def has_values(value: Any) -> bool:
    """Whether values can be read: not under jit, nor if other processes hold some of them."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)


def repeats_ids(batch: Mapping[str, Any]) -> str | None:
    """A problem if labels are not shifted: each is the id at its own position.

    Labels of transformers are like that, as its models shift them inside.

    Args:
        batch: has `ids`, `labels` and `weights`, [B, T] each, with readable values.

    Returns:
        None if enough labels differ from their ids, or if too few have a weight to tell.
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
    """Which values of an array are wrong, on the host or under jit.

    Attributes:
        name: the caller's name of the array.
        values: [...], the array.
        at: bool [...], True for wrong values.
        wanted: what the values should be.
    """

    name: str
    values: Any
    at: Any
    wanted: str

    def problems(self) -> list[str]:
        """[] or one sentence with the first wrong values and their indices; on the host only."""
        return value_problems(self.name, self.values, self.at, self.wanted)


def value_problems(name: str, values: np.ndarray, wrong: np.ndarray, wanted: str) -> list[str]:
    """[] or one sentence with the first of the `wrong` values and their indices."""
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
    """`wrong_masks` as sentences."""
    return wrong_masks(name, values).problems()


def wrong_weights(name: str, values: Any) -> Wrong:
    """Values that cannot be weights: NaN, infinite or negative."""
    right = (values.astype(np.float32) < np.inf) & (values >= 0)
    return Wrong(name, values, ~right, "finite and at least 0")


def overflow_problems(name: str, values: np.ndarray) -> list[str]:
    """Integers that overflow JAX' dtype, which has 32 bits unless 64 are enabled."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype or values.dtype.kind not in "iu":
        return []
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    wrong = (values < least) | (values > most)
    return value_problems(name, values, wrong, f"in [{least}, {most}], {dtype}")


def outside(values: Any, count: int) -> Any:
    """Whether each value is outside [0, count), bool."""
    return (values < 0) | (values >= count)


def wanted_ids(items: int, words: int) -> tuple[str, str]:
    """What messages expect of (an item, a word)."""
    word = f"in [0, {words}), a word" if words else "an item: there are no words"
    return f"in [0, {items}), an item", word


def wrong_labels(
    name: str, labels: Any, counts: Any, is_item: Any, items: int, words: int
) -> list[Wrong]:
    """Labels that are out of range, of items and of words.

    Args:
        name: the caller's name of the labels.
        labels: int [...].
        counts: bool [...], which labels have a weight.
        is_item: bool [...], whether a label is an item; else it is a word.
        items, words: number of items and of words.
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
    """Problems of labels that are given without their batch.

    Args:
        fields: `labels`, optionally `weights` and `label_item_weights`; without the latter, labels
            are items if there are any items, else words.
        shape: the required shape of all of them.
        like: what else has this shape, for the message.
        items, words: number of items and of words.
        names: field -> the caller's name of it.
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
    """The dtype that JAX would use (32 bits unless 64 are enabled); others are unchanged."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    return dtype if dtype.kind in "OSUMm" else jax.dtypes.canonicalize_dtype(dtype)
