"""Full softmax over a large catalogue, without ever holding all logits in memory.

The forward pass goes through the items in chunks and keeps running sums of exponentials; the
backward pass recomputes each chunk's logits (online softmax, arXiv 1805.02867; cut cross entropy,
arXiv 2411.09009). On a mesh each device handles its own shard of items and positions.

Letters: P positions, W width of query and table, V words, I items, M items of a chunk.
"""

from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as Spec

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.second import (
    NO_MEMBER,
    Entropy,
    Split,
    Sums,
    Tile,
    merged_sums,
    split_of,
    summed,
)

LOGITS_AT_ONCE = 1 << 20  # M P: 4 MiB of float32
SHORTEST_CHUNK = 64


class Classes(NamedTuple):
    """The classes of the softmax, and each position's label among them.

    Attributes:
        query: [P, W].
        items: [I, W].
        words: [P, V], logits before the soft cap; None if the model has no words.
        labels: int [P], words from 0, items from V; outside [0, V + I) there is no label.
    """

    query: jax.Array
    items: jax.Array
    words: jax.Array | None
    labels: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def chunked_cross_entropy(entropy: Entropy, given: Classes) -> tuple[jax.Array, jax.Array]:
    """Cross entropy over `[words ++ items]`.

    Args:
        entropy: soft cap and smoothing.
        given: all arrays.

    Returns:
        (losses, logsumexp of all logits), float32 [P] each; the loss is 0 where there is no label.
    """
    return _forward(entropy, given)[0]


def _forward(entropy: Entropy, given: Classes) -> tuple[Any, tuple[Classes, Sums]]:
    classes = _classes(given)

    def own(given: Classes, first: jax.Array, split: Split) -> Sums:
        chunks = _Chunks(entropy, given, first)
        items = merged_sums(chunks.sums(), split.items)
        return items if given.words is None else items.merged(_word_sums(entropy, given))

    def lie(split: Split) -> Any:
        return cast(Any, Sums)(*[Spec(split.positions)] * 4)

    sums = _everywhere(own, given, (), lie)
    counts = jnp.full(sums.highest.shape[0], classes)
    known = (given.labels >= 0) & (given.labels < classes)
    one = jax.tree.map(lambda x: x[:, None], sums)
    losses = jnp.where(known, entropy.losses(one, counts)[:, 0], 0.0)
    return (losses, sums.normaliser), (given, sums)


def _backward(entropy: Entropy, kept: tuple[Classes, Sums], arriving: Any) -> tuple[Classes]:
    given, sums = kept
    classes = _classes(given)
    known = (given.labels >= 0) & (given.labels < classes)
    weights = jnp.where(known, arriving[0], 0.0), arriving[1]

    def own(given: Classes, first: jax.Array, split: Split, *more: Any) -> Any:
        sums, weights = more
        of_query, of_items = _Chunks(entropy, given, first).gradients(sums, weights, classes)
        of_words = None
        if given.words is not None:
            of_words = _word_gradients(entropy, given, sums, weights, classes)
        return summed(of_query, split.items), summed(of_items, split.positions), of_words

    def lie(split: Split) -> Any:
        return Spec(split.positions), Spec(split.items), Spec(split.positions)

    of_query, of_items, of_words = _everywhere(own, given, (sums, weights), lie)
    return (cast(Any, Classes)(of_query, of_items, of_words, None),)


chunked_cross_entropy.defvjp(_forward, _backward)


def _classes(given: Classes) -> int:
    words = 0 if given.words is None else given.words.shape[1]
    return words + given.items.shape[0]


def _everywhere(own: Any, given: Classes, more: tuple[Any, ...], lie: Any) -> Any:
    """Run `own(given, first item of the shard, split, *more)` on each device.

    `more` are arrays sharded by position; `lie(split)` gives the partition specs of the results.
    """
    split = split_of(given.query.shape[0], given.items.shape[0])
    if not split.axes:
        return own(given, jnp.int32(0), split, *more)
    size = given.items.shape[0] // split.parts
    firsts = jnp.arange(split.parts, dtype=jnp.int32) * size
    whole = cast(Any, Classes)(
        Spec(split.positions), Spec(split.items),
        None if given.words is None else Spec(split.positions), Spec(split.positions),
    )  # fmt: skip

    def device(given: Classes, firsts: jax.Array, *more: Any) -> Any:
        return own(given, firsts[0], split, *more)

    by_position = [Spec(split.positions)] * len(more)
    return jax.shard_map(
        device, in_specs=(whole, Spec(split.items), *by_position), out_specs=lie(split),
        axis_names=set(split.axes), check_vma=False,
    )(given, firsts, *more)  # fmt: skip


class _Chunks:
    """One device's items in chunks; logits are [1, M, P], the layout that `Entropy` takes."""

    def __init__(self, entropy: Entropy, given: Classes, first: jax.Array) -> None:
        self._entropy, self._given = entropy, given
        words = 0 if given.words is None else given.words.shape[1]
        self._labels = given.labels - words - first  # among the items of the device
        positions, self._count = given.query.shape[0], given.items.shape[0]
        self._size = min(self._count, max(SHORTEST_CHUNK, LOGITS_AT_ONCE // max(positions, 1)))
        self._chunks = -(-self._count // self._size)

    def sums(self) -> Sums:
        """Sums over all items of the device, float32 [P]."""

        def add(number: Any, sums: Sums) -> Sums:
            _, _, logits, tile = self._chunk(number)
            return sums.merged(jax.tree.map(lambda x: x[0], self._entropy.sums(logits, tile)))

        zero = jnp.zeros(self._given.query.shape[0], jnp.float32)
        return jax.lax.fori_loop(
            0, self._chunks, add, Sums(zero + NO_MEMBER, zero, zero, zero)
        )  # fmt: skip

    def gradients(
        self, sums: Sums, weights: tuple[jax.Array, jax.Array], classes: int
    ) -> tuple[jax.Array, jax.Array]:
        """Gradients by the query [P, W] and by the items.

        Args:
            sums: float32 [P], over all classes.
            weights: float32 [P] each, cotangents of the losses and of the logsumexp.
            classes: V + I.
        """
        query = self._given.query
        whole = jax.tree.map(lambda x: x[None], sums)
        of_losses, of_normaliser = (x[None] for x in weights)

        def back(number: Any, carry: tuple[jax.Array, jax.Array]) -> Any:
            of_query, of_items = carry
            start, rows, logits, tile = self._chunk(number)
            found = self._entropy.gradients(
                logits, tile, whole, jnp.full(1, classes), of_losses, of_normaliser
            )[0].astype(query.dtype)
            more = found @ query
            before = jax.lax.dynamic_slice_in_dim(of_items, start, self._size)
            of_items = jax.lax.dynamic_update_slice_in_dim(of_items, before + more, start, 0)
            return of_query + jnp.einsum("mp,mw->pw", found, rows), of_items

        zero = jnp.zeros_like(query), jnp.zeros_like(self._given.items)
        return jax.lax.fori_loop(0, self._chunks, back, zero)

    def _chunk(self, number: Any) -> tuple[Any, jax.Array, jax.Array, Tile]:
        """(start, rows [M, W], logits, tile) of one chunk.

        The last chunk overlaps the one before; the rows already seen are masked.
        """
        start = jnp.minimum(number * self._size, self._count - self._size)
        rows = jax.lax.dynamic_slice_in_dim(self._given.items, start, self._size)
        products = jnp.einsum("mw,pw->mp", rows, self._given.query)[None]
        valid = (start + jnp.arange(self._size) >= number * self._size)[None]
        labels = self._labels - start
        labels = jnp.where(self._labels >= number * self._size, labels, -1)
        tile = Tile(valid, labels[None])
        return start, rows, self._entropy.logits(products, tile), tile


def _word_sums(entropy: Entropy, given: Classes) -> Sums:
    """Sums over the words, float32 [P]."""
    logits, _ = _word_logits(entropy, given)
    labels = given.labels[:, None]
    highest = jnp.max(logits, axis=1)
    own = jnp.sum(jnp.where(jnp.arange(logits.shape[1]) == labels, logits, 0.0), axis=1)
    exponentials = jnp.sum(jnp.exp(logits - highest[:, None]), axis=1)
    return Sums(highest, exponentials, jnp.sum(logits, axis=1), own)


def _word_gradients(
    entropy: Entropy, given: Classes, sums: Sums, weights: Any, classes: int
) -> jax.Array:
    """Gradient by the word logits, [P, V]."""
    logits, back = _word_logits(entropy, given)
    of_losses, of_normaliser = (x[:, None] for x in weights)
    chances = jnp.exp(logits - sums.highest[:, None]) / sums.exponentials[:, None]
    other = entropy.smoothing / max(classes - 1, 1)
    own = jnp.arange(logits.shape[1]) == given.labels[:, None]
    targets = jnp.where(own, 1.0 - entropy.smoothing if classes > 1 else 1.0, other)
    return back((of_losses + of_normaliser) * chances - of_losses * targets)[0]


def _word_logits(entropy: Entropy, given: Classes) -> tuple[jax.Array, Any]:
    assert given.words is not None
    return jax.vjp(lambda x: soft_cap(x.astype(jnp.float32), entropy.cap), given.words)
