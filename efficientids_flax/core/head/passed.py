"""Inputs of the head's functions, and the output of its loss.

Letters: D width of the hidden states, W of query and tables (D or E), E item width, V words, I
items, K clusters; `...` any leading axes, mostly B batch and T time.
"""

from typing import NamedTuple

import jax

from efficientids_flax.core.head.second import Places


class TouchedTable(NamedTuple):
    """The item table, if its gradient is stored in `places` instead of an array of its shape.

    Attributes:
        rows: [I + spare, E], in cluster order.
        places: where the gradient is stored.
    """

    rows: jax.Array
    places: Places


Table = jax.Array | TouchedTable  # [I, E]


class HeadInputs(NamedTuple):
    """Inputs of the head's functions.

    Attributes:
        hidden: [..., D], output of the backbone.
        query: [..., W], what items and clusters are multiplied with.
        items: [I, W].
        clusters: [K, W]; None under full softmax.
        word_logits: [..., V] before the soft cap; None if the model has no words.
        rows: [I, E], the items before the adapter of `Head`; None if it has none. With `places`,
            the rows of a `TouchedTable`.
        places: where the second pass stores the gradient by the rows; None: normal autodiff.
    """

    hidden: jax.Array
    query: jax.Array
    items: jax.Array
    clusters: jax.Array | None
    word_logits: jax.Array | None = None
    rows: jax.Array | None = None
    places: Places | None = None


class LossOutput(NamedTuple):
    """The losses that the original returns for labels; float32.

    Attributes:
        total_loss: [], what is minimised: `avg_xent + aux_loss`.
        avg_xent: [], `total_xent / (total_weight + 1e-6)`.
        aux_loss, aux_loss_weight: [], sum of the weighted z-loss and the experts' losses, and the
            number of these losses.
        total_xent, total_weight: [], weighted sum of the entropies, and sum of the weights.
        per_example_xent: [...], unweighted.
        per_token_xent: [...], weighted.
        per_sequence_xent: `per_token_xent` summed over its last axis.
        z_loss: [], weighted as configured; included in `aux_loss`.
    """

    total_loss: jax.Array
    avg_xent: jax.Array
    aux_loss: jax.Array
    aux_loss_weight: jax.Array
    total_xent: jax.Array
    total_weight: jax.Array
    per_example_xent: jax.Array
    per_token_xent: jax.Array
    per_sequence_xent: jax.Array
    z_loss: jax.Array

    @property
    def loss(self) -> jax.Array:
        """`total_loss`."""
        return self.total_loss

    def metrics(self) -> dict[str, jax.Array]:
        """The loss and the other scalars, by name."""
        names = ("avg_xent", "aux_loss", "total_xent", "total_weight", "z_loss")
        return {"loss": self.total_loss} | {name: getattr(self, name) for name in names}
