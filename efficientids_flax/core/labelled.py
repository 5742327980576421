"""Labelled positions of batches: the little that an evaluation has to keep of each batch.

Letters: B batch, T time, S devices that have rows of the batch, P positions of a row, p positions
of one device that are selected, N batches, X excluded items, D width of the hidden states.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from efficientids_flax.backbone.experts import LOSSES
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.head import HeadInputs
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.sharding import ACTIVATIONS, constrain

Batch = Mapping[str, Any]


class LabelPositions(NamedTuple):
    """Labelled positions of several batches, to be measured at once.

    A pass over a large catalogue is cheapest for each position if it is made for many, so batches
    wait here. The P positions of a row are those of N batches, one batch after another.

    Attributes:
        hidden: [B, P, D], output of the backbone.
        labels, weights, is_item: [B, P], as in a batch; 0 where there is no label.
        exclude: int [B, P, X], items that do not count as ranking before a label; None: none.
        auxiliary: float32 [N], the experts' loss in each batch.
        batches: float32 [N], 1 for each batch that is present.
    """

    hidden: jax.Array
    labels: jax.Array
    weights: jax.Array
    is_item: jax.Array
    exclude: jax.Array | None
    auxiliary: jax.Array
    batches: jax.Array


def label_positions(
    model: ItemModel, params: Any, batch: Batch, times: jax.Array, *, exclude_seen: bool = False
) -> LabelPositions:
    """The labelled positions of one batch.

    Args:
        model, params, batch, exclude_seen: see `evaluation_sums`.
        times: int [B, P], from `label_times`.
    """
    whole = model.config.backbone.moe is not None  # the experts' losses need all tokens
    (inputs, _), collections = applied(model, params, batch, None if whole else times)
    rows, length = jnp.shape(batch["labels"])
    parts = parts_of(rows)

    def at(value: Any) -> jax.Array:
        value = jnp.asarray(value)
        index = times.reshape(*times.shape, *[1] * (value.ndim - 2))
        return split(jnp.take_along_axis(value, index, axis=1))

    places = jnp.arange(rows)[:, None] % (rows // parts) * length + times
    exclude = excluded_at(model, batch, split(places.reshape(parts, -1)), parts, exclude_seen)
    given = batch.get("label_item_weights")
    weights = at(batch["weights"]).astype(jnp.float32)
    return LabelPositions(
        at(inputs.hidden) if whole else inputs.hidden,
        at(batch["labels"]),
        weights,
        jnp.ones(weights.shape) if given is None else at(given),
        None if exclude is None else exclude.reshape(*times.shape, -1),
        auxiliary_of(collections)[None],
        jnp.ones(1),
    )


def label_times(config: EfficientIDSConfig, batch: Batch) -> np.ndarray | None:
    """The positions of labels that count: int32 [B, P], times of each row, labelled ones first.

    P is the largest number in any row, rounded up to a power of two so that few shapes occur.

    Args:
        config: the model's.
        batch: with `weights`, and `label_item_weights` if the model has words; on the host.

    Returns:
        None if a field is missing or has another shape, which `check_batch` will report.
    """
    fields = ["weights"]
    if config.backbone.vocab_size and "label_item_weights" in batch:
        fields.append("label_item_weights")
    shapes = {jnp.shape(batch[name]) for name in ("labels", *fields) if name in batch}
    if "weights" not in batch or len(shapes) > 1 or len(shapes.pop()) != 2:
        return None
    counts = np.any([np.asarray(batch[name]) > 0 for name in fields], axis=0)
    most = max(int(counts.sum(axis=1).max(initial=0)), 1)
    order = np.argsort(~counts, axis=1, kind="stable").astype(np.int32)
    return order[:, : 1 << (most - 1).bit_length()]


def applied(model: ItemModel, params: Any, batch: Batch, at: jax.Array | None = None) -> Any:
    """((head inputs, head), mutable collections); `at`: see `ItemModel.head_inputs`."""
    return model.apply({"params": params}, batch, at, method=_inputs, mutable=[LOSSES])


def auxiliary_of(collections: Any) -> jax.Array:
    """Float32 [], sum of the experts' losses of a batch."""
    return sum(map(jnp.sum, jax.tree.leaves(collections.get(LOSSES, ()))), jnp.float32(0.0))


def _inputs(model: ItemModel, batch: Batch, at: jax.Array | None) -> tuple[HeadInputs, Any]:
    return model.head_inputs(batch, words=False, at=at), model.softmax.head


def parts_of(rows: int) -> int:
    """S, the number of devices that the rows of a batch are sharded over."""
    mesh = jax.sharding.get_abstract_mesh()
    count = 1
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True):
        if name in ACTIVATIONS["B"] and kind == AxisType.Auto:
            count *= mesh.shape[name]
    return count if rows % count == 0 else 1


def split(x: jax.Array) -> jax.Array:
    """Shard [S, ...] along its first axis, one part for each device."""
    return constrain(x, " ".join(["B", *"abcdef"[: x.ndim - 1]]))


def excluded_at(
    model: ItemModel, batch: Batch, places: jax.Array, parts: int, seen: bool
) -> jax.Array | None:
    """Ids that are excluded at places [S, p]: int [S, p, X], padded with -1."""
    lists = []
    rows, length = jnp.shape(batch["ids"])
    row, time = places // length, places % length

    def of_rows(value: Any) -> jax.Array:
        """[B, N] -> the rows of the places, [S, p, N]."""
        value = jnp.asarray(value).reshape(parts, rows // parts, -1)
        return split(jax.vmap(lambda part, index: part[index])(value, row))

    if "exclude" in batch:
        lists.append(of_rows(batch["exclude"]))
    if seen:
        ids = of_rows(batch["ids"])
        counts = jnp.arange(length) <= time[..., None]
        if "paddings" in batch:
            counts &= of_rows(batch["paddings"]) == 0
        if model.config.backbone.vocab_size:
            counts &= of_rows(batch["input_item_weights"]) > 0
        if "segment_ids" in batch:
            segments = of_rows(batch["segment_ids"])
            counts &= segments == jnp.take_along_axis(segments, time[..., None], axis=-1)
        if (placeholder := model.config.placeholder_item_id) is not None:
            known = jnp.zeros_like(counts)
            if "inputs_indicator" in batch:  # 1 in the history, 0 at placeholders
                known = of_rows(batch["inputs_indicator"]) > 0
            counts &= known | (ids != placeholder)
        lists.append(jnp.where(counts, ids, -1))
    return jnp.concatenate(lists, axis=-1) if lists else None
