"""An evaluation's sums over a batch: only labelled positions are scored, some at a time.

Letters: B batch, T time, S devices that have rows of the batch, P positions of one device, p
positions scored at a time, W width of queries, V words, I items, X excluded items.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.head import HeadInputs
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.measures import Measures, Scoring, measure, table_of, tiles_of
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.core.labelled import (
    Batch,
    LabelPositions,
    applied,
    auxiliary_of,
    excluded_at,
    parts_of,
    split,
)
from efficientids_flax.core.metrics import NEVER, ranking_sums_of_ranks, token_sums

AT_ONCE = 1 << 20  # most scores of a tile, p x its slots: 4 MiB in float32 fit the cache
POSITIONS = 1 << 9  # largest p, for small tiles
EVEN = 64  # p is a multiple of this if possible, to fill vector units
WORDS_AT_ONCE = 1 << 24  # most logits of words, p x V


def evaluation_sums(
    model: ItemModel,
    params: Any,
    batch: Batch,
    *,
    scoring: Scoring = "log_probs",
    exclude_seen: bool = False,
) -> dict[str, Any]:
    """Sums over a batch that add up over an evaluation.

    Args:
        model: in the precision in which it is evaluated.
        params: its parameters.
        batch: see `ItemModel.loss`; and `exclude` int [B, X], items that do not count as ranking
            before a label, padded with -1.
        scoring: see `measure`.
        exclude_seen: also exclude the items of the input up to the label's position.

    Returns:
        'loss', `TokenSums`, and 'ranking', `RankingSums`.
    """
    (inputs, head), collections = applied(model, params, batch)
    labels = jnp.asarray(batch["labels"])
    rows = labels.shape[0]

    def exclude(places: jax.Array) -> jax.Array | None:
        return excluded_at(model, batch, places, parts_of(rows), exclude_seen)

    given = batch.get("label_item_weights")
    asked = LabelPositions(
        inputs.hidden,
        labels,
        jnp.asarray(batch["weights"]).astype(jnp.float32),
        jnp.ones(labels.shape) if given is None else jnp.asarray(given),
        None,
        auxiliary_of(collections)[None],
        jnp.ones(1),
    )
    return _sums(model, params, inputs, head, asked, scoring, exclude)


def sums_of_positions(
    model: ItemModel, params: Any, asked: LabelPositions, *, scoring: Scoring = "log_probs"
) -> dict[str, Any]:
    """The same as `evaluation_sums`, for labelled positions of several batches."""
    found: Any = model.apply({"params": params}, asked.hidden, method=_tables)
    inputs, head = found

    def exclude(places: jax.Array) -> jax.Array | None:
        if asked.exclude is None:
            return None
        flat = asked.exclude.reshape(len(places), -1, asked.exclude.shape[-1])
        return split(jnp.take_along_axis(flat, places[..., None], axis=1))

    return _sums(model, params, inputs, head, asked, scoring, exclude)


def _sums(
    model: ItemModel,
    params: Any,
    inputs: HeadInputs,
    head: Head,
    asked: LabelPositions,
    scoring: Scoring,
    excluded: Callable[[jax.Array], jax.Array | None],
) -> dict[str, Any]:
    """Measure all labels and sum up; `excluded` gives the ids that are excluded at given places."""
    vocab = model.config.backbone.vocab_size
    labels, weights, is_item = asked.labels, asked.weights, asked.is_item
    # As in the original: if the model has words, every item label is ranked, whatever its weight.
    ranked = is_item.astype(jnp.float32) * (1.0 if vocab else weights)
    parts = parts_of(labels.shape[0])
    tiles = tiles_of(head.clustering, model.config.num_items)
    # Sort positions: those that count first, in the order of their labels' places in the tiles.
    counts = ((weights > 0) | (ranked > 0)).reshape(parts, -1)
    places = jnp.asarray(tiles.places)[jnp.clip(labels, 0, model.config.num_items - 1)]
    places = jnp.where(counts, places.reshape(parts, -1), tiles.ids.size)
    order = jnp.argsort(places, axis=1, stable=True)
    most = jnp.max(jnp.sum(counts, axis=1))
    positions = order.shape[1]
    table = table_of(inputs.items, tiles)
    size = min(positions, POSITIONS, AT_ONCE // tiles.slots, WORDS_AT_ONCE // max(vocab, 1))
    size = max(1, size // EVEN * EVEN or size)
    blocks = -(-positions // size)
    order = jnp.pad(order, ((0, 0), (0, blocks * size - positions)))

    def of(value: jax.Array, places: jax.Array) -> jax.Array:
        """[B, T, ...] at places [S, p] -> [S, p, ...]."""
        flat = value.reshape(parts, positions, *value.shape[2:])
        index = places.reshape(*places.shape, *[1] * (flat.ndim - 2))
        return split(jnp.take_along_axis(flat, index, axis=1))

    def flat(value: jax.Array) -> jax.Array:
        """[S, p, ...] -> [S p, ...]."""
        return value.reshape(-1, *value.shape[2:])

    def block(number: jax.Array, made: Measures) -> Measures:
        places = jax.lax.dynamic_slice_in_dim(order, number * size, size, axis=1)
        hidden, query, words = of(inputs.hidden, places), of(inputs.query, places), None
        if model.config.backbone.gives_words:
            made_words: Any = model.apply({"params": params}, hidden, method="word_logits")
            words = flat(made_words)
        own = HeadInputs(
            flat(hidden), flat(query), inputs.items, inputs.clusters, words, inputs.rows
        )
        exclude = excluded(places)
        found = measure(
            head, own, tiles, flat(of(labels, places)), flat(of(is_item, places)), table=table,
            scoring=scoring, exclude=None if exclude is None else flat(exclude),
        )  # fmt: skip
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
                whole, split(part.reshape(parts, size)), number * size, 1
            ),
            made,
            found,
        )

    shape = (parts, blocks * size)
    nothing = Measures(
        jnp.zeros(shape), jnp.full(shape, NEVER, jnp.int32), jnp.zeros(shape, bool),
        jnp.zeros(shape),
    )  # fmt: skip
    with_labels = (most + size - 1) // size
    found = jax.lax.fori_loop(0, with_labels, block, jax.tree.map(split, nothing))
    inside = jnp.arange(blocks * size) < positions  # the last block is padded
    weight, rank_weight = (jnp.where(inside, of(x, order), 0.0) for x in (weights, ranked))
    count = len(asked.batches)
    of_batches = jnp.sum(weights.reshape(len(weights), count, -1), axis=(0, 2))  # [N]
    auxiliary = asked.auxiliary
    if model.config.z_loss_weight:
        batch = order % labels.shape[1] // (labels.shape[1] // count)
        squares = jnp.where(weight > 0, found.squares * weight, 0.0)
        total = jnp.sum(squares * (batch == jnp.arange(count)[:, None, None]), axis=(1, 2))
        mean = jnp.where(of_batches > 0, total / jnp.where(of_batches > 0, of_batches, 1.0), 0.0)
        auxiliary += model.config.z_loss_weight * mean
    loss = replace(
        token_sums(found.entropy, weight, correct=found.best),
        aux=jnp.sum(auxiliary),
        weighted_aux=jnp.sum(auxiliary * of_batches),
        batches=jnp.sum(asked.batches),
    )
    return {"loss": loss, "ranking": ranking_sums_of_ranks(found.rank, rank_weight)}


def _tables(model: ItemModel, hidden: jax.Array) -> tuple[HeadInputs, Any]:
    return model.softmax.inputs(hidden), model.softmax.head
