"""The compiled functions of a ranker: the index of a model's items, queries, the best items.

Each is compiled once for each padded shape of the histories. Letters as in `ranker`.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from efficientids_flax.core.head import SearchIndex, TopItems, build_index, search
from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel

Scoring = Literal["log_probs", "original"]
Model = EfficientIDSModel | SimpleEfficientIDSModel


@partial(jax.jit, static_argnames="model")
def index_of(model: Model, params: Any) -> SearchIndex:
    """The index of the model's items; XLA removes the decoder, whose output is not used."""
    nothing = jnp.zeros((1, 1), jnp.int32)
    batch = {"ids": nothing, "paddings": nothing, "inputs_indicator": nothing}
    if model.config.backbone.vocab_size:
        batch["input_item_weights"] = nothing
    inputs: Any = model.apply({"params": params}, batch, words=False, method="head_inputs")
    clustering = None if model.config.full_softmax else model.clustering_info
    return build_index(inputs.items, inputs.clusters, clustering)


@partial(jax.jit, static_argnames=("model", "k", "scoring", "clusters"))
def best_items(
    model: Model,
    params: Any,
    index: SearchIndex,
    batch: dict[str, jax.Array],
    last: jax.Array,
    exclude: jax.Array | None,
    allowed: jax.Array | None,
    *,
    k: int,
    scoring: Scoring,
    clusters: int | None,
) -> TopItems:
    """The k best items of each row, by the search of `core.head`."""
    config = model.config
    query, words = queries_at(model, params, batch, last)
    original = "corrected" if config.use_correction else "scores"
    return search(
        index,
        query,
        k,
        kind="log_probs" if scoring == "log_probs" else original,
        soft_cap=config.soft_cap_logits,
        word_logits=words,
        exclude=exclude,
        allowed=allowed,
        clusters=clusters,
    )


@partial(jax.jit, static_argnames="model")
def queries_of(
    model: Model, params: Any, batch: dict[str, jax.Array], last: jax.Array
) -> jax.Array:
    """float32 [B, W], see `queries_at`."""
    return queries_at(model, params, batch, last)[0]


def queries_at(
    model: Model, params: Any, batch: dict[str, jax.Array], last: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """(query [B, W], logits of words [B, V] where there are any) at one position of each row."""
    found: Any = model.apply({"params": params}, batch, last, method=_queries)
    return found


def _queries(
    model: Model, batch: dict[str, jax.Array], last: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """(query [B, W], word logits [B, V]) at one position a row."""
    inputs = model.head_inputs(batch, words=False, at=last[:, None])
    words = None
    if model.config.backbone.gives_words:
        words = model.word_logits(inputs.hidden)[:, 0]
    return inputs.query[:, 0], words
