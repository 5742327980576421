"""TimesFM: decoder layers over the patches of a series, with a mean and quantiles as output.

Computes the same as `timesfm.patched_decoder.PatchedTimeSeriesDecoder` (releases 1.2 and 1.3), with
the layers of this package's decoder. Letters: B series, T points, P points of a patch, n = T / P
patches, D model width, F hidden width, H points of a forecast, Q quantiles.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.attention import Surroundings, make_surroundings
from efficientids_flax.backbone.inputs import Tokens
from efficientids_flax.backbone.layers import (
    ACTIVATIONS,
    INTERMEDIATES,
    Dense,
    Embedding,
    sinusoids,
)
from efficientids_flax.backbone.masks import Marks
from efficientids_flax.config import BackboneConfig, TimesFMConfig
from efficientids_flax.forecast.statistics import Statistics, cut, normalised, statistics_of


class Forecast(NamedTuple):
    """The forecasts from each patch.

    Attributes:
        values: float32 [B, n, H, 1 + Q], forecast of the H points after the patch: the mean, then
            the quantiles.
        tokens: [B, n, D], the output of the last layer.
        statistics: mean and deviation that normalised the series.
    """

    values: jax.Array
    tokens: jax.Array
    statistics: Statistics


class ResidualBlock(nn.Module):
    """`output(silu(hidden(x))) + residual(x)` (`timesfm.patched_decoder.ResidualBlock`)."""

    features: int
    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., I] -> [..., features]."""
        config = self.config
        inner = Dense(config.hidden_dims, True, config, name="hidden")(x)
        inner = ACTIVATIONS["silu"](inner.astype(jnp.float32)).astype(inner.dtype)
        output = Dense(self.features, True, config, name="output")(inner)
        return output + Dense(self.features, True, config, name="residual")(x)


class TimesFM(nn.Module):
    """The forecaster.

    Attributes:
        config: configuration of the forecaster.
        remat: see `Decoder`.
    """

    config: TimesFMConfig
    remat: str | None = None

    def setup(self) -> None:
        config, backbone = self.config, self.config.backbone
        self.input_block = ResidualBlock(config.model_dims, backbone)
        if config.num_frequencies:
            self.frequency_embedding = Embedding(config.num_frequencies, backbone)
        self.decoder = Decoder(backbone, self.remat)
        self.horizon_block = ResidualBlock(config.horizon_length * config.num_outputs, backbone)

    def __call__(
        self,
        series: jax.Array,
        paddings: jax.Array | None = None,
        frequencies: jax.Array | None = None,
        *,
        train: bool = False,
        deterministic: bool = True,
        statistics: Statistics | None = None,
        last: bool = False,
    ) -> Forecast:
        """The forecast from every patch.

        Args:
            series: [B, T], T a multiple of P; missing points have `config.pad_value`.
            paddings: [B, T], 1 for padding, usually in front; None: no padding.
            frequencies: int [B] or [B, 1], 0 up to daily, 1 weekly and monthly, 2 beyond; None: 0.
            train: positions count from the first patch, as in the original's training; else from
                the first patch that is not padding.
            deterministic: no dropout (the public models have none).
            statistics: statistics to normalise by; None: the series' own.
            last: forecast only from the last patch, so that `values` has n = 1.

        Raises:
            ValueError: shapes do not fit.
        """
        x, padded, statistics = self.begin(
            series, paddings, frequencies, train=train, statistics=statistics
        )
        around = patch_surroundings(self.config.backbone, padded)
        tokens, _ = self.decoder.run_layers(x, around, deterministic)
        return Forecast(
            self.end(tokens[:, -1:] if last else tokens, statistics), tokens, statistics
        )

    def begin(
        self,
        series: jax.Array,
        paddings: jax.Array | None = None,
        frequencies: jax.Array | None = None,
        *,
        train: bool = False,
        statistics: Statistics | None = None,
    ) -> tuple[jax.Array, jax.Array, Statistics]:
        """(input of the layers [B, n, D], float32 [B, n] with 1 for padded patches, statistics).

        Args:
            series, paddings, frequencies, train, statistics: see `__call__`.
        """
        config = self.config
        shape = jnp.shape(series)
        if len(shape) != 2 or not shape[1]:
            raise ValueError(f"series: found shape {list(shape)}, expected [B, T]")
        patches = cut(config, series, jnp.zeros(shape) if paddings is None else paddings)
        if statistics is None:
            statistics = statistics_of(config, patches)
        values = normalised(patches, statistics)
        self.sow(INTERMEDIATES, "normalised_patches", values)
        x = self.input_block(jnp.concatenate([values, patches.paddings], axis=-1))
        padded = patches.padded
        x = self._placed(x, padded, train)
        self.sow(INTERMEDIATES, "after_position", x)
        if config.num_frequencies:
            given = jnp.zeros(shape[0], jnp.int32) if frequencies is None else frequencies
            kinds = self.frequency_embedding(jnp.asarray(given, jnp.int32).reshape(shape[0], 1))
            self.sow(INTERMEDIATES, "frequencies", kinds)
            x = x + kinds.astype(x.dtype)
        self.sow(INTERMEDIATES, "patched_padding", padded)
        return x, padded, statistics

    def end(self, tokens: jax.Array, statistics: Statistics) -> jax.Array:
        """Output of the layers [B, n, D] -> float32 [B, n, H, 1 + Q], in units of the series."""
        config = self.config
        ends = self.horizon_block(tokens)
        self.sow(INTERMEDIATES, "horizon", ends)
        forms = (config.horizon_length, config.num_outputs)
        found = ends.astype(jnp.float32).reshape(*ends.shape[:2], *forms)
        mean, deviation = (value[:, None, None, None] for value in statistics)
        return found * deviation + mean

    def _placed(self, x: jax.Array, padded: jax.Array, train: bool) -> jax.Array:
        """Add the sinusoids of the positions, if the model has any."""
        config = self.config
        if not config.use_positional_embedding:
            return x
        places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
        if not train:
            first = jnp.argmin(padded, axis=1)  # 0 where all are padding
            places = (places - first[:, None]) % x.shape[1]
        ends = config.position_min_timescale, config.position_max_timescale
        return x + sinusoids(places, config.model_dims, *ends).astype(x.dtype)


def patch_surroundings(config: BackboneConfig, padded: jax.Array) -> Surroundings:
    """Mask and positions, shared by all layers: no query attends to a padded patch.

    Padded patches are queries like any other. One with no patch to attend to weighs all n alike
    (Praxis' masks are finite), but no other patch attends to it.

    Args:
        config: configuration of the decoder.
        padded: float32 [B, n], 1 for a padded patch.
    """
    places = jnp.arange(padded.shape[1])
    positions = jnp.broadcast_to(places, padded.shape)
    present = 1 - padded.astype(jnp.int32)
    tokens = Tokens(padded, present, positions, None)
    queries = Marks(places, jnp.ones(padded.shape, jnp.int32))
    return make_surroundings(config, tokens, queries, Marks(places, present), positions)
