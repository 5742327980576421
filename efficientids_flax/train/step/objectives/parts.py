"""What an objective consists of: the loss, the metrics and the initial variables of a module."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from efficientids_flax.backbone.experts import RANDOM
from efficientids_flax.core.head import NEGATIVES
from efficientids_flax.train.state import ModelConfig
from efficientids_flax.train.step.function import LossFn
from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.train.step.rows import ItemTable

Batch = Mapping[str, Any]
Sums = Mapping[str, Any]  # each has `a + b` and `compute()`


class Gathering(NamedTuple):
    """How to measure several batches at once, for models where that saves time.

    Attributes:
        times: batch -> int [B, P] or None, see `label_times`; runs on the host.
        positions: (params, batch, times) -> `LabelPositions` of one batch, arrays [B, P, ...] and
            [1].
        sums: (params, those of several batches, joined) -> sums of the evaluation.
    """

    times: Callable[[Batch], np.ndarray | None]
    positions: Callable[[Any, Batch, jax.Array], Any]
    sums: Callable[[Any, Any], Sums]


class Objective(NamedTuple):
    """How to train and evaluate a module.

    Attributes:
        module: the module to train, with the requested precision and rematerialisation.
        loss: see `step.LossFn`.
        sums: (params, batch, model_state) -> sums that add up over an evaluation.
        init: (rng, batch) -> variables.
        config: configuration of the package's own models, for shardings; else None.
        own: whether the module handles precision and rematerialisation itself.
        params: initial parameters, if the module holds its own.
        items: set for a recommender whose loss gives gradients to few rows of its item table.
        gathering: set for a recommender with a large catalogue.
    """

    module: nn.Module | NNXBridge
    loss: LossFn
    sums: Callable[[Any, Batch, Any], Sums]
    init: Callable[[jax.Array, Batch], Mapping[str, Any]]
    config: ModelConfig | None
    own: bool
    params: Mapping[str, Any] | None = None
    items: ItemTable | None = None
    gathering: Gathering | None = None


def streams(rng: jax.Array) -> dict[str, jax.Array]:
    """A random key for each rng stream that a module may use."""
    names = ("params", "dropout", RANDOM)
    found = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
    return found | {NEGATIVES: jax.random.fold_in(rng, len(names))}
