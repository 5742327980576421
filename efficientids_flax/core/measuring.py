"""A batch's sums of an evaluation: scores are made of labelled positions alone, some at a time.

Letters: B batch, T time, S devices that have rows of the batch, P positions of one of them, p those
that are scored at a time, W width of queries, V words, I items, X excluded items.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from efficientids_flax.backbone.experts import LOSSES
from efficientids_flax.core.head import HeadInputs
from efficientids_flax.core.head.measures import Measures, Scoring, measure, table_of, tiles_of
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.core.metrics import NEVER, ranking_sums_of_ranks, token_sums
from efficientids_flax.sharding import ACTIVATIONS, constrain

AT_ONCE = 1 << 19  # scores of a tile, p x its slots: 2 MiB in float32 stay in the cache
POSITIONS = 1 << 8  # p at most where tiles are small
EVEN = 64  # of which p is a multiple where it can be: vector units are even
WORDS_AT_ONCE = 1 << 24  # logits of words, p x V

Batch = Mapping[str, Any]


def evaluation_sums(
    model: ItemModel,
    params: Any,
    batch: Batch,
    *,
    scoring: Scoring = "log_probs",
    exclude_seen: bool = False,
) -> dict[str, Any]:
    """What adds up over an evaluation.

    Args:
        model: in the precision in which it is evaluated.
        params: of it.
        batch: see `ItemModel.loss`; and `exclude` int [B, X], items that do not stand before a
            label, -1 where there are fewer.
        scoring: see `measure`.
        exclude_seen: leave out the items of the input up to the label's position too.

    Returns:
        'loss', `TokenSums`, and 'ranking', `RankingSums`.
    """
    variables = {"params": params}
    found, collections = model.apply(variables, batch, method=_inputs, mutable=[LOSSES])
    inputs, head = found  # pyright: ignore[reportGeneralTypeIssues]
    vocab = model.config.backbone.vocab_size
    labels = jnp.asarray(batch["labels"])
    weights = jnp.asarray(batch["weights"]).astype(jnp.float32)
    given = batch.get("label_item_weights")
    is_item = jnp.ones(labels.shape) if given is None else jnp.asarray(given)
    # As the original has it: with words every label that is an item is ranked.
    ranked = is_item.astype(jnp.float32) * (1.0 if vocab else weights)
    parts = _parts(labels.shape[0])
    tiles = tiles_of(head.clustering, model.config.num_items)
    # The positions that count come first, by the places of their labels.
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
        return _split(jnp.take_along_axis(flat, index, axis=1))

    def flat(value: jax.Array) -> jax.Array:
        """[S, p, ...] -> [S p, ...]."""
        return value.reshape(-1, *value.shape[2:])

    def block(number: jax.Array, made: Measures) -> Measures:
        places = jax.lax.dynamic_slice_in_dim(order, number * size, size, axis=1)
        hidden, query, words = of(inputs.hidden, places), of(inputs.query, places), None
        if model.config.backbone.gives_words:
            made_words: Any = model.apply(variables, hidden, method="word_logits")
            words = flat(made_words)
        own = HeadInputs(
            flat(hidden), flat(query), inputs.items, inputs.clusters, words, inputs.rows
        )
        exclude = _exclude(model, batch, places, parts, exclude_seen)
        found = measure(
            head, own, tiles, flat(of(labels, places)), flat(of(is_item, places)), table=table,
            scoring=scoring, exclude=None if exclude is None else flat(exclude),
        )  # fmt: skip
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
                whole, _split(part.reshape(parts, size)), number * size, 1
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
    found = jax.lax.fori_loop(0, with_labels, block, jax.tree.map(_split, nothing))
    inside = jnp.arange(blocks * size) < positions  # the last block is filled up
    weight, rank_weight = (jnp.where(inside, of(x, order), 0.0) for x in (weights, ranked))
    auxiliary = sum(map(jnp.sum, jax.tree.leaves(collections.get(LOSSES, ()))), jnp.float32(0.0))
    if model.config.z_loss_weight:
        total = jnp.sum(weight)
        squares = jnp.sum(jnp.where(weight > 0, found.squares * weight, 0.0))
        mean = jnp.where(total > 0, squares / jnp.where(total > 0, total, 1.0), 0.0)
        auxiliary += model.config.z_loss_weight * mean
    return {
        "loss": token_sums(found.entropy, weight, aux_loss=auxiliary, correct=found.best),
        "ranking": ranking_sums_of_ranks(found.rank, rank_weight),
    }


def _inputs(model: ItemModel, batch: Batch) -> tuple[HeadInputs, Any]:
    return model.head_inputs(batch, words=False), model.softmax.head


def _parts(rows: int) -> int:
    """S: among how many devices the rows of a batch are split."""
    mesh = jax.sharding.get_abstract_mesh()
    count = 1
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True):
        if name in ACTIVATIONS["B"] and kind == AxisType.Auto:
            count *= mesh.shape[name]
    return count if rows % count == 0 else 1


def _split(x: jax.Array) -> jax.Array:
    """[S, ...], one part a device."""
    return constrain(x, " ".join(["B", *"abcdef"[: x.ndim - 1]]))


def _exclude(
    model: ItemModel, batch: Batch, places: jax.Array, parts: int, seen: bool
) -> jax.Array | None:
    """Ids that are left out at places [S, p]: int [S, p, X], -1 where there are fewer."""
    lists = []
    rows, length = jnp.shape(batch["ids"])
    row, time = places // length, places % length

    def of_rows(value: Any) -> jax.Array:
        """[B, N] -> the rows of the places, [S, p, N]."""
        value = jnp.asarray(value).reshape(parts, rows // parts, -1)
        return _split(jax.vmap(lambda part, index: part[index])(value, row))

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
