"""The configuration of a forecaster: patches of a series in, a mean and quantiles out (TimesFM).

Letters: L layers, D model width, F hidden width, N heads, K head width, P points of a patch, H
points that are forecast from a patch, Q quantiles.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from efficientids_flax.config.backbone import BackboneConfig
from efficientids_flax.config.lora import LoraConfig
from efficientids_flax.config.parts import DType, NormConfig, NormPlacesConfig
from efficientids_flax.config.record import Record, positive

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The quantiles of all public TimesFM models."""


@dataclass(frozen=True)
class TimesFMConfig(Record):
    """A decoder over the patches of a series (arXiv 2310.10688, `PatchedTimeSeriesDecoder`).

    Attributes:
        num_layers, model_dims, hidden_dims, num_heads, head_dim: L, D, F (of the layers and of the
            input and output blocks), N, K.
        patch_length: P.
        horizon_length: H, the largest number of points that one step forecasts.
        quantiles: Q levels in (0, 1), in the order of the model's outputs, after the mean.
        context_length: default number of points of a series that a forecast reads; a multiple of
            P.
        use_positional_embedding: sinusoids are added to the patches (1.0 does, 2.0 does not).
        num_frequencies: rows of the table of frequencies; 0 for a model without one.
        statistics: how the deviation that normalises a series is computed. 'moments': from
            E[x^2] - mean^2; below `tolerance` it is 1 (releases 1.2 and 1.3, with which the public
            models are run). 'centred': from the mean of (x - mean)^2, at least `tolerance` (the
            newest source, and transformers). 'moments' loses all digits if the mean is a few
            thousand deviations.
        tolerance: see `statistics`.
        pad_value: value that marks missing points.
        norm_epsilon: epsilon of all norms.
        position_min_timescale, position_max_timescale: time scales of the sinusoids.
        scan_layers: layers are stacked on a leading axis L, and scanned.
        dtype, param_dtype: dtypes of the computation (statistics: float32) and of the parameters.
        lora: low-rank additions to the projections of the layers, see `backbone.lora`.
    """

    num_layers: int
    model_dims: int
    hidden_dims: int
    num_heads: int
    head_dim: int
    patch_length: int
    horizon_length: int
    quantiles: tuple[float, ...] = DECILES
    context_length: int = 512
    use_positional_embedding: bool = True
    num_frequencies: int = 3
    statistics: Literal["moments", "centred"] = "moments"
    tolerance: float = 1e-7
    pad_value: float = 1123581321.0
    norm_epsilon: float = 1e-6
    position_min_timescale: float = 1.0
    position_max_timescale: float = 10_000.0
    scan_layers: bool = False
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    lora: LoraConfig | None = None

    def problems(self) -> Collection[str]:
        """Sizes are positive, levels are in (0, 1), the context is a multiple of the patch."""
        found = positive(
            self, "num_layers", "model_dims", "hidden_dims", "num_heads", "head_dim",
            "patch_length", "horizon_length", "context_length", "tolerance", "norm_epsilon",
            "position_min_timescale", "position_max_timescale",
        )  # fmt: skip
        if found:
            return found
        if self.num_frequencies < 0:
            found.append(f"num_frequencies: expected at least 0, found {self.num_frequencies}")
        if wrong := [level for level in self.quantiles if not 0 < level < 1]:
            found.append(f"quantiles: expected levels between 0 and 1, found {wrong}")
        if len(set(self.quantiles)) < len(self.quantiles):
            found.append(f"quantiles: the same level twice, in {list(self.quantiles)}")
        if self.context_length % self.patch_length:
            found.append(
                f"context_length: expected a multiple of patch_length = {self.patch_length},"
                f" found {self.context_length}"
            )
        return found + (self.lora.unfit(self.backbone.projections) if self.lora else [])

    @property
    def num_outputs(self) -> int:
        """1 + Q: the mean, then the quantiles."""
        return 1 + len(self.quantiles)

    @property
    def backbone(self) -> BackboneConfig:
        """The decoder layers: RMSNorm before attention, LayerNorm before the MLP, no final norm."""
        return _backbone(self)


@lru_cache(maxsize=64)
def _backbone(config: TimesFMConfig) -> BackboneConfig:
    return BackboneConfig(
        vocab_size=0,
        num_layers=config.num_layers,
        model_dims=config.model_dims,
        hidden_dims=config.hidden_dims,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_dim=config.head_dim,
        scan_layers=config.scan_layers,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        norm="rms_norm",
        norm_epsilon=config.norm_epsilon,
        # Praxis' RmsNorm stores its scale, Praxis' LayerNorm stores the scale minus one.
        norms=NormPlacesConfig(mlp=NormConfig(kind="layer_norm", bias=True, scale_plus_one=True)),
        final_norm=False,
        qkv_bias=True,
        attention_out_bias=True,
        query_scaling="per_dim_scale",
        activation="relu",
        mlp_bias=True,
        lora=config.lora,
    )
