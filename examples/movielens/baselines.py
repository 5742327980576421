"""Baselines without training by gradients: most popular items, and items similar to the history.

Letters: U users, I items.
"""

import numpy as np

from efficientids_flax.data.rows import Sequences


def popularity(sequences: Sequences, histories: list[np.ndarray]) -> np.ndarray:
    """The count of each item in the training split, the same for every user: float32 [U, I]."""
    watched = np.concatenate(training_items(sequences))
    counts = np.bincount(watched, minlength=sequences.num_items)
    return np.tile(counts.astype(np.float32), (len(histories), 1))


def item_knn(
    sequences: Sequences, histories: list[np.ndarray], *, neighbors: int, decay: float
) -> np.ndarray:
    """Item-based nearest neighbours: sums of cosines with the history, recent items counting more.

    Args:
        sequences: their training split gives the cosines between items, by users.
        histories: U histories, oldest first.
        neighbors: only this many most similar items of each item count.
        decay: factor on an item's weight per later item in the history; 1: all count alike.

    Returns:
        float32 [U, I].
    """
    people = training_items(sequences)
    watched = np.zeros((len(people), sequences.num_items), np.float32)
    for row, items in enumerate(people):
        watched[row, items] = 1.0
    norms = np.maximum(np.linalg.norm(watched, axis=0), 1.0)  # [I]
    cosines = watched.T @ watched / np.outer(norms, norms)
    np.fill_diagonal(cosines, 0.0)
    least = np.partition(cosines, -neighbors, axis=1)[:, -neighbors, None]
    cosines = np.where(cosines >= least, cosines, 0.0)
    scores = [decay ** np.arange(len(items))[::-1] @ cosines[items] for items in histories]
    return np.stack(scores).astype(np.float32)


def training_items(sequences: Sequences) -> list[np.ndarray]:
    """The items of each user's training split, int32 [*], oldest first."""
    begins, ends = sequences.bounds("train")
    return [sequences.items[begin:end] for begin, end in zip(begins, ends, strict=True)]
