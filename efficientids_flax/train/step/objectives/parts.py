"""What a module is trained for and measured by: its loss, its metrics, its first variables."""

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
    """How several batches are measured at once, of a model for which that saves time.

    Attributes:
        times: batch -> int [B, P] or None, of `label_times`; read on the host.
        positions: (params, batch, times) -> what a batch leaves; arrays [B, P, ...], and [1].
        sums: (params, the same of several, joined) -> what is summed.
    """

    times: Callable[[Batch], np.ndarray | None]
    positions: Callable[[Any, Batch, jax.Array], Any]
    sums: Callable[[Any, Any], Sums]


class Objective(NamedTuple):
    """How to train a module.

    Attributes:
        module: with the precision and the rematerialisation that were asked for.
        loss: see `step.LossFn`.
        sums: (params, batch, model_state) -> what is summed over an evaluation.
        init: (rng, batch) -> variables.
        config: of the package's own models, for shardings; else None.
        own: whether the module sees to precision and rematerialisation itself.
        params: to begin with, of a module that holds its own.
        items: of a recommender whose loss has gradients by few rows of its item table.
        gathering: of a recommender with a large catalogue.
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
    """A stream of random numbers for each use that a module may have."""
    names = ("params", "dropout", RANDOM)
    found = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
    return found | {NEGATIVES: jax.random.fold_in(rng, len(names))}
