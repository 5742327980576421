"""A Markov chain over clustered items: synthetic data whose best possible metrics are known.

The next item depends on the present one: p(j | i) = P[c(i), c(j)] Q[s(j) - s(i)], with the cluster
c and the slot s of an item. Letters: I items, K clusters, M slots, N sequences, T time.
"""

from dataclasses import dataclass

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo


@dataclass(frozen=True)
class MarkovItems:
    """The process.

    Attributes:
        probabilities: float64 [I, I], p(next | present); rows sum to one.
        cluster_of: int [I].
    """

    probabilities: np.ndarray
    cluster_of: np.ndarray

    @classmethod
    def random(
        cls, num_clusters: int = 20, cluster_size: int = 20, seed: int = 0, sharpness: float = 2.0
    ) -> "MarkovItems":
        """Random transitions; item ids are in random order.

        Args:
            num_clusters, cluster_size: K, M.
            seed: of everything.
            sharpness: exponent of the laws; 0 makes all items equally likely.
        """
        rng = np.random.default_rng(seed)
        clusters = rng.exponential(size=(num_clusters, num_clusters)) ** sharpness  # [K, K]
        clusters /= clusters.sum(axis=1, keepdims=True)
        slots = np.arange(1, cluster_size + 1.0) ** -sharpness  # [M]
        slots /= slots.sum()
        count = num_clusters * cluster_size
        order = rng.permutation(count)
        cluster_of, slot_of = order // cluster_size, order % cluster_size
        turn = (slot_of[None, :] - slot_of[:, None]) % cluster_size  # [I, I]
        return cls(clusters[cluster_of[:, None], cluster_of[None, :]] * slots[turn], cluster_of)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.cluster_of)

    @property
    def clustering(self) -> ClusteringInfo:
        """The clusters of the process, without means."""
        return ClusteringInfo.from_assignments(self.cluster_of)

    def sequences(self, count: int, length: int, seed: int) -> np.ndarray:
        """Sequences of the process, with uniformly random first items: int32 [N, T]."""
        rng = np.random.default_rng(seed)
        totals = np.cumsum(self.probabilities, axis=1)
        found = np.empty((count, length), np.int32)
        found[:, 0] = rng.integers(0, self.num_items, count)
        for step in range(1, length):
            draws = rng.random(count)[:, None]
            chosen = (totals[found[:, step - 1]] < draws).sum(axis=1)
            found[:, step] = np.minimum(chosen, self.num_items - 1)
        return found

    def best_metrics(
        self, sequences: np.ndarray, cutoffs: tuple[int, ...] = (1, 5, 10)
    ) -> dict[str, float]:
        """Metrics of the true process on sequences: the optimum, up to chance.

        Args:
            sequences: int [N, T].
            cutoffs: the k of recall@k and nDCG@k.

        Returns:
            `recall_at_k`, `ndcg_at_k`, and `loss`, the mean of -log p(next | present).
        """
        present, following = sequences[:, :-1].reshape(-1), sequences[:, 1:].reshape(-1)
        order = np.argsort(-self.probabilities, axis=1, kind="stable")
        rank_of = np.argsort(order, axis=1)  # [I, I]
        rank = rank_of[present, following]
        found = {"loss": float(-np.log(self.probabilities[present, following]).mean())}
        for cutoff in cutoffs:
            inside = rank < cutoff
            found[f"recall_at_{cutoff}"] = float(inside.mean())
            found[f"ndcg_at_{cutoff}"] = float((inside / np.log2(rank + 2)).mean())
        return found
