"""How a score is composed: the item's own logit and a term of its cluster.

Letters: B queries, K clusters, W width of query and tables, V words.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.hierarchical import first_pass_logits
from efficientids_flax.core.head.search.index import SearchIndex

Kind = Literal["scores", "corrected", "log_probs"]


class Scored(NamedTuple):
    """How products become scores: `outer(inner(q . item) - normaliser of its cluster + added)`.

    Attributes:
        added: float32 [B, K], the term of each cluster.
        inner, outer: soft caps; None: no cap.
        normalised: whether there is a normaliser, the logsumexp of the cluster's capped logits.
        others: float32 [B, 1], logsumexp of further logits in the normaliser, the words under full
            softmax; None: there are none.
    """

    added: jax.Array
    inner: float | None
    outer: float | None
    normalised: bool
    others: jax.Array | None = None

    def logits(self, products: jax.Array) -> jax.Array:
        """Capped logits from the products `q . item`."""
        return soft_cap(products, self.inner)

    def offsets(self, highest: jax.Array, exponentials: jax.Array) -> "Offsets":
        """The offsets of each cluster.

        Args:
            highest: float32 [B, K], a cluster's highest logit; unused if nothing is normalised.
            exponentials: float32 [B, K], sum of exp(logit - highest).
        """
        if not self.normalised:
            return Offsets(jnp.zeros_like(self.added), self.added)
        rest = jnp.log(exponentials)
        if self.others is not None:
            rest = jnp.logaddexp(rest, self.others - highest)
        return Offsets(highest, self.added - rest)

    def scores(self, logits: jax.Array, offsets: "Offsets") -> jax.Array:
        """Scores from logits and the offsets of their clusters; monotonic in the logit."""
        # Subtract the highest logit first: added to a large logit, `rest` would be rounded away.
        return soft_cap((logits - offsets.highest) + offsets.rest, self.outer)


class Offsets(NamedTuple):
    """Per cluster: `highest` is subtracted from a logit first, then `rest` is added; float32."""

    highest: jax.Array
    rest: jax.Array

    def at(self, clusters: jax.Array) -> "Offsets":
        """The offsets of these clusters: [B, K] at int [...] -> [B, ...]."""
        return Offsets(self.highest[:, clusters], self.rest[:, clusters])


def scored(
    index: SearchIndex,
    query: jax.Array,
    kind: Kind,
    cap: float | None,
    word_logits: jax.Array | None,
) -> Scored:
    """How the items of an index are scored.

    Args:
        index: has K clusters; under full softmax K = 1, and only 'log_probs' is normalised.
        query: float32 [B, W].
        kind, cap, word_logits: see `search`.
    """
    inner = cap if kind == "log_probs" else None
    outer = None if kind == "log_probs" else cap
    if index.clusters is None:
        none, others = jnp.zeros((query.shape[0], 1), jnp.float32), None
        if word_logits is not None:
            words = soft_cap(word_logits.astype(jnp.float32), inner)
            others = jax.nn.logsumexp(words, axis=-1, keepdims=True)
        return Scored(none, inner, outer, kind == "log_probs", others)
    if kind == "log_probs":
        words = None if word_logits is None else word_logits[:, None]
        with jax.default_matmul_precision("highest"):
            first = first_pass_logits(words, query[:, None], index.clusters, cap)[:, 0]
        count = index.clusters.shape[0]
        return Scored(jax.nn.log_softmax(first)[:, first.shape[-1] - count :], inner, outer, True)
    added = jnp.einsum("bw,kw->bk", query, index.clusters, precision="highest")
    return Scored(added, inner, outer, kind == "corrected")
