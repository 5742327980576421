"""What goes into the head's functions, and what its loss gives.

Letters: D width of the hidden states, W of query and tables (D or E), E item width, V words, I
items, K clusters; `...` any leading axes, mostly B batch and T time.
"""

from typing import NamedTuple

import jax

from efficientids_flax.core.head.second import Places


class TouchedTable(NamedTuple):
    """The item table, whose gradient goes elsewhere.

    Attributes:
        rows: [I + spare, E], in the order of `places`.
        places: of the gradient.
    """

    rows: jax.Array
    places: Places


Table = jax.Array | TouchedTable  # [I, E]


class HeadInputs(NamedTuple):
    """What the head works on.

    Attributes:
        hidden: [..., D], of the backbone.
        query: [..., W], scores items and clusters.
        items: [I, W].
        clusters: [K, W]; None under full softmax.
        word_logits: [..., V] without a cap; None where there are no words.
        rows: [I, E], the items before the adapter that `Head` holds; None where it holds none.
            With `places` those of a `TouchedTable`.
        places: where the second pass leaves its gradient by the rows; None: where autodiff does.
    """

    hidden: jax.Array
    query: jax.Array
    items: jax.Array
    clusters: jax.Array | None
    word_logits: jax.Array | None = None
    rows: jax.Array | None = None
    places: Places | None = None


class LossOutput(NamedTuple):
    """What the original returns for labels; float32.

    Attributes:
        total_loss: [], what is minimised: `avg_xent + aux_loss`.
        avg_xent: [], `total_xent / (total_weight + 1e-6)`.
        aux_loss, aux_loss_weight: [], the weighted z-loss and the losses of experts, summed, and
            how many there are.
        total_xent, total_weight: [], sums over all positions, the first one weighted.
        per_example_xent: [...], not weighted.
        per_token_xent: [...], weighted.
        per_sequence_xent: [...] less its last axis, sum of `per_token_xent`.
        z_loss: [], weighted as configured; contained in `aux_loss`.
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
