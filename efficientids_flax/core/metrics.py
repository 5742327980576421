"""Ranking and token metrics, as sums and weights that add up over batches.

    sums = ranking_sums(model.evaluation_logits(batch), labels, is_item, num_words=V)  # jitted
    total = total + sums                                                              # on device
    total.compute()                                # {'recall_at_1': ..., 'ndcg_at_10': ...}

The metrics and names are those of PAXml's experiments. Letters: B batch, T time, C classes (words
and items, or items alone), V words, I items, A cutoffs.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

CUTOFFS = (1, 5, 10)
EPSILON = 1e-6  # PAXml adds this to the sum of the weights
NEVER = (1 << 31) - 1  # rank of a label that is never found: beyond any cutoff


@struct.dataclass
class RankingSums:
    """Weighted sums of recall, MRR and nDCG at each cutoff; `a + b` joins batches.

    Attributes:
        recall, mrr, ndcg: float32 [A], weighted sums over positions.
        weight: float32 [], sum of the weights.
        cutoffs: the k of recall@k and so on, one for each entry.
    """

    recall: jax.Array
    mrr: jax.Array
    ndcg: jax.Array
    weight: jax.Array
    cutoffs: tuple[int, ...] = struct.field(pytree_node=False, default=CUTOFFS)

    @classmethod
    def zero(cls, cutoffs: tuple[int, ...] = CUTOFFS) -> RankingSums:
        """Sums over no positions, to start a loop over batches."""
        none = jnp.zeros(len(cutoffs), jnp.float32)
        return cls(none, none, none, jnp.zeros((), jnp.float32), cutoffs)

    def __add__(self, other: RankingSums) -> RankingSums:
        if self.cutoffs != other.cutoffs:
            raise ValueError(f"cutoffs: {self.cutoffs} and {other.cutoffs} do not add up")
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, jax.Array]:
        """Name -> mean over the positions, `sum / max(weight, 1)`, float32 []."""
        divisor = jnp.maximum(self.weight, 1.0)
        return {
            f"{name}_at_{cutoff}": getattr(self, name)[place] / divisor
            for name in ("recall", "mrr", "ndcg")
            for place, cutoff in enumerate(self.cutoffs)
        }


@struct.dataclass
class TokenSums:
    """Sums behind the loss metrics; `a + b` joins batches.

    Attributes:
        xent: float32 [], weighted cross entropy.
        weight: float32 [], sum of the weights.
        aux, weighted_aux: float32 [], sum of the batches' auxiliary losses, and of these times the
            batch's weight.
        batches: float32 [], number of batches.
        correct: float32 [], weight of the correct predictions; None if not asked for (it needs the
            scores of all classes).
    """

    xent: jax.Array
    weight: jax.Array
    aux: jax.Array
    weighted_aux: jax.Array
    batches: jax.Array
    correct: jax.Array | None = None

    def __add__(self, other: TokenSums) -> TokenSums:
        if (self.correct is None) != (other.correct is None):
            raise ValueError("correct: one of the batches counts correct predictions, one does not")
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, jax.Array]:
        """Name -> value, float32 [], under PAXml's names.

        `avg_xent` and `log_pplx` are `xent / (weight + 1e-6)`, and `total_loss` adds the auxiliary
        loss. `fraction_of_correct_next_step_preds` exists if correct predictions were counted.
        """
        mean = self.xent / (self.weight + EPSILON)
        found = {
            "avg_xent": mean,
            "log_pplx": mean,
            "total_loss": mean + self.weighted_aux / jnp.maximum(self.weight, EPSILON),
            "aux_loss": self.aux / jnp.maximum(self.batches, 1.0),
            "num_predictions": self.weight,
        }
        if self.correct is not None:
            divisor = jnp.maximum(self.weight, 1.0)
            found["fraction_of_correct_next_step_preds"] = self.correct / divisor
        return found


def ranking_sums(
    scores: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    num_words: int = 0,
    cutoffs: tuple[int, ...] = CUTOFFS,
    exclude: jax.Array | None = None,
) -> RankingSums:
    """Rank each label among all classes, in float32, and sum up the metrics.

    Args:
        scores: [B, T, I], or [B, T, V + I] with words first (the original ranks among both; with a
            soft cap its words have a finite score).
        labels: int [B, T], item ids; a label outside [0, I) counts as never found.
        weights: [B, T], `label_item_weights`: 1 where the label is an item.
        num_words: V.
        cutoffs: the k of recall@k and so on.
        exclude: int [B, X] or [B, T, X], items that do not count as ranking before the label, such
            as those already seen. Ids outside [0, I) have no effect, and the label itself is never
            excluded.

    Raises:
        ValueError: shapes do not fit each other; cutoffs are not above 0.
    """
    _check_shapes(scores, labels, weights, num_words, cutoffs)
    num_items = scores.shape[-1] - num_words
    inside = (labels >= 0) & (labels < num_items)
    if exclude is not None:
        if exclude.ndim == labels.ndim:
            exclude = exclude[..., None, :]
        if exclude.ndim != scores.ndim or exclude.shape[0] != labels.shape[0]:
            raise ValueError(f"exclude: found {list(exclude.shape)}, expected [B, X] or [B, T, X]")
        exclude = jnp.broadcast_to(exclude, (*labels.shape, exclude.shape[-1]))
        items = (exclude >= 0) & (exclude < num_items)
        exclude = jnp.where(items, exclude + num_words, -1)
    rank = ranks(scores, jnp.where(inside, labels, -1 - num_words) + num_words, exclude)
    return ranking_sums_of_ranks(rank, weights, cutoffs)


def token_sums(
    xent: jax.Array,
    weights: jax.Array,
    *,
    aux_loss: jax.Array | float = 0.0,
    correct: jax.Array | None = None,
) -> TokenSums:
    """Sums of one batch.

    Args:
        xent: [B, T], cross entropy of each label.
        weights: [B, T].
        aux_loss: [], z-loss and load balance.
        correct: bool [B, T], see `correct_predictions`; None leaves the fraction out.

    Raises:
        ValueError: shapes that differ.
    """
    for name, value in (("weights", weights), ("correct", correct)):
        if value is not None and value.shape != xent.shape:
            raise ValueError(f"{name}: found {list(value.shape)}, xent is {list(xent.shape)}")
    weights = weights.astype(jnp.float32)
    weight = jnp.sum(weights)
    aux = jnp.asarray(aux_loss, jnp.float32)
    return TokenSums(
        # Positions without weight are ignored even if their entropy is infinite.
        xent=jnp.sum(jnp.where(weights == 0, 0.0, xent.astype(jnp.float32) * weights)),
        weight=weight,
        aux=aux,
        weighted_aux=aux * weight,
        batches=jnp.ones((), jnp.float32),
        correct=None if correct is None else jnp.sum(jnp.where(correct, weights, 0.0)),
    )


def correct_predictions(
    scores: jax.Array, labels: jax.Array, is_item: jax.Array, *, num_words: int
) -> jax.Array:
    """Whether the best class is the label's class: the id of a word, or V + the id of an item.

    Args:
        scores: [B, T, V + I].
        labels: int [B, T].
        is_item: [B, T], 1 where the label is an item.
        num_words: V.

    Returns:
        bool [B, T].
    """
    classes = jnp.where(is_item > 0, labels + num_words, labels)
    known = ~jnp.any(jnp.isnan(scores), axis=-1)  # argmax takes a NaN for the largest
    return known & (jnp.argmax(scores, axis=-1) == classes)


def ranks(scores: jax.Array, classes: jax.Array, exclude: jax.Array | None = None) -> jax.Array:
    """How many classes rank before the given one: higher score, or equal score and lower id.

    Counts in one pass over the scores instead of sorting them.

    Args:
        scores: [..., C].
        classes: int [...]; outside [0, C), or with score NaN, the rank is `NEVER`.
        exclude: int [..., X], classes that do not count; negative ids are padding.

    Returns:
        int32 [...], 0 is best.
    """
    count, scores = scores.shape[-1], scores.astype(jnp.float32)
    index = jnp.clip(classes, 0, count - 1)[..., None]
    own = jnp.take_along_axis(scores, index, axis=-1)
    before = (scores > own) | ((scores == own) & (jnp.arange(count) < index))
    found = (classes >= 0) & (classes < count) & ~jnp.isnan(own[..., 0])
    rank = jnp.sum(before, axis=-1, dtype=jnp.int32)
    if exclude is not None:
        ids = jnp.sort(exclude, axis=-1)  # so that each counts once
        again = jnp.pad(ids[..., 1:] == ids[..., :-1], [(0, 0)] * (ids.ndim - 1) + [(1, 0)])
        counted = jnp.take_along_axis(before, jnp.clip(ids, 0, count - 1), axis=-1)
        rank -= jnp.sum(counted & ~again & (ids >= 0), axis=-1, dtype=jnp.int32)
    return jnp.where(found, rank, NEVER)


def gain(
    name: Literal["recall", "mrr", "ndcg"], rank: jax.Array, cutoffs: tuple[int, ...]
) -> jax.Array:
    """Gain of a label at a rank: 1, 1 / (rank + 1) or 1 / log2(rank + 2); 0 beyond the cutoff.

    Returns:
        float32 [..., A].
    """
    place = rank.astype(jnp.float32)
    worth = {
        "recall": jnp.ones_like(place),
        "mrr": 1.0 / (place + 1.0),
        "ndcg": 1.0 / jnp.log2(place + 2.0),
    }[name]
    return jnp.where(rank[..., None] < jnp.asarray(cutoffs), worth[..., None], 0.0)


def ranking_sums_of_ranks(
    rank: jax.Array, weights: jax.Array, cutoffs: tuple[int, ...] = CUTOFFS
) -> RankingSums:
    """`RankingSums` from ranks int32 [...] (0 is best, `NEVER`: not found) and weights [...]."""
    weights = weights.astype(jnp.float32)
    positions = tuple(range(weights.ndim))
    recall, mrr, ndcg = (
        jnp.sum(gain(name, rank, cutoffs) * weights[..., None], axis=positions)
        for name in ("recall", "mrr", "ndcg")
    )
    return RankingSums(recall, mrr, ndcg, jnp.sum(weights), cutoffs)


def _check_shapes(
    scores: Any, labels: Any, weights: Any, num_words: int, cutoffs: tuple[int, ...]
) -> None:
    if not cutoffs or min(cutoffs) <= 0:
        raise ValueError(f"cutoffs: expected numbers above 0, found {cutoffs}")
    if not 0 <= num_words < scores.shape[-1]:
        raise ValueError(
            f"num_words: expected in [0, {scores.shape[-1]}), the classes, found {num_words}"
        )
    for name, value in (("labels", labels), ("weights", weights)):
        if value.shape != scores.shape[:-1]:
            raise ValueError(
                f"{name}: found {list(value.shape)}, expected {list(scores.shape[:-1])}"
            )
