"""The forecaster as three compiled programs: for the input, for any layer, for the output.

All layers are alike, so one program serves them all. A single program of all layers would take a
compile time that grows with their number, and more memory than the weights. Letters: B series, T
points, n patches, D model width, H points of a forecast, Q quantiles.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from efficientids_flax.backbone.layer import Layer
from efficientids_flax.forecast.model import TimesFM, patch_surroundings
from efficientids_flax.forecast.statistics import Statistics
from efficientids_flax.parameters import DECODER

LAYERS = DECODER.rstrip("/")


def values_at_patches(
    model: TimesFM,
    params: Mapping[str, Any],
    series: jax.Array | np.ndarray,
    paddings: jax.Array | np.ndarray,
    frequencies: jax.Array | np.ndarray,
    *,
    statistics: Statistics | None = None,
    last: bool = False,
) -> jax.Array:
    """The `values` of `TimesFM.__call__` in evaluation, without its other outputs.

    Args:
        model: the forecaster.
        params: its parameters.
        series, paddings: [B, T].
        frequencies: int [B].
        statistics, last: see `TimesFM.__call__`.

    Returns:
        float32 [B, n, H, 1 + Q], with `last` n = 1.
    """
    if model.config.scan_layers:
        return _scanned(model, params, series, paddings, frequencies, statistics, last)
    ends = {name: tree for name, tree in params.items() if name != LAYERS}
    x, padded, statistics = _begin(model, ends, series, paddings, frequencies, statistics)
    for index in range(model.config.num_layers):
        layer = params[LAYERS][f"layers_{index}"]
        x = _layer(model, layer, x, padded)
        if any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(layer)):
            # Host arrays are copied to the device for the call: keep only one layer's at a time.
            x = jax.block_until_ready(x)
    return _end(model, ends, x[:, -1:] if last else x, statistics)


@partial(jax.jit, static_argnames="model")
def _begin(
    model: TimesFM, params: Any, series: Any, paddings: Any, frequencies: Any, statistics: Any
) -> tuple[jax.Array, jax.Array, Statistics]:
    apply: Any = model.apply
    return apply(
        {"params": params}, series, paddings, frequencies, statistics=statistics,
        method=TimesFM.begin,
    )  # fmt: skip


@partial(jax.jit, static_argnames="model", donate_argnames="x")
def _layer(model: TimesFM, params: Any, x: jax.Array, padded: jax.Array) -> jax.Array:
    backbone = model.config.backbone
    apply: Any = Layer(backbone, 0).apply
    return apply({"params": params}, x, patch_surroundings(backbone, padded))


@partial(jax.jit, static_argnames="model")
def _end(model: TimesFM, params: Any, tokens: jax.Array, statistics: Statistics) -> jax.Array:
    apply: Any = model.apply
    return apply({"params": params}, tokens, statistics, method=TimesFM.end)


@partial(jax.jit, static_argnames=("model", "last"))
def _scanned(
    model: TimesFM,
    params: Any,
    series: Any,
    paddings: Any,
    frequencies: Any,
    statistics: Any,
    last: bool,
) -> jax.Array:
    apply: Any = model.apply
    return apply(
        {"params": params}, series, paddings, frequencies, statistics=statistics, last=last
    ).values
