"""Runs our forecaster on what was recorded: a pass with intermediate values, decodes, forecasts.

Letters: B series, T points, P points in a patch, n patches, D model width.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import (
    Forecasts,
    Statistics,
    TimesFM,
    decode,
    forecast,
    forecast_loss,
    model_inputs,
    series_statistics,
)
from efficientids_flax.forecast.series import read_series, scaled
from efficientids_flax.tree import flatten
from parity_tests.forecasters.recorded import ForecasterRecording

INSIDE = "intermediates"
# fmt: off
TOP = {
    # recorded, below mid/    what our modules record
    "normalised_patches":     "normalised_patches",
    "patched_padding":        "patched_padding",
    "input_ff_layer":         "input_block/__call__",
    "after_position":         "after_position",
    "freq_emb":               "frequencies",
    "transformer_input":      "decoder/layer_input",
    "horizon_ff_layer":       "horizon",
    "hidden_0":               "decoder/layer_input",
}
LAYER = {
    # recorded, layer_<i>_    below decoder/layers_<i>/
    "":                       "__call__",
    "_rms_norm":              "attention_norm/__call__",
    "_query_scaled":          "attention/scaled_query",
    "_attention_probs":       "attention/probs",
    "_attention":             "attention/__call__",
    "_ff_layer_norm":         "mlp_norm/__call__",
    "_ff_layer":              "mlp/__call__",
}
# fmt: on
_LAYER = re.compile(r"layer_(\d+)(\w*)")
_HIDDEN = re.compile(r"hidden_(\d+)")


class Runner:
    """A model that computes what a recording contains.

    Attributes:
        stored: configuration and parameters as converted.
        config, params, model: the same with unstacked layers.
        batch: the recorded inputs; `inputs`: the same as the model takes them.
    """

    def __init__(
        self, config: TimesFMConfig, params: Mapping[str, Any], recording: ForecasterRecording
    ) -> None:
        self.stored = config, params
        self.params = layers_apart(config, params)
        self.config = replace(config, scan_layers=False)
        self.model = TimesFM(self.config)
        self.recording = recording
        arrays = recording.arrays
        batch = {name: arrays[f"in/{name}"] for name in _fields(arrays)}
        batch.setdefault("freq", np.full(len(batch["input_ts"]), recording.frequency))
        self.batch = batch
        self.inputs = model_inputs(self.config, batch)

    def inside(self, statistics: Statistics | None, train: bool = False) -> dict[str, np.ndarray]:
        """`output_ts`, `output_tokens`, `mu`, `sigma`, and all intermediate values by path."""
        with jax.default_matmul_precision("highest"):
            found, kept = _all_inside(self.model, self.params, self.inputs, statistics, train)
        values = {name: np.asarray(one[0]) for name, one in kept.items()}
        mean, deviation = found.statistics
        own = {"output_ts": found.values, "output_tokens": found.tokens}
        own |= {"mu": mean, "sigma": deviation}
        return values | {name: np.asarray(value) for name, value in own.items()}

    def statistics(self) -> dict[str, np.ndarray]:
        """`mu` and `sigma` by the model's own rule."""
        with jax.default_matmul_precision("highest"):
            mean, deviation = _own_statistics(self.model, self.params, self.inputs)
        return {"mu": np.asarray(mean), "sigma": np.asarray(deviation)}

    def loss(self, train: bool) -> np.ndarray:
        """The loss of the batch, whose future is recorded."""
        with jax.default_matmul_precision("highest"):
            found, _ = _all_inside(self.model, self.params, self.inputs, None, train)
            loss = _forecast_loss(self.config, found.values, self.batch["actual_ts"]).loss
            return np.asarray(loss)

    def decoded(self, options: Mapping[str, Any], horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """A decode [B, h', 1 + Q], and (mean / deviation)^2 for each step [K, B]."""
        values, holes, kinds = (np.asarray(one) for one in self.inputs)
        with jax.default_matmul_precision("highest"):
            found = decode(self.model, self.params, values, holes, kinds, horizon, **options)
        step = options.get("step_length") or self.config.horizon_length
        window = options.get("max_length") or self.config.context_length
        mean = found[:, found.shape[1] - horizon :, 0]
        return found, self._ratios(values, holes, mean, step, window)

    def forecasts(
        self, options: Mapping[str, Any], horizon: int, freq: Any
    ) -> tuple[Forecasts, np.ndarray]:
        """A forecast of the recorded series, and (mean / deviation)^2 for each step [K, S]."""
        arrays = self.recording.arrays
        count = sum(name.startswith("api/in/") for name in arrays)
        series = [arrays[f"api/in/{i}"] for i in range(count) if f"api/in/{i}" in arrays]
        read = read_series(series).values
        with jax.default_matmul_precision("highest"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the tolerance allows for the rounding
            found = forecast(self.model, self.params, series, horizon, freq=freq, **options)
        seen = options.get("context_length") or self.config.context_length
        window = self.config.context_length
        values = np.zeros((len(series), window), np.float32)
        holes = np.ones_like(values)
        for row, one in enumerate(read):
            tail = one[-seen:]
            values[row, window - len(tail) :], holes[row, window - len(tail) :] = tail, 0
        mean = found.mean[:, found.mean.shape[1] - horizon :]
        if options.get("normalize"):  # use the values that the model itself sees and returns
            scales = [scaled(one)[1:] for one in read]
            centre, width = (np.asarray(scale)[:, None] for scale in zip(*scales, strict=True))
            values, mean = (values - centre) / width, (mean - centre) / width
        return found, self._ratios(values, holes, mean, self.config.horizon_length, window)

    def _ratios(
        self, values: np.ndarray, holes: np.ndarray, mean: np.ndarray, step: int, window: int
    ) -> np.ndarray:
        """(mean / deviation)^2 of the statistics that each step is normalised with: [K, B]."""
        found = []
        for done in range(0, mean.shape[1], step):
            series = np.concatenate([values, mean[:, :done]], axis=1)[:, -window:]
            padding = np.pad(holes, ((0, 0), (0, done)))[:, -window:]
            lacking = -series.shape[1] % self.config.patch_length
            series = np.pad(series, ((0, 0), (lacking, 0)))
            padding = np.pad(padding, ((0, 0), (lacking, 0)), constant_values=1)
            own = _series_statistics(self.config, series, padding)
            found.append(np.square(np.asarray(own.mean) / np.asarray(own.deviation)))
        return np.asarray(found)


_series_statistics = jax.jit(series_statistics, static_argnums=0)
_forecast_loss = jax.jit(forecast_loss, static_argnums=0)


@partial(jax.jit, static_argnames=("model", "train"))
def _all_inside(model: TimesFM, params: Any, inputs: Any, statistics: Any, train: bool) -> Any:
    found, kept = model.apply(
        {"params": params}, *inputs, train=train, statistics=statistics,
        capture_intermediates=lambda *_: True, mutable=[INSIDE],
    )  # fmt: skip
    return found, {
        name: value
        for name, value in flatten(kept[INSIDE]).items()
        if isinstance(value[0], jax.Array)
    }


@partial(jax.jit, static_argnames="model")
def _own_statistics(model: TimesFM, params: Any, inputs: Any) -> Any:
    """Compiles in a fraction of the time of all intermediate values."""
    found: Any = model.apply({"params": params}, *inputs)
    return found.statistics


def ours_of(name: str) -> str | None:
    """Our path for a recorded name below `mid/`; None if the name is unknown."""
    if name in TOP:
        return TOP[name]
    if (found := _HIDDEN.fullmatch(name)) and int(found[1]):
        return f"decoder/layers_{int(found[1]) - 1}/__call__"
    if (found := _LAYER.fullmatch(name)) and found[2] in LAYER:
        return f"decoder/layers_{found[1]}/{LAYER[found[2]]}"
    return None


def layer_of(name: str) -> int | None:
    """Number of the layer in a recorded name."""
    found = _LAYER.fullmatch(name)
    return int(found[1]) if found else None


def _fields(arrays: Mapping[str, np.ndarray]) -> list[str]:
    known = ("input_ts", "input_padding", "freq", "actual_ts")
    return [name for name in known if f"in/{name}" in arrays]


def layers_apart(config: TimesFMConfig, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters with unstacked layers."""
    if not config.scan_layers:
        return params
    stack = params["decoder"]["layers"]
    layers = {
        f"layers_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], stack)
        for i in range(config.num_layers)
    }
    return {**params, "decoder": layers}
