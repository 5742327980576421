"""Metrics of all lists together: how much of the catalogue they show, and how unevenly.

    coverage@k             items that stand among the first k of any list / I
    gini@k                 sum_i (2 i - I - 1) x_i / (I sum_i x_i), where x_1 <= ... <= x_I counts
                           in how many lists each item is among the first k: 0 where all are shown
                           equally often, near 1 where few items fill the lists
    average_popularity@k   mean, over the places of all lists, of how often the item there was
                           trained on (Yin et al. 2012)

Letters: B lists, k items of a list, I items, A cutoffs.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.evaluation.metrics.lists import check_cutoffs


@partial(jax.jit, static_argnames=("num_items", "cutoffs"))
def exposure(top: jax.Array, num_items: int, cutoffs: tuple[int, ...]) -> jax.Array:
    """In how many lists each item is among the first: int32 [A, I], which add up over batches.

    Args:
        top: int [B, k], item ids; others than [0, I) are none.
        num_items: I.
        cutoffs: of each row of the result.

    Raises:
        ValueError: cutoffs that are not above 0, or beyond the list.
    """
    check_cutoffs(cutoffs, top.shape[-1])
    ids = jnp.where(top < 0, num_items, top)  # negative indices would count from the end
    none = jnp.zeros(num_items, jnp.int32)
    return jnp.stack([none.at[ids[:, :cutoff]].add(1, mode="drop") for cutoff in cutoffs])


def coverage(shown: np.ndarray) -> np.ndarray:
    """Share of the items that any list shows: int [..., I] of `exposure` -> float64 [...]."""
    return np.mean(np.asarray(shown) > 0, axis=-1)


def gini(shown: np.ndarray) -> np.ndarray:
    """How unevenly items are shown: int [..., I] -> float64 [...]; NaN where none is shown."""
    counts = np.sort(np.asarray(shown, np.float64), axis=-1)
    items = counts.shape[-1]
    weights = 2.0 * np.arange(1, items + 1) - items - 1.0
    total = counts.sum(axis=-1)
    return np.where(total > 0, counts @ weights / (items * np.where(total > 0, total, 1.0)), np.nan)


def average_popularity(shown: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often what is shown was trained on, on average.

    Args:
        shown: int [..., I], of `exposure`.
        counts: [I], how often each item was trained on.

    Returns:
        float64 [...]; NaN where nothing is shown.
    """
    shown = np.asarray(shown, np.float64)
    total = shown.sum(axis=-1)
    mean = shown @ np.asarray(counts, np.float64) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, np.nan)
