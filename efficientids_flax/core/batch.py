"""Whether a batch fits a model: shapes, dtypes and ranges, every problem at once.

Shapes and dtypes are always looked at, values only outside of jit, where there are some. Letters: B
batch, T time, V words, I items.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.model_checks import raise_listed

SHOWN = 3  # wrong values named per problem; the rest is counted

INTEGERS, NUMBERS, MASK = "integers", "numbers", "0 or 1"
# fmt: off
FIELDS = {
    "ids":                INTEGERS,  # word, or item where `input_item_weights` is 1
    "input_item_weights": MASK,
    "paddings":           MASK,      # 1 is padding; its other fields are not looked at
    "segment_ids":        INTEGERS,
    "segment_pos":        INTEGERS,
    "inputs_indicator":   MASK,
    "labels":             INTEGERS,  # word, or item where `label_item_weights` is 1
    "weights":            NUMBERS,
    "label_item_weights": MASK,
}
# fmt: on


def check_batch(
    config: EfficientIDSConfig,
    batch: Mapping[str, Any],
    labels: bool = False,
    names: Mapping[str, str] | None = None,
) -> None:
    """Raise if a batch is not what the model takes.

    Masks may be bool, int or float. Items of the input lie in [0, I) or are the configured
    placeholder of target positions; labels count only where they have a weight.

    Args:
        config: of the model.
        batch: the original's fields, each [B, T]; others are not looked at.
        labels: whether the loss is asked for.
        names: field -> the name under which the caller knows it; 'items' and 'words' are the two
            kinds of `ids`, where they have names of their own.

    Raises:
        ValueError: naming every field that is wrong, what came and what is needed.
    """
    called = dict.fromkeys(("items", "words"), "ids") | {name: name for name in FIELDS}
    called |= dict(names or {})
    fields = {name: batch[name] for name in FIELDS if batch.get(name) is not None}
    problems = [f"{called[name]}: missing" for name in _needed(config, labels) - fields.keys()]
    shape = jnp.shape(fields["ids"]) if "ids" in fields else None
    problems += [
        f"{called[name]}: {problem}"
        for name, value in fields.items()
        for problem in _form_problems(value, FIELDS[name], shape)
    ]
    if config.backbone.attention_mask == "prefix" and "inputs_indicator" not in fields:
        problems.append(f"{called['inputs_indicator']}: missing, attention_mask is 'prefix'")
    if not problems and all(map(_has_values, fields.values())):
        values = {name: np.asarray(value) for name, value in fields.items()}
        problems += _mask_problems(values, called)
        problems += _range_problems(config, values, called)
    raise_listed("batch", sorted(problems))


def check_shapes(shape: tuple[int, ...], **fields: jax.Array) -> None:
    """Raise if arrays that are merged have not this one shape.

    Raises:
        ValueError: naming every field with another shape.
    """
    raise_listed(
        "batch",
        [
            f"{name}: found {list(value.shape)}, expected {list(shape)}, the shape of the ids"
            for name, value in fields.items()
            if value.shape != shape
        ],
    )


def next_labels(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Labels of a batch that has none: what stands at the next position of the row.

    Args:
        batch: `ids` and other fields of the input, each [B, T].

    Returns:
        `labels`, `weights` float32, and `label_item_weights` where the input has its like. The
        weight is 0 at a row's end, before padding, before the prefix's own tokens and before
        another segment.
    """

    def following(value: jax.Array) -> jax.Array:
        return jnp.pad(value[:, 1:], ((0, 0), (0, 1)))

    made = {"labels": following(batch["ids"])}
    if "input_item_weights" in batch:
        made["label_item_weights"] = following(batch["input_item_weights"])
    weights = following(jnp.ones(batch["ids"].shape, jnp.float32))
    for name in ("paddings", "inputs_indicator"):
        if name in batch:
            weights = weights * (following(batch[name]) == 0)
    if "segment_ids" in batch:
        weights = weights * (following(batch["segment_ids"]) == batch["segment_ids"])
    return made | {"weights": weights}


def _needed(config: EfficientIDSConfig, labels: bool) -> set[str]:
    words = config.backbone.vocab_size > 0
    needed = {"ids"} | ({"input_item_weights"} if words else set())
    if labels:
        needed |= {"labels", "weights"} | ({"label_item_weights"} if words else set())
    return needed


def _form_problems(value: Any, kind: str, shape: tuple[int, ...] | None) -> list[str]:
    """Rank, shape and dtype of one field."""
    found = f"found {list(jnp.shape(value))} of {jnp.result_type(value)}"
    if len(jnp.shape(value)) != 2:
        return [f"{found}, expected [B, T]"]
    if shape is not None and jnp.shape(value) != shape:
        return [f"{found}, expected {list(shape)}, the shape of the ids"]
    kinds = (jnp.integer,) if kind == INTEGERS else (jnp.integer, jnp.floating, jnp.bool_)
    good = any(jnp.issubdtype(jnp.result_type(value), option) for option in kinds)
    return [] if good else [f"{found}, expected {kind}"]


def _has_values(value: Any) -> bool:
    """Whether the values can be read: not while jit traces, nor those of other processes."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)


def _mask_problems(values: Mapping[str, np.ndarray], called: Mapping[str, str]) -> list[str]:
    problems = []
    for name, value in values.items():
        if FIELDS[name] == MASK:
            wrong = (value != 0) & (value != 1)
            problems += _problem(called[name], value, wrong, "0 or 1")
    weights = values.get("weights")
    if weights is not None:
        wrong = ~(np.isfinite(weights.astype(np.float32)) & (weights >= 0))
        problems += _problem(called["weights"], weights, wrong, "finite and at least 0")
    return problems


def _range_problems(
    config: EfficientIDSConfig, values: Mapping[str, np.ndarray], called: Mapping[str, str]
) -> list[str]:
    backbone, ids = config.backbone, values["ids"]
    everywhere = np.ones(ids.shape, bool)
    present = values["paddings"] == 0 if "paddings" in values else everywhere
    is_item = values["input_item_weights"] > 0 if "input_item_weights" in values else everywhere
    item, word = f"in [0, {config.num_items}), an item", f"in [0, {backbone.vocab_size}), a word"
    target = item
    unknown = _outside(ids, config.num_items)
    if config.placeholder_item_id is not None:
        unknown &= ids != config.placeholder_item_id
        target += f", or the placeholder {config.placeholder_item_id}"
    no_word = _outside(ids, backbone.vocab_size)
    problems = _problem(called["items"], ids, present & is_item & unknown, target)
    problems += _problem(called["words"], ids, present & ~is_item & no_word, word)
    if "labels" in values:
        labels = values["labels"]
        counts = values["weights"] > 0 if "weights" in values else present
        is_item = values["label_item_weights"] > 0 if "label_item_weights" in values else everywhere
        for kind, count, wanted in (
            (is_item, config.num_items, item),
            (~is_item, backbone.vocab_size, word),
        ):
            wrong = counts & kind & _outside(labels, count)
            problems += _problem(called["labels"], labels, wrong, wanted)
    for name in ("segment_ids", "segment_pos"):
        if name in values:
            wrong = present & (values[name] < 0)
            problems += _problem(called[name], values[name], wrong, "at least 0")
    if backbone.position_embedding == "learned" and "segment_pos" in values:
        positions, longest = values["segment_pos"], backbone.max_positions or 0
        wanted = f"below {longest}, max_positions"
        problems += _problem(
            called["segment_pos"], positions, present & (positions >= longest), wanted
        )
    return problems


def _outside(values: np.ndarray, count: int) -> np.ndarray:
    return (values < 0) | (values >= count)


def _problem(name: str, values: np.ndarray, wrong: np.ndarray, wanted: str) -> list[str]:
    """[] or one sentence with the first wrong values and where they stand."""
    places = np.argwhere(wrong)
    if not len(places):
        return []
    shown = ", ".join(f"{values[tuple(p)]} at {p.tolist()}" for p in places[:SHOWN])
    rest = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return [f"{name}: found {shown}{rest}, expected {wanted}"]
