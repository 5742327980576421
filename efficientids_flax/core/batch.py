"""Checks that a batch fits a model: shapes, dtypes and ranges, all problems in one error.

Shapes and dtypes are always checked, values only outside of jit. Letters: B batch, T time, V words,
I items.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.array_checks import (
    INTEGERS,
    LABELS,
    MASK,
    Wrong,
    as_numpy,
    described,
    form_problems,
    has_values,
    outside,
    overflow_problems,
    wanted_ids,
    wrong_labels,
    wrong_masks,
    wrong_weights,
)
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.model_checks import raise_listed

ModelConfig = EfficientIDSConfig | BackboneConfig

# fmt: off
FIELDS = {
    "ids":                INTEGERS,  # word, or item where `input_item_weights` is 1
    "input_item_weights": MASK,
    "paddings":           MASK,      # 1 is padding, where ids and positions are not checked
    "segment_ids":        INTEGERS,
    "segment_pos":        INTEGERS,
    "inputs_indicator":   MASK,
    **LABELS,                        # a label is a word, or an item where `label_item_weights` is 1
}
# fmt: on
EXCLUDE = "exclude"  # items that an evaluation excludes from the ranking, int [B, X]


def check_batch(
    config: ModelConfig,
    batch: Mapping[str, Any],
    labels: bool = False,
    names: Mapping[str, str] | None = None,
) -> None:
    """Raise if the model cannot take a batch.

    Masks may be bool, int or float. Items of the input must be in [0, I) or the configured
    placeholder of target positions. Labels are checked only if they have a weight.

    Args:
        config: the model's; for a language model all ids and labels are words.
        batch: the original's fields, each [B, T], and `exclude`, see `EXCLUDE`; other fields, and
            those that are None, are ignored.
        labels: whether the fields that the loss needs are required.
        names: field -> the caller's name for it, for messages; 'items' and 'words' name the two
            kinds of `ids`, if the caller has them apart.

    Raises:
        ValueError: naming every wrong field, what was found and what was expected.
    """
    called = _called(names)
    fields = _fields(config, batch)
    problems = [f"{called[name]}: missing" for name in _needed(config, labels) - fields.keys()]
    shape = jnp.shape(fields["ids"]) if "ids" in fields else None
    problems += [
        problem
        for name, value in fields.items()
        for problem in _form_problems(called[name], value, FIELDS[name], shape)
    ]
    if _backbone(config).attention_mask == "prefix" and "inputs_indicator" not in fields:
        problems.append(f"{called['inputs_indicator']}: missing, attention_mask is 'prefix'")
    left_out = _left_out(config, batch)
    for value in left_out.values():
        whole = np.issubdtype(value.dtype, np.integer)
        if not whole or jnp.shape(value)[:1] != (shape or ())[:1]:
            problems.append(f"{EXCLUDE}: found {described(value)}, expected integers [B, X]")
    if not problems and all(map(has_values, (fields | left_out).values())):
        problems = _value_problems(config, fields | left_out, called)
    raise_listed("batch", sorted(problems))


def check_values(config: ModelConfig, batch: Mapping[str, Any]) -> None:
    """Check only the values, for a further batch of the same shapes and dtypes.

    Values that are on a device are not fetched; `wrong_counts` checks them there.

    Args:
        config: the model's.
        batch: see `check_batch`; if shapes differ nothing is checked, the model will raise.

    Raises:
        ValueError: naming every field with wrong values.
    """
    fields = _fields(config, batch)
    shapes = {np.shape(value) for value in fields.values()}
    values = fields | _left_out(config, batch)
    on_host = not any(isinstance(value, jax.Array) for value in values.values())
    if on_host and "ids" in fields and len(shapes) == 1:
        raise_listed("batch", sorted(_value_problems(config, values, _called(None))))


def wrong_counts(config: ModelConfig, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Field -> int32 [], how many of its values `check_values` would refuse; for use in jit.

    Args:
        config: the model's.
        batch: see `check_batch`; if shapes differ nothing is counted, the model will raise.
    """
    fields = {name: jnp.asarray(value) for name, value in _fields(config, batch).items()}
    found: dict[str, jax.Array] = {}
    if "ids" in fields and len({value.shape for value in fields.values()}) == 1:
        values = fields | _left_out(config, batch)
        for wrong in _wrong(config, values, _called(None)):
            before = found.setdefault(wrong.name, jnp.int32(0))
            found[wrong.name] = before + jnp.sum(wrong.at, dtype=jnp.int32)
    return found


def as_arrays(given: Mapping[str, Any], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Convert fields to JAX arrays; refuse integers that would wrap around to valid-looking ones.

    Args:
        given: field -> an array, a list, or None, which is left out.
        names: see `check_batch`.

    Raises:
        ValueError: naming fields with integers beyond the range of JAX's.
    """
    called, found, problems = dict(names or {}), {}, []
    for name, value in given.items():
        if isinstance(value, jax.Array):
            found[name] = value
        elif value is not None:
            array = as_numpy(value, called.get(name, name))
            problems += overflow_problems(called.get(name, name), array)
            found[name] = array
    raise_listed("batch", problems)
    return {name: jnp.asarray(value) for name, value in found.items()}


def check_shapes(shape: tuple[int, ...], **fields: jax.Array) -> None:
    """Raise if arrays that will be merged do not all have this shape.

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


def next_labels(config: ModelConfig, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Labels for a batch that has none: the id at the next position of the row.

    Args:
        config: the model's.
        batch: `ids` and other fields of the input, each [B, T].

    Returns:
        `labels`, `weights` float32, and `label_item_weights` if the input has item weights. The
        weight is 0 if the next position is beyond the row's end, padding, part of the prefix, in
        another segment, a word in a model without word logits, or a placeholder id that is no item:
        there the original's label is the target's own id, which the input does not contain. (A
        placeholder below I cannot be distinguished from the item with that id, and becomes the
        label.)
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
    if isinstance(config, EfficientIDSConfig):
        placeholder = config.placeholder_item_id
        if placeholder is not None and placeholder >= config.num_items:
            items = made.get("label_item_weights", jnp.ones_like(weights)) > 0
            weights = weights * ~(items & (made["labels"] == placeholder))
    if not _backbone(config).gives_words and "label_item_weights" in made:
        weights = weights * (made["label_item_weights"] > 0)
    if "segment_ids" in batch:
        weights = weights * (following(batch["segment_ids"]) == batch["segment_ids"])
    return made | {"weights": weights}


def _backbone(config: ModelConfig) -> BackboneConfig:
    return config if isinstance(config, BackboneConfig) else config.backbone


def _has_both(config: ModelConfig) -> bool:
    """Whether ids can be words or items, so that a mask is needed."""
    return isinstance(config, EfficientIDSConfig) and config.backbone.vocab_size > 0


def _fields(config: ModelConfig, batch: Mapping[str, Any]) -> dict[str, Any]:
    kinds = ("input_item_weights", "label_item_weights")
    left_out = kinds if isinstance(config, BackboneConfig) else ()
    return {
        name: batch[name] for name in FIELDS if batch.get(name) is not None and name not in left_out
    }


def _left_out(config: ModelConfig, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The `exclude` field alone, or nothing if the batch has none."""
    given = batch.get(EXCLUDE) if isinstance(config, EfficientIDSConfig) else None
    if given is None:
        return {}
    return {EXCLUDE: given if isinstance(given, jax.Array) else np.asarray(given)}


def _called(names: Mapping[str, str] | None) -> dict[str, str]:
    called = dict.fromkeys(("items", "words"), "ids") | {name: name for name in FIELDS}
    return called | dict(names or {})


def _needed(config: ModelConfig, labels: bool) -> set[str]:
    both = _has_both(config)
    needed = {"ids"} | ({"input_item_weights"} if both else set())
    if labels:
        needed |= {"labels", "weights"} | ({"label_item_weights"} if both else set())
    return needed


def _form_problems(name: str, value: Any, kind: str, shape: tuple[int, ...] | None) -> list[str]:
    """Rank, shape and dtype of one field."""
    if len(np.shape(value)) != 2 or 0 in np.shape(value):
        return [f"{name}: found {described(value)}, expected [B, T], above 0"]
    return form_problems(name, value, kind, shape, "the shape of the ids")


def _value_problems(
    config: ModelConfig, fields: Mapping[str, Any], called: Mapping[str, str]
) -> list[str]:
    values = {name: np.asarray(value) for name, value in fields.items()}
    return [text for wrong in _wrong(config, values, called) for text in wrong.problems()]


def _wrong(
    config: ModelConfig, values: Mapping[str, Any], called: Mapping[str, str]
) -> Iterator[Wrong]:
    """All checks of values, as NumPy or JAX arrays."""
    for name, value in values.items():
        if FIELDS.get(name) == MASK:
            yield wrong_masks(called[name], value)
    if "weights" in values:
        yield wrong_weights(called["weights"], values["weights"])
    backbone, ids, placeholder, items = _backbone(config), values["ids"], None, 0
    if isinstance(config, EfficientIDSConfig):
        items, placeholder = config.num_items, config.placeholder_item_id
    everywhere = np.full(ids.shape, isinstance(config, EfficientIDSConfig))
    present = values["paddings"] == 0 if "paddings" in values else np.ones(ids.shape, bool)
    is_item = values["input_item_weights"] > 0 if "input_item_weights" in values else everywhere
    target, word = wanted_ids(items, backbone.vocab_size)
    unknown = outside(ids, items)
    if placeholder is not None:
        unknown &= ids != placeholder
        target += f", or the placeholder {placeholder}"
    no_word = outside(ids, backbone.vocab_size)
    yield Wrong(called["items"], ids, present & is_item & unknown, target)
    yield Wrong(called["words"], ids, present & ~is_item & no_word, word)
    if "labels" in values:
        counts = values["weights"] > 0 if "weights" in values else present
        is_item = values["label_item_weights"] > 0 if "label_item_weights" in values else everywhere
        words = backbone.vocab_size if backbone.gives_words else 0
        yield from wrong_labels(called["labels"], values["labels"], counts, is_item, items, words)
    if EXCLUDE in values:  # an id beyond the catalogue would exclude nothing: surely a mistake
        left_out, wanted = values[EXCLUDE], f"below {items}, an item, or -1 for none"
        yield Wrong(EXCLUDE, left_out, left_out >= items, wanted)
    for name in ("segment_ids", "segment_pos"):
        if name in values:
            yield Wrong(called[name], values[name], present & (values[name] < 0), "at least 0")
    if backbone.position_embedding == "learned" and "segment_pos" in values:
        positions, longest = values["segment_pos"], backbone.max_positions or 0
        wanted = f"below {longest}, max_positions"
        yield Wrong(called["segment_pos"], positions, present & (positions >= longest), wanted)
