"""Metrics of a list of recommendations against the items that were held out, by definition.

With L_1, L_2, ... the list, R the items held out (each once), and r_j = 1 where L_j is one of R:

    hit_rate@k   1 if any of r_1 ... r_k is 1
    recall@k     (r_1 + ... + r_k) / |R|
    mrr@k        1 / j of the first j <= k with r_j = 1, else 0
    ndcg@k       sum_j<=k r_j / log2(j + 1), divided by what the best list reaches,
                 sum_j<=min(k, |R|) 1 / log2(j + 1)
    map@k        sum_j<=k r_j (r_1 + ... + r_j) / j, divided by min(k, |R|)

Binary relevance; Järvelin and Kekäläinen 2002 (nDCG), Voorhees 1999 (MRR), Manning et al. 2008,
section 8.4 (MAP). Of one held-out item hit_rate is recall, and map is mrr.

Letters: B lists, k items of a list, Y held-out items, A cutoffs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

METRICS = ("hit_rate", "recall", "mrr", "ndcg", "map")
"""Metrics of a ranked list; reports name them `<metric>_at_<k>`."""


@partial(jax.jit, static_argnames="cutoffs")
def list_metrics(
    top: jax.Array, held_out: jax.Array, cutoffs: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Metrics of each list; compiled once a shape, rows may lie on several devices.

    Args:
        top: int [B, k], item ids, best first; below 0 there is none, and one that stands there
            again takes its place and finds nothing.
        held_out: int [B, Y], item ids; one that stands twice counts once, below 0 there is none. An
            id beyond the catalogue is never found, and counts.
        cutoffs: how many of the first items each metric looks at.

    Returns:
        Name of `METRICS` -> float32 [B, A]; NaN where nothing was held out: it is not measured.

    Raises:
        ValueError: cutoffs that are not above 0, or beyond the list; shapes that do not fit.
    """
    check_cutoffs(cutoffs, top.shape[-1])
    if top.ndim != 2 or held_out.ndim != 2 or len(top) != len(held_out):
        raise ValueError(
            f"top, held_out: found {list(top.shape)} and {list(held_out.shape)}, expected [B, k]"
            " and [B, Y]"
        )
    ids = jnp.sort(held_out, axis=1)
    again = jnp.concatenate([jnp.zeros_like(ids[:, :1], bool), ids[:, 1:] == ids[:, :-1]], axis=1)
    ids = jnp.where(again, -1, ids)
    number = jnp.sum(ids >= 0, axis=1, dtype=jnp.int32)
    place = jnp.arange(1, top.shape[1] + 1)
    repeats = (top[:, :, None] == top[:, None, :]) & (place[:, None] > place)
    hits = jnp.any((top[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, None, :], axis=-1)
    hits &= ~jnp.any(repeats, axis=-1)
    found = jnp.cumsum(hits, axis=1)  # up to each place
    gains = jnp.cumsum(jnp.where(hits, 1.0 / jnp.log2(place + 1.0), 0.0), axis=1)
    precisions = jnp.cumsum(jnp.where(hits, found / place, 0.0), axis=1)
    first = jnp.where(found[:, -1] > 0, 1.0 / (jnp.argmax(hits, axis=1) + 1.0), 0.0)
    # What is best for so many held-out items, float64 on the host: [0, 1, 1 + 1 / log2(3), ...].
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(max(cutoffs)) + 2.0))])
    ends = np.asarray(cutoffs) - 1
    most = jnp.minimum(number[:, None], np.asarray(cutoffs))
    some = (number > 0)[:, None]
    safe = jnp.maximum(most, 1)
    values = {
        "hit_rate": (found[:, ends] > 0).astype(jnp.float32),
        "recall": found[:, ends] / jnp.maximum(number, 1)[:, None],
        "mrr": jnp.where(found[:, ends] > 0, first[:, None], 0.0),
        "ndcg": gains[:, ends] / jnp.asarray(ideal, jnp.float32)[safe],
        "map": precisions[:, ends] / safe,
    }
    return {name: jnp.where(some, value, jnp.nan) for name, value in values.items()}


def check_cutoffs(cutoffs: tuple[int, ...], most: int) -> None:
    """Raise ValueError unless cutoffs are whole numbers in [1, `most`], and some."""
    if not cutoffs or min(cutoffs) < 1 or max(cutoffs) > most:
        raise ValueError(f"cutoffs: expected whole numbers in [1, {most}], found {cutoffs}")
