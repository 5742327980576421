"""Recommenders without a gradient: what most people watch, and what goes with what one has watched.

Letters: U people, I items.
"""

import numpy as np

from efficientids_flax.data.rows import Sequences


def popularity(sequences: Sequences, histories: list[np.ndarray]) -> np.ndarray:
    """How often each item is in the training split, for everybody alike: float32 [U, I]."""
    watched = np.concatenate(training_items(sequences))
    counts = np.bincount(watched, minlength=sequences.num_items)
    return np.tile(counts.astype(np.float32), (len(histories), 1))


def item_knn(
    sequences: Sequences, histories: list[np.ndarray], *, neighbors: int, decay: float
) -> np.ndarray:
    """Items like those of a history: the sum of their cosines, recent ones counting more.

    Args:
        sequences: of whose training split the cosines between items are, by who has watched them.
        histories: U histories, oldest first.
        neighbors: of each item only so many most similar ones count.
        decay: weight of an item, for each one that came after it; 1: all count alike.

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
    """int32 [*] of each person: the items of the training split, oldest first."""
    begins, ends = sequences.bounds("train")
    return [sequences.items[begin:end] for begin, end in zip(begins, ends, strict=True)]
